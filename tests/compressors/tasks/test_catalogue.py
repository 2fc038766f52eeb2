"""How tasks are found, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch

from compressors.errors import InvalidData, UnsupportedModel
from compressors.tasks import TaskOptions, catalogue, describe, registry, task
from compressors.tasks.label_tasks import Binary
from compressors.tasks.registry import register_task

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Entry points of other packages, looked up anew."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(catalogue, "entry_points", lambda group: found if group == "bantam.tasks" else [])
    monkeypatch.setattr(registry, "_DESCRIPTIONS", registry.registered())
    catalogue._from_packages.cache_clear()
    yield found
    catalogue._from_packages.cache_clear()


def test_a_second_registration_raises() -> None:
    class Again(Binary):
        pass

    with pytest.raises(ValueError, match=r"task 'binary' is registered already: compressors\.tasks\.label_tasks"):
        register_task(Again)


def test_unknown_names_are_listed_and_metrics_checked() -> None:
    with pytest.raises(InvalidData, match=r"task='divination': unknown; known are \['binary', 'classification'"):
        describe("divination")
    with pytest.raises(InvalidData, match="metric='auc': regression does not have it; it has 'r2', '-rmse'"):
        task("regression", TaskOptions(metric="auc"))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("nowhere_at_all:TASK", "No module named 'nowhere_at_all'"),
        ("pathlib:Path", "is PosixPath, not a TaskDescription"),
        ("compressors.tasks.label_tasks:Binary", "describes the task 'binary'; both names must be the same"),
    ],
)
def test_a_package_that_cannot_be_loaded_is_named_when_asked_for(
    packages: list[EntryPoint], value: str, why: str
) -> None:
    packages.append(EntryPoint("odd", value, "bantam.tasks"))
    assert "binary" in catalogue.descriptions()
    assert "odd" not in catalogue.descriptions()
    with pytest.raises(InvalidData, match=f"task='odd': entry point 'odd' = '{value}' cannot be loaded: .*{why}"):
        describe("odd")


def test_a_package_cannot_take_a_built_in_name(packages: list[EntryPoint]) -> None:
    packages.append(EntryPoint("binary", "tests.compressors.tasks.test_catalogue:Impostor", "bantam.tasks"))
    assert type(describe("binary")) is Binary


class Impostor(Binary):
    pass


def test_a_missing_implementation_is_named(packages: list[EntryPoint]) -> None:
    packages.append(EntryPoint("lost", "tests.compressors.tasks.test_catalogue:Lost", "bantam.tasks"))
    with pytest.raises(InvalidData, match="task='lost': nowhere_at_all:Task cannot be loaded"):
        task("lost")


class Lost(Binary):
    name = "lost"
    implementation = "nowhere_at_all:Task"


def test_descriptions_come_without_torch() -> None:
    code = (
        "import sys\nfrom compressors.tasks import descriptions\nfound = descriptions()\n"
        "print(len(found) >= 8, [m for m in ('torch', 'torchmetrics', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"


@pytest.mark.parametrize("name", ["binary", "multi_label", "language_modelling"])
def test_probabilities_are_not_taken_for_logits(name: str) -> None:
    outputs = np.random.default_rng(0).dirichlet(np.ones(4), size=(20, 3)).astype(np.float32)
    outputs = outputs if name == "language_modelling" else outputs[:, 0]
    with pytest.raises(UnsupportedModel, match=r"as if they were probabilities; .* leave the s"):
        task(name).check_outputs(outputs)


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("classification", np.zeros((4, 2), np.int64), r"shape \(4, 2\)"),
        ("binary", np.array([0.0, 0.5], np.float32), "holds 0.5; only 0 and 1"),
        ("multi_label", np.array([[0, 2]]), "holds 2; only 0 and 1"),
        ("multi_label", np.array([0, 1]), "a list of zeros and ones per row"),
        ("regression", np.zeros((2, 2, 2), np.float32), "one number or a list of numbers"),
        ("ranking", np.array([2, 1]), "holds 2; only 0 and 1"),
        ("segmentation", np.zeros((2, 3), np.int64), r"masks of shape \(2, 3\)"),
        ("token_classification", np.zeros((2, 3), np.float32), "dtype float32"),
        ("language_modelling", np.zeros(3, np.int64), "a list of token ids"),
    ],
)
def test_targets_that_cannot_be_are_refused(
    name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], why: str
) -> None:
    with pytest.raises(InvalidData, match=why):
        task(name).as_target(values)


def test_class_ids_that_the_model_does_not_know_are_refused() -> None:
    target = np.array([[0, 7]])
    with pytest.raises(InvalidData, match=r"the class 7; the model knows 3 classes, 0\.\.2, and -100 does not count"):
        task("token_classification").statistics(np.zeros((1, 2, 3), np.float32), target)
    with pytest.raises(InvalidData, match="the id 7; the model knows 3 ids"):
        task("language_modelling").statistics(np.zeros((1, 2, 3), np.float32), target)


def test_splits_keep_rare_labels_and_the_range_of_values() -> None:
    rare = np.zeros((100, 3), np.float32)
    rare[:, 0], rare[:50, 1], rare[:4, 2] = 1, 1, 1
    strata = task("multi_label").strata(rare)
    assert strata is not None
    assert [len(set(strata[a:b])) for a, b in ((0, 4), (4, 50), (50, 100))] == [1, 1, 1]
    assert len(set(strata)) == 3
    tenths = task("regression").strata(np.random.default_rng(0).normal(size=(95, 1)).astype(np.float32))
    assert tenths is not None
    assert set(np.bincount(tenths)) == {9, 10}


def test_losses_of_values_do_not_depend_on_their_unit() -> None:
    target = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    one = task("regression").prepared(target)
    thousand = task("regression").prepared(1000 * target)
    outputs = torch.from_numpy(target)
    assert float(one.loss(outputs, outputs + 0.1)) == pytest.approx(
        float(thousand.loss(1000 * outputs, 1000 * outputs + 100)), rel=1e-3
    )
