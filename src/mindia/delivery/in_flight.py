"""What a dispatcher has under way: deliveries that are being sent, and how those ended that are not on record yet."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mindia._ids import uuid7s
from mindia.config import Settings
from mindia.delivery.addresses import Guard
from mindia.domain.webhooks import Attempt, AttemptOutcome, Claim, ClaimedDelivery, Recorded
from mindia.errors import MindiaError, MissingExtraError

if TYPE_CHECKING:
    from mindia.delivery.sender import Sender
    from mindia.delivery.signer import Signer

_GRACE_S = 1.0
_SLOW_S = 1.0
"""What has lasted so long does not count against the concurrency any more: it may well hang until its deadline."""

_SLOW_FACTOR = 4
_MIN_SHARE = 8
"""Claims are made when at least an eighth of the room is free, and not for each delivery that ends."""

_AT_ONCE = 16
"""So many are begun before answers are looked at: ends that come one after the other are recorded meanwhile."""

_GATHER_S = 0.003
_MANY = 16
"""Where more than so many are on their way, some will end in a moment."""

HELD_S = 0.1
"""Ends that transactions of the host's are in the way of are told again after so long."""

_log = logging.getLogger("mindia.webhooks")


class InFlight:
    """What is under way.

    Attributes:
        news: Is set when the outbox is to be looked at: more may be there, or there is room for more.
        ends: Is set when something ended.
        ended: Attempts that have ended and are not on record.
        held: Those among them that cannot be recorded now.
        is_last: Whether nothing more is claimed.
    """

    def __init__(self, settings: Settings, stack: AsyncExitStack, outcomes: Counter[AttemptOutcome]) -> None:
        self.news = asyncio.Event()
        self.ends = asyncio.Event()
        self.is_last = False
        self.ended: list[Attempt] = []
        self.held: list[Attempt] = []
        self._recording: list[Attempt] = []
        self._held_until = 0.0
        self._waiting: deque[ClaimedDelivery] = deque()
        self._feeding: asyncio.Task[None] | None = None
        self._flying: dict[asyncio.Task[None], tuple[ClaimedDelivery, float]] = {}
        self._settings = settings
        self._stack = stack
        self._outcomes = outcomes
        self._most = min(_SLOW_FACTOR * settings.webhook_concurrency, _sockets())
        self._sender: Sender | None = None
        self._signer: Signer | None = None
        self._attempt_ids = uuid7s()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is under way, and all that was is on record."""
        return not (self._waiting or self._flying or self.ended or self.held or self._recording)

    @property
    def is_busy(self) -> bool:
        """Whether so much is under way that more will end in a moment."""
        return len(self._flying) > _MANY

    @property
    def deliveries(self) -> list[ClaimedDelivery]:
        """Those that are leased."""
        ended = (attempt.delivery for attempt in (*self.ended, *self.held))
        return [*self._waiting, *(delivery for delivery, _ in self._flying.values()), *ended]

    async def pause(self, event: asyncio.Event, wait_s: float) -> None:
        """Wait for an event, so long at most; where more will come in a moment, for that as well."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait_s)):
                await event.wait()
        if self.is_busy:
            await asyncio.sleep(_GATHER_S)

    def room(self) -> int:
        """Return how many more may be claimed; none where so few could that it is better to wait for more."""
        slow_before = time.monotonic() - _SLOW_S
        quick = sum(begun > slow_before for _, begun in self._flying.values())
        waiting = len(self._waiting)
        room = min(self._settings.webhook_concurrency - quick, self._most - len(self._flying)) - waiting
        is_worth_it = room * _MIN_SHARE >= self._settings.webhook_concurrency or not (self._flying or waiting)
        return room if is_worth_it else 0

    async def take(self, claim: Claim) -> None:
        """Begin to send what was claimed."""
        if not claim.deliveries:
            return
        if self._sender is None:
            await self._open()
        self._waiting.extend(claim.deliveries)
        if self._feeding is None or self._feeding.done():
            self._feeding = asyncio.create_task(self._feed())

    def take_ended(self, *, with_held: bool = False) -> list[Attempt]:
        """Take out what is to be recorded now; `recorded` or `put_back` is called next."""
        ended, self.ended = self.ended, []
        if self.held and (with_held or time.monotonic() >= self._held_until):
            ended, self.held = self.held + ended, []
        self._recording = ended
        return ended

    def put_back(self) -> None:
        """Have what was taken out be recorded later."""
        self.ended = [*self._recording, *self.ended]
        self._recording = []

    def recorded(self, recorded: Sequence[Recorded]) -> None:
        """Take note of what is on record, and of what has to be told again."""
        ended, self._recording = self._recording, []
        self.news.set()  # its endpoints may have more
        for attempt, what in zip(ended, recorded, strict=True):
            match what:
                case Recorded.RECORDED:
                    self._outcomes[attempt.outcome] += 1
                case Recorded.BUSY:
                    self.held.append(attempt)
                    self._held_until = time.monotonic() + HELD_S
                case Recorded.LOST:
                    _log.warning("delivery %d was taken from this worker while it was sent", attempt.delivery.id)

    def lost(self, deliveries: Sequence[ClaimedDelivery]) -> None:
        """Call off what was given to others."""
        gone = set(deliveries)
        self._waiting = deque(delivery for delivery in self._waiting if delivery not in gone)
        for task, (delivery, _) in self._flying.items():
            if delivery in gone:
                task.cancel()

    async def let_go(self) -> list[ClaimedDelivery]:
        """Call off all that is under way, and return it."""
        not_begun = list(self._waiting)
        self._waiting.clear()
        left = dict(self._flying)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        return [*not_begun, *(delivery for task, (delivery, _) in left.items() if task.cancelled())]

    async def _feed(self) -> None:
        while self._waiting:
            for _ in range(min(_AT_ONCE, len(self._waiting))):
                delivery = self._waiting.popleft()
                task = asyncio.create_task(self._deliver(delivery))
                self._flying[task] = (delivery, time.monotonic())
                task.add_done_callback(self._landed)
            await asyncio.sleep(0)

    async def _open(self) -> None:
        try:
            from mindia.delivery.sender import Sender
            from mindia.delivery.signer import Signer
        except ImportError as error:
            raise MissingExtraError("Delivering webhooks", extra="webhooks") from error
        settings = self._settings
        sender = Sender(Guard.of(settings), timeout_s=settings.webhook_timeout.total_seconds(), grace_s=_GRACE_S)
        self._sender = await self._stack.enter_async_context(sender)
        self._signer = Signer(settings)

    def _landed(self, task: asyncio.Task[None]) -> None:
        del self._flying[task]
        self.ends.set()
        if self.is_busy:
            self.news.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a delivery cannot be sent", exc_info=error)

    async def _deliver(self, delivery: ClaimedDelivery) -> None:
        assert self._sender is not None
        assert self._signer is not None
        started_at = datetime.now(UTC)
        begun = time.monotonic()
        result = None
        try:
            headers = self._signer.headers(delivery, at=started_at)
            result = await self._sender.send(url=delivery.url, body=delivery.body, headers=headers)
        except MindiaError as error:
            _log.error("delivery %d cannot be signed: %s", delivery.id, error)
        if result is None:
            attempt = Attempt(
                id=next(self._attempt_ids),
                delivery=delivery,
                started_at=started_at,
                duration=timedelta(seconds=time.monotonic() - begun),
                outcome=AttemptOutcome.FAILED,
                error_code="secret_unreadable",
            )
        else:
            attempt = Attempt(
                id=next(self._attempt_ids),
                delivery=delivery,
                started_at=started_at,
                duration=timedelta(seconds=result.duration_s),
                outcome=result.outcome,
                status_code=result.status_code,
                error_code=result.error_code,
                response=result.response,
                address=result.address,
                retry_after=result.retry_after,
            )
        self.ended.append(attempt)


def _sockets() -> int:
    """Return how many connections there may be, at most, by the limit of the system: half of the file descriptors."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(16, soft // 2)
