"""The arrows between the rooms: service -> search -> compressors, no cycles, no imports hidden in functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("service", "search", "compressors", "migrations")
FORBIDDEN = {
    "compressors": {"service", "search", "migrations", "optuna", "ray", "sqlalchemy", "alembic", "fastapi", "pydantic"},
    "search": {"service", "migrations", "sqlalchemy", "alembic", "fastapi", "starlette", "uvicorn"},
    "migrations": {"search", "compressors", "torch", "ray", "optuna"},
}


def modules() -> dict[str, Path]:
    found = {}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """Modules that `path` names, as far as they belong to this project in full, else as written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def test_there_is_something_to_hold() -> None:
    assert len(MODULES) > 100
    assert "search.coordinator" in set(imported(MODULES["search.run"]))


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_arrows_run_one_way(room: str) -> None:
    wrong = [
        f"{name} imports {target}"
        for name, path in MODULES.items()
        if name.split(".")[0] == room
        for target in imported(path)
        if target.split(".")[0] in FORBIDDEN[room]
    ]
    assert not wrong


def test_no_import_cycles() -> None:
    graph = {name: {t for t in imported(path) if t in MODULES and t != name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, naming the cycle


def test_no_imports_inside_functions() -> None:
    hidden = [
        f"{name}:{inner.lineno}"
        for name, path in MODULES.items()
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(function)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert not hidden


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("service.app", ("torch", "ray", "optuna", "onnxruntime", "onnx", "scipy", "matplotlib")),
        ("service.cli", ("torch", "ray", "optuna", "onnxruntime", "sqlalchemy", "fastapi")),
        ("search.spec", ("torch", "ray", "optuna", "onnxruntime")),
        ("search.coordinator", ("torch", "ray", "onnxruntime")),
        ("compressors.recipe", ("torch", "numpy", "onnxruntime")),
    ],
)
def test_light_processes_stay_light(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
