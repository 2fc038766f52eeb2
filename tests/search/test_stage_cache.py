"""Results by content: found again, never half there, safe under races and damage."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from search.stage_cache import StageCache, code_version, foreign_code, stage_key


def test_the_second_look_up_finds_value_and_files(tmp_path: Path) -> None:
    calls = []

    def compute(folder: Path) -> Mapping[str, Any]:
        calls.append(1)
        (folder / "a.bin").write_bytes(b"abc")
        return {"x": 1}

    cache = StageCache(tmp_path)
    value, entry, cached = cache.get_or_compute("s", {"k": 1}, compute)
    assert (value, cached, (entry / "a.bin").read_bytes()) == ({"x": 1}, False, b"abc")
    value, entry, cached = cache.get_or_compute("s", {"k": 1}, compute)
    assert (value, cached, (entry / "a.bin").read_bytes(), len(calls)) == ({"x": 1}, True, b"abc", 1)


def test_keys_differ_by_stage_and_input_but_not_by_order() -> None:
    assert stage_key("a", {"x": 1, "y": 2}) == stage_key("a", {"y": 2, "x": 1})
    assert len({stage_key("a", {"x": 1}), stage_key("b", {"x": 1}), stage_key("a", {"x": 2})}) == 3
    assert len(code_version()) == 16


def test_a_damaged_entry_is_computed_again(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    _, entry, _ = cache.get_or_compute("s", {}, lambda _: {"x": 1})
    (entry / "value.json").write_text('{"x": ')
    value, _, cached = cache.get_or_compute("s", {}, lambda _: {"x": 2})
    assert (value, cached) == ({"x": 2}, False)
    assert cache.get_or_compute("s", {}, lambda _: {"x": 3})[0] == {"x": 2}


def _race(folder: str) -> str:
    cache = StageCache(Path(folder))
    for number in range(50):
        cache.get_or_compute("s", {"n": number}, lambda _, n=number: {"n": n})  # type: ignore[misc]
    return json.dumps([cache.get_or_compute("s", {"n": n}, lambda _: {"n": -1})[0]["n"] for n in range(50)])


def test_two_processes_may_store_the_same_result(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(_race, [str(tmp_path)] * 2))
    assert results == [json.dumps(list(range(50)))] * 2
    assert not list(tmp_path.rglob(".new-*"))


def test_code_of_other_packages_is_part_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own is in `code_version` already; what a task of another package computes changes with that package."""
    (tmp_path / "other_package.py").write_text("class Kind: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    kind = importlib.import_module("other_package").Kind
    before = foreign_code(kind, StageCache)
    assert list(before) == ["other_package"]
    (tmp_path / "other_package.py").write_text("class Kind: ...  # changed\n")
    assert foreign_code(kind, StageCache) != before
