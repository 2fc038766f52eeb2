from __future__ import annotations

from pathlib import Path

import pytest

from service.workspaces import take_workspace


def test_a_new_lease_takes_its_predecessors_files_along(tmp_path: Path) -> None:
    first = take_workspace(tmp_path / "job", 3)
    (first / "checkpoint").write_text("kept")
    second = take_workspace(tmp_path / "job", 5)
    assert (second / "checkpoint").read_text() == "kept"
    assert not first.exists()
    assert take_workspace(tmp_path / "job", 5) == second


def test_a_late_writer_reaches_nothing_of_its_successor(tmp_path: Path) -> None:
    late = take_workspace(tmp_path / "job", 1)
    (late / "file").write_text("first")
    fresh = take_workspace(tmp_path / "job", 2)
    with pytest.raises(FileNotFoundError):
        (late / "file").write_text("late")
    late.mkdir()
    (late / "file").write_text("late")
    assert take_workspace(tmp_path / "job", 1) == late, "an old token finds only its own"
    assert (fresh / "file").read_text() == "first"
    newest = take_workspace(tmp_path / "job", 3)
    assert (newest / "file").read_text() == "first"
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["lease-3"]
