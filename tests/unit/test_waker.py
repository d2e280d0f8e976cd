"""How often workers are woken."""

from __future__ import annotations

import pytest

from mindia.worker.waker import Waker


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("mindia.worker.waker.time.monotonic", lambda: now[0])
    return now


def test_a_few_in_a_row_wake_and_then_one_each_twentieth_of_a_second(clock: list[float]) -> None:
    wakes = Waker()
    assert [wakes.may() for _ in range(5)] == [True, True, True, False, False]

    taken = 0
    for _ in range(1000):
        clock[0] += 0.001
        taken += wakes.may()

    assert 49 <= taken <= 51


def test_after_a_while_of_silence_a_few_may_again(clock: list[float]) -> None:
    wakes = Waker()
    assert all(wakes.may() for _ in range(3))
    clock[0] += 10

    assert [wakes.may() for _ in range(4)] == [True, True, True, False]
