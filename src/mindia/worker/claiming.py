"""Which tasks a worker takes next: by lanes while one tenant waits, by tenants in turn while there are more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

import attrs

from mindia.db.session import Statement
from mindia.domain.tasks import Task
from mindia.repositories import task_claims
from mindia.repositories.task_claims import NO_LIMITS, Lane
from mindia.worker.registry import TaskRegistry

_FIRST = UUID(int=0)
_OTHERS = ""
_MAX_TENANTS = 64
_LOW_FIRST_EACH = 10
"""Every so often the lowest priority goes first: otherwise a steady flow of higher ones would starve it."""

_MARKS_S = 2.0
"""How long places in lanes hold: what was committed late, was put back, or is suspect lies before them."""

_PROBE_S = 0.1
_PROBE_SHARE = 10
"""Looking which tenants wait takes a tenth of the time at most."""


class Claiming:
    """Makes the statements of a worker that take tasks, and learns from what they return.

    Args:
        worker_id: The worker.
        registry: The types, with their limits.
        kinds: Those that it runs.
    """

    def __init__(self, worker_id: UUID, registry: TaskRegistry, kinds: Sequence[str]) -> None:
        self._worker_id = worker_id
        limits = {kind: registry.limits_of(kind) for kind in kinds}
        self._limited = {kind: own for kind, own in limits.items() if own != NO_LIMITS}
        self._free_kinds = [kind for kind in kinds if kind not in self._limited]
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._marks_until = 0.0
        self._goes_by_lanes = False
        self._tenants: list[UUID] = []
        self._after = _FIRST
        self._probe_at = 0.0
        self._number = 0
        self._was_empty = False
        self._looked_through: set[str] = set()
        self._leaves_none = True
        self._has_last_tenants = self._is_whole = False
        self._tried_with_tenants: set[str] = set()

    @property
    def was_empty(self) -> bool:
        """Whether the latest statements returned no task."""
        return self._was_empty

    @property
    def found_all(self) -> bool:
        """Whether the latest statements would have returned more tasks, had there been any."""
        return self._was_empty and self._looked_through >= set(self._groups)

    @property
    def is_shared(self) -> bool:
        """Whether the room is parted among types, so that some of it may be left where one of them has nothing."""
        return len(self._groups) > 1

    @property
    def _groups(self) -> list[str]:
        """The types with limits, each by itself, and all others together."""
        return [*([_OTHERS] if self._free_kinds else []), *self._limited]

    @property
    def _have_all_tried(self) -> bool:
        return self._tried_with_tenants.issuperset(self._limited)

    def probe(self) -> Statement[UUID] | None:
        """Return what reads which tenants wait, if it is time for that."""
        if time.monotonic() < self._probe_at or (self._was_empty and not self._limited):
            return None  # what comes after nothing are a few tasks, which are had sooner without
        return task_claims.waiting_tenants(after=self._after, limit=_MAX_TENANTS)

    def probed(self, tenants: Sequence[UUID], *, took_s: float) -> None:
        """Take note of which tenants wait."""
        # To have seen all is to have tried all pages, from the first one on, and to have found nothing on any.
        self._is_whole = self._after == _FIRST or (self._is_whole and self._have_all_tried)
        self._tenants = list(tenants)
        self._tried_with_tenants.clear()
        self._has_last_tenants = len(tenants) < _MAX_TENANTS
        self._after = _FIRST if self._has_last_tenants else tenants[-1]
        self._probe_at = time.monotonic() + max(_PROBE_S, took_s * _PROBE_SHARE)

    def statements(self, room: Room) -> list[list[Statement[Task]]]:
        """Return what takes tasks, each in a group of its own with what has to go before it."""
        if self.found_all:
            self._looked_through.clear()
        limit, free = room.limit, room.free
        self._number += 1
        self._goes_by_lanes = False
        low_first = self._number % _LOW_FIRST_EACH == 0
        # What may have killed a worker is run with none in reserve that would be suspected with it.
        with_suspects = room.suspects and free > 0 and (limit <= free or low_first or self._was_empty)
        self._leaves_none = with_suspects or not room.suspects
        reserve = 0 if with_suspects else limit - free
        # Those with limits get their turn also where threads are never free, for all that is in reserve.
        groups: list[list[Statement[Task]]] = []
        for group, share in self._shares(free if free or not low_first else room.threads).items():
            if group != _OTHERS and share:
                groups.append(self._claim_limited(group, share, with_suspects=with_suspects))
            elif group == _OTHERS and (most := min(share, free) + reserve):
                groups.append([self._claim(most, low_first=low_first, with_suspects=with_suspects)])
        return groups

    def claimed(self, tasks: Sequence[Task]) -> None:
        """Take note of what was taken, the most urgent first."""
        self._was_empty = not tasks
        if not tasks:
            self._lanes.clear()
            if self._have_all_tried:
                self._tenants = []
                self._has_last_tenants = False
                self._probe_at = 0.0
            return
        self._looked_through.clear()
        self._is_whole = False
        if self._goes_by_lanes:
            self._mark(tasks)
        if len(self._tenants) > 1:
            taken_of = {task.tenant_id for task in tasks}
            turn = max((place for place, tenant in enumerate(self._tenants, 1) if tenant in taken_of), default=0)
            self._tenants = self._tenants[turn:] + self._tenants[:turn]

    def _mark(self, tasks: Sequence[Task]) -> None:
        """Have the next statement by lanes go on behind these."""
        latest = {(task.kind, task.priority): task for task in tasks if task.kind not in self._limited}
        for key, task in latest.items():
            lane = self._lanes.get(key)
            if lane is None or (lane.after, lane.after_id) < (task.scheduled_for, task.id):
                self._lanes[key] = Lane(
                    kind=task.kind, priority=task.priority, after=task.scheduled_for, after_id=task.id
                )

    def _shares(self, free: int) -> dict[str, int]:
        """Part the threads that are free among the types with limits and the others, each first in its turn.

        What is claimed counts as running: more than can begin would take from the limits what nobody uses.
        """
        groups = self._groups
        turn = self._number % len(groups)
        each, left = divmod(free, len(groups))
        return {group: each + (place < left) for place, group in enumerate(groups[turn:] + groups[:turn])}

    def _claim_limited(self, kind: str, limit: int, *, with_suspects: bool) -> list[Statement[Task]]:
        self._tried_with_tenants.add(kind)
        if self._leaves_none and self._has_last_tenants and self._is_whole:
            self._looked_through.add(kind)
        limits = self._limited[kind]
        claim = task_claims.claim_tenants(
            worker_id=self._worker_id,
            kinds=[kind],
            tenants=self._tenants,
            each=limit if len(self._tenants) < 2 else max(1, limit // len(self._tenants)),
            limit=limit,
            limits=limits,
            with_suspects=with_suspects,
        )
        return [*task_claims.hold_limits(kind, limits), claim]

    def _claim(self, limit: int, *, low_first: bool, with_suspects: bool) -> Statement[Task]:
        self._goes_by_lanes = len(self._tenants) < 2 or low_first or self._was_empty
        if not self._goes_by_lanes:
            return task_claims.claim_tenants(
                worker_id=self._worker_id,
                kinds=self._free_kinds,
                tenants=self._tenants,
                each=max(1, limit // len(self._tenants)),
                limit=limit,
                limits=NO_LIMITS,
                with_suspects=with_suspects,
            )
        now = time.monotonic()
        if not self._lanes or ((self._leaves_none or low_first) and now > self._marks_until):
            self._lanes.clear()
            self._marks_until = now + _MARKS_S
        if self._leaves_none and not self._lanes:
            self._looked_through.add(_OTHERS)
        return task_claims.claim_lanes(
            worker_id=self._worker_id,
            kinds=self._free_kinds,
            lanes=list(self._lanes.values()),
            limit=limit,
            low_first=low_first,
            with_suspects=with_suspects,
        )


@attrs.frozen(kw_only=True)
class Room:
    """How many tasks a worker may take.

    Attributes:
        limit: Those that wait for a thread included.
        free: How many would begin at once.
        threads: How many run at once.
        suspects: Whether what may have killed a worker may be among them.
    """

    limit: int
    free: int
    threads: int
    suspects: bool = True
