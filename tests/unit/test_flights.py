"""Waiting for somebody in the same process who makes the same."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from mindia.services.flights import Flights


def test_others_wait_until_the_first_one_is_done_also_where_it_fails() -> None:
    flights = Flights()
    began, go_on, order = threading.Event(), threading.Event(), []

    def first() -> None:
        with suppress(KeyError), flights.alone("a", patience_s=60):
            began.set()
            assert go_on.wait(60)
            order.append("first")
            raise KeyError

    def second() -> None:
        with flights.alone("a", patience_s=60):
            order.append("second")

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(first)
        assert began.wait(60)
        other = threads.submit(second)
        go_on.set()
        one.result()
        other.result()
    assert order == ["first", "second"]


def test_nobody_waits_for_another_thing_nor_longer_than_told_nor_for_what_is_done() -> None:
    flights = Flights()
    with flights.alone("a", patience_s=60):
        with flights.alone("b", patience_s=60):
            pass
        with flights.alone("a", patience_s=0):
            pass
    with flights.alone("a", patience_s=60):
        pass


def test_a_forked_process_does_not_wait_for_threads_of_its_parent() -> None:
    flights = Flights()
    with flights.alone("a", patience_s=60):
        child = os.fork()
        if not child:
            with flights.alone("a", patience_s=60):
                os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
