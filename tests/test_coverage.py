"""The coverage table: what fails fails it, what does not apply says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import coverage as command
from benchmarks.coverage_cells import COLUMNS, CellResult, Column, FamilyContext, checked, technique_column
from benchmarks.families import FAMILIES
from compressors.errors import InvalidRecipe
from compressors.recipe import Distillation, Quantization, StructuredPruning


def test_one_family_through_all_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "coverage.json"
    assert command.main(["--family", "mlp", "--json", str(report)]) == 0
    cells = json.loads(report.read_text())["mlp"]
    assert list(cells) == [column.name for column in COLUMNS]
    assert all(cell["ok"] and cell["text"] for cell in cells.values())
    printed = capsys.readouterr().out
    assert "mlp" in printed
    assert "0 failed" in printed


def test_a_failed_cell_is_an_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def crash(context: FamilyContext) -> CellResult:
        raise ZeroDivisionError("one row")

    monkeypatch.setattr(command, "COLUMNS", (COLUMNS[0], Column("broken", "broken", crash)))
    assert command.main(["--family", "mlp"]) == 1
    assert "mlp, broken: FAILED: ZeroDivisionError: one row" in capsys.readouterr().out


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> FamilyContext:
    return FamilyContext(FAMILIES["mlp"], tmp_path_factory.mktemp("coverage"))


def test_refusals_are_reasons_and_not_failures(context: FamilyContext) -> None:
    cell = checked(technique_column(StructuredPruning(keep={"no such group": 3})), context)
    assert cell.ok and not cell.applies
    assert "no such group" in cell.reason


def test_errors_beyond_use_are_failures(context: FamilyContext) -> None:
    cell = checked(technique_column(Quantization(), largest_error=1e-6), context)
    assert not cell.ok
    assert "above 1e-06" in cell.reason


def test_a_refusal_by_the_exporter_is_a_failure(context: FamilyContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise InvalidRecipe("no")

    monkeypatch.setattr("benchmarks.coverage_cells.build_artifact", refuse)
    assert not checked(technique_column(Quantization()), context).ok


@pytest.mark.parametrize(
    "name", ["mlp", "googlenet", "unet", "tagger", "gpt", "lstm_stacked", "lstm_forecaster", "ncf"]
)
def test_networks_can_be_tuned_for_their_task(name: str, tmp_path: Path) -> None:
    """One for every task: its own answers are targets that its loss takes."""
    column = technique_column(Distillation(samples=256, learning_rate=0.1, alpha=0.5), largest_error=None)
    cell = checked(column, FamilyContext(FAMILIES[name], tmp_path))
    assert cell.ok, cell.reason
    assert cell.text.startswith("1.00x")
    assert not cell.text.endswith("0.000"), "tuning changed nothing"
