"""The parts of the demo: its data and model, its job, and a service that it starts and stops cleanly."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console

from search.spec import JobSpec
from service import demo, demo_model

QUIET = Console(file=io.StringIO())


def test_the_digits_are_split_without_overlap_and_in_the_same_way_each_time() -> None:
    train, train_labels, test, test_labels = demo_model.digits()
    assert train.shape == (1347, 8, 8)
    assert test.shape == (450, 8, 8)
    assert train.max() == 255
    assert sorted(np.bincount(test_labels)) == pytest.approx([45] * 10, abs=2)
    again = demo_model.digits()
    assert np.array_equal(train_labels, again[1])
    assert np.array_equal(test, again[2])


def test_tables_hold_pictures_that_decode_to_the_same_pixels(tmp_path: Path) -> None:
    pixels, labels, _, _ = demo_model.digits()
    demo_model.write_table(tmp_path / "t.parquet", pixels[:5], labels[:5])
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.column_names == ["image", "label"]
    for index, data in enumerate(table["image"].to_pylist()):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)))[:, :, 0], pixels[index])
    assert table["label"].to_pylist() == labels[:5].tolist()


def test_the_exported_network_answers_for_any_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = demo_model.DigitNet(width=8).eval()
    demo_model.export(model, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    x = demo_model.as_input(demo_model.digits()[0][:7])
    assert x.shape == (7, 3, 8, 8)
    torch.testing.assert_close(program(x), model(x))


def test_a_few_epochs_learn_something() -> None:
    pixels, labels, test, test_labels = demo_model.digits()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = demo_model.train(pixels[:500], labels[:500])
    finally:
        torch.set_num_threads(before)
    assert demo_model.accuracy(model, test, test_labels) > 0.8


def test_its_job_is_a_valid_one() -> None:
    spec = JobSpec.model_validate(demo.job_of("m", "a", "b"))
    assert spec.search.max_seconds <= 60
    assert spec.budget.size_ratio is not None
    # Below what int8 alone reaches (a quarter and the graph): channels have to go as well.
    assert spec.budget.size_ratio < 0.25


def test_the_service_is_stopped_when_the_demo_ends(tmp_path: Path) -> None:
    with demo.running_service(tmp_path / "data", tmp_path / "service.log", QUIET, keep=False) as url:
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert (tmp_path / "data" / "token").is_file()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/readyz")


def test_a_service_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    with (
        pytest.raises(demo.DemoFailed, match="the service ended with status"),
        demo.running_service(tmp_path / "data", tmp_path / "service.log", QUIET, keep=False),
    ):
        pytest.fail("it must not get here")


def test_a_failed_training_ends_the_demo_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([sys.executable], 7, "", "no memory left")

    monkeypatch.setattr(subprocess, "run", fail)
    assert demo.main(["--output", str(tmp_path / "out")]) == 1
    assert "no memory left" in capsys.readouterr().out
