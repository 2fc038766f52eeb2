"""Uploaded models are read in a confined child; what it cannot read becomes a sentence, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from compressors import intake
from compressors.errors import UnsafeArchive, UnsupportedModel
from compressors.intake import IntakeLimits, read_model
from tests.archives import SAMPLES, TinyNetwork, read_members, torch_payload, write_members, write_tiny_model
from tests.models import export_pt2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.pt2")


def test_a_model_is_described_and_copied(tiny: Path, tmp_path: Path) -> None:
    description = read_model(tiny, tmp_path / "model.pt2")
    assert description.format == "pt2"
    assert description.parameters == sum(p.numel() for p in TinyNetwork().parameters())
    assert [(t.name, t.shape, t.dtype) for t in description.inputs] == [("image", (None, 3, 8, 8), "float32")]
    assert [t.shape for t in description.outputs] == [(None, 4)]
    assert {layer.name for layer in description.layers} >= {"conv", "norm", "head"}
    assert description.batch_is_dynamic
    images = torch.rand(3, 3, 8, 8)
    copied = torch.export.load(tmp_path / "model.pt2").module()(images)
    assert torch.equal(copied, torch.export.load(tiny).module()(images))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt2"]


def test_a_refused_archive_leaves_nothing_behind(tiny: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    hostile = write_members(tmp_path / "hostile.pt2", {**read_members(tiny), SAMPLES: torch_payload(marker)})
    with pytest.raises(UnsafeArchive, match="the pickle calls"):
        read_model(hostile, tmp_path / "model.pt2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.pt2"]


def test_memory_is_limited(tiny: Path, tmp_path: Path) -> None:
    limits = IntakeLimits(memory_bytes=100 * 2**20)  # too little to import torch
    with pytest.raises(UnsupportedModel, match="bytes of memory; try a smaller model") as caught:
        read_model(tiny, tmp_path / "model.pt2", limits)
    assert "Traceback" not in str(caught.value)
    assert not (tmp_path / "model.pt2").exists()


def test_time_is_limited(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"longer than 0\.2 s"):
        read_model(tiny, tmp_path / "model.pt2", IntakeLimits(wall_s=0.2))
    with pytest.raises(UnsupportedModel, match="processor time"):
        read_model(tiny, tmp_path / "model.pt2", IntakeLimits(cpu_s=1))


def _run_as_child(body: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path, **limits: object) -> None:
    """Lets `body` play the child of intake."""
    (folder / "played_child.py").write_text(body)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(intake, "_CHILD", "played_child")
    read_model(tiny, folder / "model.pt2", IntakeLimits(**limits))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import os; os.abort()", "ended with status"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with status"),
        ("print('hello')", "no answer"),
        ("print('[' * 100000)", "no answer"),
        ("print('{}')", "not a description"),
        ("while True: print('x' * 100000)", "ended with status"),
        ('print(\'{"error": "ParityError", "message": "differs"}\')', "differs"),
        ("raise MemoryError", "bytes of memory"),
    ],
)
def test_whatever_the_child_does_becomes_a_sentence(
    body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    with pytest.raises(UnsupportedModel, match=message) as caught:
        _run_as_child(body, tmp_path, monkeypatch, tiny, answer_bytes=100_000)
    assert "Traceback" not in str(caught.value)
    assert not (tmp_path / "model.pt2").exists()


def test_the_child_sees_neither_secrets_nor_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.setenv("BANTAM_DATABASE_URL", "postgresql://secret")
    body = (
        "import json, os, resource, sys\n"
        "seen = [os.environ.get('BANTAM_DATABASE_URL'), sys.stdin.read(), os.getsid(0) == os.getpid(),\n"
        "        resource.getrlimit(resource.RLIMIT_CORE)[1], resource.getrlimit(resource.RLIMIT_CPU)[1]]\n"
        "print(json.dumps({'error': 'UnsupportedModel', 'message': json.dumps(seen)}))\n"
    )
    with pytest.raises(UnsupportedModel) as caught:
        _run_as_child(body, tmp_path, monkeypatch, tiny, cpu_s=77)
    assert json.loads(str(caught.value)) == [None, "", True, 0, 77]


class _Confined:
    def __init__(self, folder: Path, results: dict[str, object]) -> None:
        self.folder = folder
        self.results = results


_ACTIONS = [
    "os.system('touch marker')",
    "__import__('subprocess').run(['touch', 'marker'])",
    "open('marker', 'w')",
    "os.open('marker', os.O_CREAT | os.O_WRONLY)",
    "pickle.loads(b'x')",
    "torch.load('x')",
    "pickle.Unpickler(io.BytesIO(b'cos\\nsystem\\n.')).load()",
    "socket.socket()",
    "os.remove('x')",
]


@pytest.fixture(scope="module")
def confined(tmp_path_factory: pytest.TempPathFactory) -> _Confined:
    """All actions in one child, because each import of torch costs seconds."""
    folder = tmp_path_factory.mktemp("confined")
    program = (
        "import io, json, os, pickle, socket, sys\nfrom pathlib import Path\n"
        "from compressors import intake_child\nimport torch\n"
        "intake_child.confine()\nresults = {}\n"
        "for action in json.loads(sys.argv[1]):\n"
        "    swallowed = []\n"
        "    def load(path):\n"
        "        try:\n            exec(action)\n"
        "        except intake_child.UnsafeArchive:\n            swallowed.append(True)\n"
        "        raise ValueError('something else')\n"
        "    intake_child.load_program = load\n"
        "    intake_child._refused.clear()\n"
        "    answer = intake_child.describe(Path('x'))\n"
        "    results[action] = {'error': answer['error'], 'swallowed': bool(swallowed)}\n"
        "print(json.dumps(results), flush=True)\nos._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(_ACTIONS)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return _Confined(folder, json.loads(done.stdout))


@pytest.mark.parametrize("action", _ACTIONS)
@pytest.mark.timeout(120)
def test_the_child_refuses_what_reading_a_model_never_needs(action: str, confined: _Confined) -> None:
    """Even if something slipped through the archive check, and even if the exception is swallowed."""
    answer = confined.results[action]
    assert answer == {"error": "UnsafeArchive", "swallowed": True}
    assert not (confined.folder / "marker").exists()


class Bessel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.special.i0(self.head(x))
        return out


def test_an_operator_that_no_runtime_gets_is_named(tmp_path: Path) -> None:
    export_pt2(Bessel().eval(), tmp_path / "bessel.pt2", (torch.rand(2, 4),))
    description = read_model(tmp_path / "bessel.pt2", tmp_path / "model.pt2")
    assert description.unsupported is not None
    assert "special_i0" in description.unsupported


def test_a_model_that_can_be_exported_says_nothing(tiny: Path, tmp_path: Path) -> None:
    assert read_model(tiny, tmp_path / "model.pt2").unsupported is None
