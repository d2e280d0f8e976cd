"""Storage and tasks over time are counted right, of one tenant and of all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from tests.integration.library_calls import SETTINGS, task_of_nothing

import mindia
from mindia import Library, MediaKind, MemoryStorage, Mindia, TaskStats
from mindia.errors import InvalidError
from mindia.testing import samples

NOON = datetime(2024, 5, 3, 12, 30, tzinfo=UTC)
THEN: dict[str, Any] = {"since": NOON - timedelta(days=1), "until": NOON + timedelta(days=2)}


@pytest.fixture
def own(fresh_database_url: str) -> Iterator[Mindia]:
    with mindia.connect(fresh_database_url, storage=MemoryStorage(), settings=SETTINGS) as own:
        yield own


@pytest.fixture
def filled(own: Mindia, fresh_database_url: str) -> Library:
    """Two images of an hour and one of the next day, and tasks of that hour: completed, failed, cancelled."""
    library = own.library(own.tenants.create("Acme"))
    items = [library.media.add(samples.image(color=color)) for color in ("navy", "plum", "gold")]
    with psycopg.connect(fresh_database_url) as connection:
        for number, item in enumerate(items):
            at = NOON + timedelta(days=number // 2)
            connection.execute("update mindia.images set uploaded_at = %s where id = %s", (at, item.id))
        connection.execute(
            "update mindia.tasks set created_at = %(at)s, scheduled_for = %(at)s, "
            "started_at = %(at)s + interval '3 s', completed_at = %(at)s + interval '5 s', status = 'completed', "
            "retry_count = 1",
            {"at": NOON},
        )
        connection.execute(
            "update mindia.tasks set status = 'failed' where id = (select min(id::text)::uuid from mindia.tasks)"
        )
    library.tasks.cancel(task_of_nothing(library))
    return library


def test_what_was_stored_is_counted_by_hour_and_day(own: Mindia, filled: Library) -> None:
    size = [len(samples.image(color=color)) for color in ("navy", "plum", "gold")]
    for statistics in (filled.statistics, own.statistics):
        first, second = statistics.storage("day", **THEN)
        assert (first.kind, first.items, first.total_bytes) == (MediaKind.IMAGE, 2, size[0] + size[1])
        assert (first.begins_at, second.begins_at) == (
            datetime(2024, 5, 3, tzinfo=UTC),
            datetime(2024, 5, 4, tzinfo=UTC),
        )
        assert statistics.storage("hour", **THEN)[0].begins_at == datetime(2024, 5, 3, 12, tzinfo=UTC)
        assert statistics.storage() == []
    other = own.library(own.tenants.create("Globex"))
    assert other.statistics.storage(**THEN) == []
    assert other.statistics.tasks(**THEN) == []


def test_what_became_of_tasks_is_counted(own: Mindia, filled: Library) -> None:
    for statistics in (filled.statistics, own.statistics):
        assert statistics.tasks("hour", **THEN) == [
            TaskStats(
                begins_at=datetime(2024, 5, 3, 12, tzinfo=UTC), kind="generate_embedding", tasks=3, completed=2,
                failed=1, cancelled=0, retries=3, mean_run_s=2.0, mean_wait_s=3.0,
            )
        ]  # fmt: skip
        (today,) = statistics.tasks()
        assert (today.tasks, today.cancelled, today.mean_run_s) == (1, 1, 0.0)


@pytest.mark.parametrize("wrong", [{"by": "moon"}, {"since": NOON, "until": NOON}, {"since": "today"}], ids=str)
def test_what_cannot_be_is_refused(library: Library, wrong: dict[str, Any]) -> None:
    for call in (library.statistics.storage, library.statistics.tasks):
        with pytest.raises(InvalidError):
            call(**wrong)
