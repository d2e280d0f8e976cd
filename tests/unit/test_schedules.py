"""When periodic tasks are due: ticks of cron expressions in time zones with daylight saving time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mindia.domain.tasks import TaskType
from mindia.errors import InvalidError
from mindia.repositories.tasks import NewTasks
from mindia.worker.schedules import Schedule

_MINUTE = timedelta(minutes=1)

# When clocks are put forward and back: by an hour, by half of one, across midnight, and by a whole day.
CHANGES = [
    ("Europe/Berlin", datetime(2025, 3, 30, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2025, 10, 26, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2025, 11, 2, 6, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2025, 4, 5, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2025, 10, 4, 15, 30, tzinfo=UTC)),
    ("America/Havana", datetime(2025, 3, 9, 5, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ("UTC", datetime(2025, 3, 1, tzinfo=UTC)),
]
NEW = NewTasks(
    tenant_id=None,
    task_type=TaskType.CUSTOM,
    kind="job",
    priority=0,
    run_at=None,
    delay=timedelta(),
    max_retries=0,
    timeout_s=None,
    initiated_by=None,
    may_notify=False,
)


def schedule(cron: str, timezone: str = "UTC", *, name: str = "job") -> Schedule:
    return Schedule.checked(name=name, cron=cron, timezone=timezone, new=NEW, payload="{}")


def ticks(cron: str, timezone: str, begin: datetime, *, hours: int) -> list[str]:
    """Return the ticks within some hours, as the clock of the zone shows them."""
    found: list[datetime] = []
    each, one = schedule(cron, timezone), ZoneInfo(timezone)
    for minute in range(hours * 60):
        tick = each.latest_tick(begin + minute * _MINUTE)
        if tick >= begin and tick not in found:
            found.append(tick)
    assert found == sorted(found)
    return [tick.astimezone(one).strftime("%H:%M%z") for tick in found]


def test_a_tick_is_of_the_clock_of_its_time_zone() -> None:
    noon = datetime(2025, 7, 1, 12, tzinfo=UTC)

    assert schedule("30 3 * * *", "UTC").latest_tick(noon) == datetime(2025, 7, 1, 3, 30, tzinfo=UTC)
    assert schedule("30 3 * * *", "Asia/Kolkata").latest_tick(noon) == datetime(2025, 6, 30, 22, 0, tzinfo=UTC)
    assert schedule("30 3 * * *", "America/Lima").latest_tick(noon) == datetime(2025, 7, 1, 8, 30, tzinfo=UTC)
    assert schedule("0 9 * * mon", "UTC").latest_tick(noon) == datetime(2025, 6, 30, 9, tzinfo=UTC)


def test_a_tick_is_of_its_own_moment() -> None:
    tick = datetime(2025, 7, 1, 3, 30, tzinfo=UTC)

    assert schedule("30 3 * * *").latest_tick(tick) == tick
    assert schedule("30 3 * * *").latest_tick(tick + timedelta(microseconds=1)) == tick
    assert schedule("30 3 * * *").latest_tick(tick - timedelta(microseconds=1)) == tick - timedelta(days=1)
    assert schedule("0 0 29 2 *").latest_tick(tick) == datetime(2024, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "shown"),
    [
        ("30 2 * * *", ["03:30+0200"]),  # the clock never shows half past two
        ("0 3 * * *", ["03:00+0200"]),
        ("30 1 * * *", ["01:30+0100"]),
        ("0 * * * *", ["00:00+0100", "01:00+0100", "03:00+0200", "04:00+0200", "05:00+0200"]),
        ("30 1-3 * * *", ["01:30+0100", "03:30+0200"]),
        ("*/30 2 * * *", ["03:00+0200", "03:30+0200"]),
    ],
)
def test_a_time_that_is_left_out_is_made_up_for_once(cron: str, shown: list[str]) -> None:
    assert ticks(cron, "Europe/Berlin", datetime(2025, 3, 29, 23, tzinfo=UTC), hours=5) == shown


@pytest.mark.parametrize(
    ("cron", "shown"),
    [
        ("30 2 * * *", ["02:30+0200"]),  # the clock shows it twice
        ("0 3 * * *", ["03:00+0100"]),
        ("0 * * * *", ["00:00+0200", "01:00+0200", "02:00+0200", "02:00+0100", "03:00+0100"]),
        ("0,30 2 * * *", ["02:00+0200", "02:30+0200"]),
        ("*/30 2 * * *", ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"]),
    ],
)
def test_a_time_that_comes_twice_is_taken_once_but_by_expressions_of_all_hours(cron: str, shown: list[str]) -> None:
    assert ticks(cron, "Europe/Berlin", datetime(2025, 10, 25, 22, tzinfo=UTC), hours=5) == shown


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    several = st.lists(number, min_size=1, max_size=3, unique=True).map(",".join)
    return st.one_of(st.just("*"), several, st.integers(2, max(2, high // 2)).map(lambda step: f"*/{step}"))


@st.composite
def _expressions(draw: Any) -> str:
    days = draw(st.sampled_from(["* * *", "* * 0,6", "*/2 * *", "1,30,31 * *"]))
    return f"{draw(_field(0, 59))} {draw(_field(0, 23))} {days}"


def _shown(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


def _is_in(field: str, number: int, *, first: int) -> bool:
    if field.startswith("*/"):
        return number % int(field[2:]) == 0
    return field == "*" or str(number + first) in field.split(",")


def _matches(cron: str, shown: datetime) -> bool:
    minute, hour, day, _, weekday = cron.split()
    fields = ((minute, shown.minute), (hour, shown.hour), (day, shown.day - 1), (weekday, shown.isoweekday() % 7))
    return all(_is_in(text, number, first=which == 2) for which, (text, number) in enumerate(fields))


def _expected(cron: str, zone: ZoneInfo, begin: datetime, *, minutes: int) -> Iterator[datetime]:
    """Yield the ticks, found by looking at every minute of the clock, as cron's manual tells it."""
    is_of_all_hours = any(field.startswith("*") for field in cron.split()[:2])
    wall = _shown(begin, zone).replace(second=0) - timedelta(days=2)
    found = set()
    for _ in range(minutes + 4 * 24 * 60):
        if _matches(cron, wall):
            first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
            found.add(first)
            if is_of_all_hours and second > first:  # the clock shows it twice
                found.add(second)
        wall += _MINUTE
    yield from sorted(found)


