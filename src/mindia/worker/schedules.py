"""Periodic tasks: a cron expression, and what is enqueued at each of its ticks."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs

from mindia._ids import uuid7
from mindia.errors import InvalidError, MissingExtraError
from mindia.repositories import task_control, tasks
from mindia.repositories._text import storable
from mindia.repositories.tasks import NewTasks

if TYPE_CHECKING:
    from mindia.db.session import Session
    from mindia.db.units import Unit

_FIELDS = 5
_DAY = timedelta(days=1)
_BEHIND = timedelta(microseconds=1)


@attrs.frozen(kw_only=True)
class Schedule:
    """A periodic task.

    Attributes:
        name: Tells it from the others of the database.
        cron: Five fields: minute, hour, day of the month, month, day of the week.
        timezone: What its hours are of, with daylight saving time.
        tenant_id: Whose the tasks are; None for the system.
        new: What the tasks have in common.
        payload: As JSON.
    """

    name: str
    cron: str
    timezone: ZoneInfo
    new: NewTasks
    payload: str

    @classmethod
    def checked(cls, *, name: str, cron: str, timezone: str, new: NewTasks, payload: str) -> Schedule:
        """Return it, if it can be.

        Raises:
            InvalidError: The expression is none, or there is no such time zone.
            MissingExtraError: The library that reads expressions is not installed.
        """
        try:
            from croniter import croniter
        except ImportError as error:
            raise MissingExtraError("a periodic task", extra="cron") from error
        if not 1 <= len(name) <= 255 or storable(name) != name:
            raise InvalidError(f"the name of a periodic task has 1 to 255 characters, no NUL: {name[:80]!r}")
        if not _is_plain(cron) or not croniter.is_valid(cron):
            raise InvalidError(f"a cron expression has five fields, as in '30 3 * * mon-fri', not {cron!r}")
        try:
            zone = ZoneInfo(timezone)
        except (LookupError, ValueError, OSError) as error:
            raise InvalidError(f"there is no time zone {timezone!r}; one is called as in 'Europe/Lisbon'") from error
        schedule = cls(name=name, cron=cron, timezone=zone, new=new, payload=payload)
        try:
            schedule.latest_tick(datetime.now(UTC))
        except ValueError as error:
            raise InvalidError(f"the cron expression {cron!r} has no tick: {error}") from error
        return schedule

    def latest_tick(self, now: datetime) -> datetime:
        """Return the latest tick that is not after a time.

        A time of day that daylight saving time leaves out is made up for as long after it as it is left out. One that
        comes twice is taken the first time, but for expressions of every hour or every minute, which are of all hours.
        """
        from croniter import croniter

        local = now.astimezone(self.timezone).replace(tzinfo=None)
        # By the time of day, since croniter does not get along with daylight saving time.
        change = self._change_around(local)
        ticks = croniter(self.cron, local + change + _BEHIND, ret_type=datetime)
        latest: datetime | None = None
        while True:
            tick: datetime = ticks.get_prev()
            latest = max((each for each in (latest, *self._instants(tick)) if each and each <= now), default=None)
            # An earlier one is shown at most so much later than its own time of day.
            if latest and tick <= min(local, latest.astimezone(self.timezone).replace(tzinfo=None)) - change:
                return latest

    def _change_around(self, local: datetime) -> timedelta:
        """Return how far clocks are put forward or back around a time of day."""
        offsets = [
            (local + days * _DAY).replace(tzinfo=self.timezone).utcoffset() or timedelta() for days in (-1, 0, 1)
        ]
        return max(offsets) - min(offsets)

    def _instants(self, tick: datetime) -> list[datetime]:
        """Return when it is that time of day."""
        first, second = (tick.replace(tzinfo=self.timezone, fold=fold).astimezone(UTC) for fold in (0, 1))
        # Of a time that is left out, the second one would be before it.
        return [first, second] if second > first and self._is_of_all_hours else [first]

    @property
    def _is_of_all_hours(self) -> bool:
        minute, hour, *_ = self.cron.split()
        return minute.startswith("*") or hour.startswith("*")

    def fire(self, unit: Unit, *, now: datetime) -> bool:
        """Enqueue a task where a tick has come since the last that was fired, by whomever; tell whether one had.

        Ticks that nobody noticed, since no worker ran, are made up for by one task, for the latest of them.
        """
        task_id = uuid7()

        def work(session: Session) -> bool:
            tick = self.latest_tick(now)
            if task_control.last_tick(session, self.name, first=now) >= tick:
                return False
            if not task_control.fire(session, self.name, tick=tick):
                return False
            # Nobody's trace has caused it, neither that of the declaration nor that of whoever looks at the clock.
            new = attrs.evolve(self.new, may_notify=True, trace_context=None)
            tasks.enqueue(session, new, task_id=task_id, payload=self.payload, dedup_key=None)
            return True

        return unit.run(work)

    @property
    def tenant_id(self) -> UUID | None:
        """Whose the tasks are."""
        return self.new.tenant_id


def _is_plain(cron: object) -> bool:
    # What croniter takes besides, random and hashed fields, would be another tick each time that it is asked.
    return (
        isinstance(cron, str)
        and len(cron.split()) == _FIELDS
        and re.fullmatch(r"[0-9a-zA-Z*?/,# -]+", cron) is not None
        and re.search(r"(?<![a-z])[rh](?![a-z])", cron.lower()) is None
    )
