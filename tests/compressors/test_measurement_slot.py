"""The slot between real processes, one of which is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compressors.measurement_slot import MeasurementSlot

PATIENCE = 20.0
Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process with `slot`, `say(word)` and `wait_for_line()` at hand."""
    running: list[subprocess.Popen[str]] = []

    def launch(body: str) -> subprocess.Popen[str]:
        head = f"""
            import sys, time
            from pathlib import Path
            from compressors.measurement_slot import MeasurementSlot
            slot = MeasurementSlot(Path({str(tmp_path)!r}))
            def say(word): print(word, flush=True)
            def wait_for_line(): sys.stdin.readline()
        """
        code = textwrap.dedent(head) + textwrap.dedent(body)
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        running.append(process)
        return process

    yield launch
    for process in running:
        process.kill()
        process.communicate()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


HOLD = """
    with slot.{mode}():
        say("in")
        wait_for_line()
    say("out")
"""


class Attempt(threading.Thread):
    """Enters the slot in a thread, so that the test can see whether that blocks."""

    def __init__(self, slot: MeasurementSlot, mode: str) -> None:
        super().__init__(daemon=True)
        self.slot, self.mode, self.entered = slot, mode, threading.Event()
        self.start()

    def run(self) -> None:
        with getattr(self.slot, self.mode)():
            self.entered.set()


@pytest.mark.parametrize(
    ("held", "wanted"), [("exclusive", "exclusive"), ("exclusive", "shared"), ("shared", "exclusive")]
)
def test_who_keeps_whom_out(tmp_path: Path, start: Start, held: str, wanted: str) -> None:
    holder = start(HOLD.format(mode=held))
    assert heard(holder) == "in"
    attempt = Attempt(MeasurementSlot(tmp_path), wanted)
    assert not attempt.entered.wait(0.2)
    tell(holder)
    assert heard(holder) == "out"
    assert attempt.entered.wait(PATIENCE)


def test_training_goes_on_side_by_side(tmp_path: Path, start: Start) -> None:
    holder = start(HOLD.format(mode="shared"))
    assert heard(holder) == "in"
    assert Attempt(MeasurementSlot(tmp_path), "shared").entered.wait(PATIENCE)


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_a_killed_process_lets_go(tmp_path: Path, start: Start, mode: str) -> None:
    holder = start(HOLD.format(mode=mode))
    assert heard(holder) == "in"
    attempt = Attempt(MeasurementSlot(tmp_path), "exclusive")
    assert not attempt.entered.wait(0.2)
    os.kill(holder.pid, signal.SIGKILL)
    assert attempt.entered.wait(PATIENCE)


def test_a_killed_waiter_leaves_the_turnstile(tmp_path: Path, start: Start) -> None:
    slot = MeasurementSlot(tmp_path)
    with slot.shared():
        waiter = start('say("waiting")\nwith slot.exclusive():\n    say("in")\n')
        assert heard(waiter) == "waiting"
        blocked = Attempt(slot, "shared")
        # Until the waiter stands in the turnstile, other trainers still get in.
        while blocked.entered.wait(0.1):
            blocked = Attempt(slot, "shared")
        os.kill(waiter.pid, signal.SIGKILL)
        assert blocked.entered.wait(PATIENCE)


def test_a_measurement_does_not_starve(tmp_path: Path, start: Start) -> None:
    """Two trainers whose chunks overlap all the time: without the turnstile the slot would never be free."""
    trainer = """
        say("training")
        while True:
            with slot.shared():
                time.sleep(0.05)
    """
    trainers = [start(trainer) for _ in range(2)]
    assert [heard(process) for process in trainers] == ["training", "training"]
    for _ in range(5):
        begin = time.monotonic()
        with MeasurementSlot(tmp_path).exclusive():
            waited = time.monotonic() - begin
        assert waited < 3.0


def test_an_error_inside_lets_go(tmp_path: Path) -> None:
    slot = MeasurementSlot(tmp_path / "made" / "here")
    for context in (slot.exclusive, slot.shared, slot.exclusive):
        with pytest.raises(RuntimeError, match="inside"), context():
            raise RuntimeError("inside")


NESTED = """
    with slot.shared():
        say("in")
        wait_for_line()
        with slot.shared():
            say("inner")
    say("out")
"""


def test_a_chunk_inside_a_chunk_does_not_wait_for_a_measurement_that_waits_for_it(start: Start, tmp_path: Path) -> None:
    trainer = start(NESTED)
    assert heard(trainer) == "in"
    measurement = Attempt(MeasurementSlot(tmp_path), "exclusive")
    time.sleep(0.3)
    assert not measurement.entered.is_set()
    tell(trainer)
    assert heard(trainer) == "inner"
    assert heard(trainer) == "out"
    assert measurement.entered.wait(PATIENCE)


def test_a_chunk_inside_a_measurement_is_free(tmp_path: Path) -> None:
    slot = MeasurementSlot(tmp_path)
    with slot.exclusive(), slot.shared(), slot.exclusive():
        pass
    with slot.exclusive():
        pass


def test_a_measurement_inside_a_chunk_is_refused(tmp_path: Path) -> None:
    slot = MeasurementSlot(tmp_path)
    with pytest.raises(RuntimeError, match="inside a chunk"), slot.shared(), slot.exclusive():
        pass
    with slot.exclusive():
        pass