@settings(max_examples=150)
@given(st.sampled_from(CHANGES), _expressions(), st.integers(-36 * 60, 36 * 60), st.integers(0, 59))
def test_the_latest_tick_is_found_around_every_change_of_the_clock(
    change: tuple[str, datetime], cron: str, minutes: int, seconds: int
) -> None:
    timezone, moment = change
    now = moment + minutes * _MINUTE + timedelta(seconds=seconds)
    found = schedule(cron, timezone).latest_tick(now)

    assert found <= now
    assert found.second == 0
    expected = [tick for tick in _expected(cron, ZoneInfo(timezone), now, minutes=0) if tick <= now]
    if expected:
        assert found == expected[-1]


@settings(max_examples=50)
@example(("Australia/Lord_Howe", datetime(2025, 10, 4, 15, 30, tzinfo=UTC)), "*/7 */2 * * *", 0)
@given(st.sampled_from(CHANGES), _expressions(), st.integers(-24 * 60, 24 * 60))
def test_time_never_goes_back_to_an_earlier_tick(change: tuple[str, datetime], cron: str, minutes: int) -> None:
    timezone, moment = change
    each = schedule(cron, timezone)
    found = [each.latest_tick(moment + (minutes + later) * _MINUTE) for later in range(0, 180, 7)]

    assert found == sorted(found)


@pytest.mark.parametrize(
    "cron",
    [
        "", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 32 * *", "* * * 13 *", "* * * * 8",
        "@hourly", "r * * * *", "h h * * *", "R(1-3) * * * *", "a b c d e", "0 0 30 2 *", "* * * * *\n* * * * *",
        "0 0\0* * *", None, 7,
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused(cron: Any) -> None:
    with pytest.raises(InvalidError, match="cron expression"):
        schedule(cron)


@pytest.mark.parametrize("timezone", ["", "Mars/Olympus", "../etc/passwd", "/etc/localtime", "Europe/Lisbon\0"])
def test_what_is_no_time_zone_is_refused(timezone: str) -> None:
    with pytest.raises(InvalidError, match="there is no time zone"):
        schedule("* * * * *", timezone)


@pytest.mark.parametrize("name", ["", "n" * 256, "a\0b", "\ud800"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidError, match="the name of a periodic task"):
        schedule("* * * * *", name=name)
