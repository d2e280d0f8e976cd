"""What was stored and worked off over time: `library.statistics` of one tenant, `app.statistics` of all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from mindia._handles import Handle
from mindia.db.units import Unit
from mindia.domain.analytics import StorageStats, TaskStats, TimeStep
from mindia.errors import InvalidError
from mindia.repositories import statistics
from mindia.repositories.statistics import Steps

_LENGTHS = {TimeStep.HOUR: timedelta(hours=1), TimeStep.DAY: timedelta(days=1)}
_A_MONTH = timedelta(days=30)


class Statistics(Handle):
    """Storage and tasks over time. Thread-safe.

    Args:
        unit: Where statements run.
        tenant_id: The tenant, or None for all of them.
    """

    def __init__(self, unit: Unit, *, tenant_id: UUID | None) -> None:
        self._unit = unit
        self._tenant_id = tenant_id

    def storage(
        self, by: TimeStep | str = TimeStep.DAY, *, since: datetime | None = None, until: datetime | None = None
    ) -> list[StorageStats]:
        """Return how many items of each kind were stored in each hour or day, of those that are still there.

        Args:
            by: `"hour"` or `"day"`, those of UTC.
            since: From this time on; the last 30 days by default.
            until: Before this time.

        Raises:
            InvalidError: An argument is out of range.
        """
        steps = self._steps(by, since, until)
        return self._unit.run(lambda session: statistics.storage(session, steps), single=True)

    def tasks(
        self, by: TimeStep | str = TimeStep.DAY, *, since: datetime | None = None, until: datetime | None = None
    ) -> list[TaskStats]:
        """Return what became of the tasks of each type that were enqueued in each hour or day.

        Those that finished longer ago than `Settings.task_retention` are not on record any more.

        Args:
            by: As for `storage`.
            since: As for `storage`.
            until: As for `storage`.

        Raises:
            InvalidError: An argument is out of range.
        """
        steps = self._steps(by, since, until)
        return self._unit.run(lambda session: statistics.tasks(session, steps), single=True)

    def _steps(self, by: TimeStep | str, since: datetime | None, until: datetime | None) -> Steps:
        try:
            step = _LENGTHS[TimeStep(by)]
        except ValueError as error:
            raise InvalidError(f"by must be 'hour' or 'day', not {by!r}") from error
        for name, value in (("since", since), ("until", until)):
            if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
                raise InvalidError(f"{name} must be a datetime with a time zone, not {value!r}")
        since = (until or datetime.now(UTC)) - _A_MONTH if since is None else since
        if until is not None and until <= since:
            raise InvalidError(f"until ({until}) must be later than since ({since})")
        return Steps(tenant_id=self._tenant_id, since=since, until=until, step=step)
