"""What docs/tasks.md says: the table names every task, and the package that it shows is installed and works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from compressors.tasks import catalogue, descriptions, registry
from search.spec import JobSpec
from tests.conformance.task import Rows, TaskConformance

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "tasks.md").read_text()


def install(site: Path) -> None:
    """Writes the package of the page, and what an installer would write from its pyproject.toml, to a folder."""
    files = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL))
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    for name, content in {**files, "bantam_ordinal/__init__.py": ""}.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(content)
    facts = site / f"bantam_ordinal-{project['version']}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in e.items()) for group, e in project["entry-points"].items()
    ]
    (facts / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def installed(site: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setattr(registry, "_DESCRIPTIONS", registry.registered())
        catalogue._from_packages.cache_clear()
        yield
    catalogue._from_packages.cache_clear()


class TestTheTaskOfThePage(TaskConformance):
    task, metrics = "ordinal", ("-mae", "within_1")

    def best(self, metric: str) -> float:
        return 0.0 if metric == "-mae" else 1.0

    @pytest.fixture
    def rows(self, metric: str) -> Rows:
        generator = np.random.default_rng(0)
        grades = generator.integers(0, 5, 400)
        clean = -np.abs(np.arange(5) - grades[:, None]).astype(np.float32)
        near, far = (clean + s * generator.normal(size=clean.shape).astype(np.float32) for s in (2.0, 4.0))
        return Rows(stored=grades, right=30 * clean, good=near, worse=far)


def test_a_job_may_name_it() -> None:
    document = {"model": "m", "budget": {"size_ratio": 0.5}, "data": {"train": "t", "inputs": ["x"], "target": "y"}}
    assert JobSpec.model_validate({**document, "task": "ordinal", "metric": "within_1"}).task == "ordinal"


def test_it_is_found_by_a_new_process_without_torch(site: Path) -> None:
    code = "import sys; from search.spec import JobSpec; from compressors.tasks import describe; "
    code += "print(describe('ordinal').name, 'torch' in sys.modules)"
    path = os.pathsep.join([str(site), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["ordinal", "False"]


def test_the_page_names_every_task_and_metric() -> None:
    table = [line for line in PAGE.splitlines() if line.startswith("| `")]
    for name, description in descriptions().items():
        if name == "ordinal":
            continue
        (line,) = [line for line in table if line.startswith(f"| `{name}` |")]
        assert re.findall(r"`([^`]+)`", line.split("|")[4]) == [metric.name for metric in description.metrics]
