"""What a worker leaves out of garbage collections."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from mindia.worker.heap import settled_heap


@pytest.fixture(autouse=True)
def _nothing_left_out() -> Iterator[None]:
    gc.unfreeze()  # what pytest has left out
    yield
    gc.unfreeze()


def _is_looked_through(wanted: object) -> bool:
    return any(each is wanted for each in gc.get_objects())


def test_what_was_there_is_left_out_while_it_works_and_no_longer() -> None:
    with settled_heap():
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


def test_what_the_host_has_left_out_stays_so() -> None:
    left_out: list[object] = [[]]
    gc.freeze()
    made_since: list[object] = [[]]
    with settled_heap():
        assert _is_looked_through(made_since)
    assert not _is_looked_through(left_out)


def test_in_another_thread_the_process_is_left_alone() -> None:
    counts = []

    def work() -> None:
        with settled_heap():
            counts.append(gc.get_freeze_count())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert counts == [0]
