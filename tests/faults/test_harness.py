"""The harness itself: it ends what it starts."""

from __future__ import annotations

import fcntl
import signal
import time
from pathlib import Path

import pytest
from tests.faults.child import hear, ready, report
from tests.faults.harness import Child, Harness, wait_until


def hold(lock: str) -> None:
    """Hold a lock for as long as the process lives."""
    with Path(lock).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ready()
        time.sleep(600)


def echo() -> None:
    ready()
    for _ in range(3):
        report(hear())


def hold_by_a_child(folder: str, lock: str) -> None:
    """Start a child that holds the lock, and never end it."""
    harness = Harness(Path(folder), seed=1)
    harness.start(hold, lock).wait_until_ready()
    ready()
    time.sleep(600)


def defect() -> None:
    raise RuntimeError("what went wrong")


def _is_free(lock: Path) -> bool:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_no_child_outlives_a_test_that_fails(tmp_path: Path) -> None:
    lock = tmp_path / "lock"

    def fails() -> None:
        with Harness(tmp_path, seed=1) as harness:
            child = harness.start(hold, str(lock))
            child.wait_until_ready()
            assert not _is_free(lock)
            child.stop()
            raise AssertionError("of the test")

    with pytest.raises(AssertionError, match="of the test"):
        fails()

    assert _is_free(lock)


def test_no_child_outlives_a_test_process_that_is_killed(harness: Harness, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    test_process = harness.start(hold_by_a_child, str(tmp_path), str(lock))
    test_process.wait_until_ready()
    assert not _is_free(lock)

    test_process.kill()

    wait_until(lambda: _is_free(lock), what="the child of the killed process ends")


def test_a_child_hears_and_reports(harness: Harness) -> None:
    child = harness.start(echo)
    child.wait_until_ready()
    for line in ("one", "two", "three"):
        child.send(line)

    assert child.wait() == 0
    assert child.lines == ["one", "two", "three"]


def test_a_script_is_a_workload_too(harness: Harness, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nfrom tests.faults.child import report\nreport(sys.argv[1])\n")

    child = harness.start(script, "said")

    assert child.wait() == 0, child.output()
    assert child.lines == ["said"]


def test_waiting_for_a_child_that_has_failed_says_why(harness: Harness) -> None:
    child = harness.start(defect)

    with pytest.raises(AssertionError, match="what went wrong"):
        child.wait_until_ready()


def test_random_moments_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    def moments(seed: int) -> list[float]:
        harness = Harness(tmp_path, seed=seed)
        return [harness.random.random() for _ in range(3)]

    assert moments(1) == moments(1) != moments(2)


def test_a_killed_child_was_killed(harness: Harness, tmp_path: Path) -> None:
    child: Child = harness.start(hold, str(tmp_path / "lock"))

    harness.kill_at_random(child, max_lines=0)

    assert child.wait() == -signal.SIGKILL
    assert not child.is_alive()
