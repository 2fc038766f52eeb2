from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from compressors.fingerprint import take_fingerprint
from compressors.onnx_runtime import OnnxRuntime

X86 = """processor : 0
model name : AMD EPYC 9354
flags : fpu sse2 avx avx2 avx512_vnni constant_tsc

processor : 1
model name : another
flags : amx_int8
"""
ARM = "processor : 0\nFeatures : fp asimd asimddp crc32\nCPU part : 0xd0c\n"


def test_the_first_processor_counts(tmp_path: Path) -> None:
    source = tmp_path / "cpuinfo"
    source.write_text(X86)
    taken = take_fingerprint(OnnxRuntime(), 1, source)
    assert taken.cpu == "AMD EPYC 9354"
    assert taken.flags == ("avx", "avx2", "avx512_vnni")
    assert (taken.runtime, taken.threads) == ("onnxruntime", 1)
    assert taken.cores >= 1
    source.write_text(ARM)
    assert take_fingerprint(OnnxRuntime(), 1, source).flags == ("asimd", "asimddp")


def test_without_cpuinfo_something_is_still_known(tmp_path: Path) -> None:
    taken = take_fingerprint(OnnxRuntime(), 1, tmp_path / "nothing")
    assert taken.cpu
    assert taken.flags == ()


def test_the_key_changes_with_every_field_and_only_with_them() -> None:
    taken = take_fingerprint(OnnxRuntime(), 1)
    assert taken.key == take_fingerprint(OnnxRuntime(), 1).key
    assert len(taken.key) == 16
    others = [
        replace(taken, threads=2),
        replace(taken, cpu="other"),
        replace(taken, flags=("sve",)),
        replace(taken, runtime_version="0"),
        replace(taken, cores=99),
    ]
    assert len({taken.key, *(other.key for other in others)}) == 6


def test_it_is_json() -> None:
    taken = take_fingerprint(OnnxRuntime(), 2)
    document = json.loads(json.dumps(taken.to_json()))
    assert document["threads"] == 2
    assert document["key"] == taken.key
