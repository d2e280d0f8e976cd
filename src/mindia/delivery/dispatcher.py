"""Sends webhooks: claims what is due, has all of it under way at once, and records in batches how that ended.

It is an event loop in a thread of its own. No transaction is open while a receiver is waited for. What limits an
endpoint (its cap, rate, order and breaker) is in the claim, and so holds for all workers together.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from mindia._ids import uuid7s
from mindia.config import Settings
from mindia.db.database import Database
from mindia.delivery.addresses import Guard
from mindia.delivery.outbox import Outbox
from mindia.domain.webhooks import Attempt, AttemptOutcome, Claim, ClaimedDelivery, Recorded
from mindia.errors import DatabaseError, MindiaError, MissingExtraError

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
_FEW = 16
"""Where no more came at once, the outbox is as good as empty: the worker goes on to be told of each event."""

_AGAIN_S = 0.5
_HELD_S = 0.1
"""Ends that transactions of the host's are in the way of are told again after so long."""

_SOON_S = 1.0
"""What becomes due within that time is waited for by `run_until_idle`."""

_log = logging.getLogger("mindia.webhooks")


class Dispatcher:
    """Delivers what is due.

    Args:
        database: Where the outbox is.
        settings: Times and limits.
        worker_id: The worker that it is part of, on record, which is woken when events are written; None polls.
        shutdown_timeout_s: How long deliveries under way are waited for when it stops. Then they are for others.

    Attributes:
        outcomes: How many attempts ended how.
    """

    def __init__(
        self, database: Database, settings: Settings, *, worker_id: UUID | None = None, shutdown_timeout_s: float = 30.0
    ) -> None:
        self._outbox = Outbox(database, settings, worker_id)
        self._settings = settings
        self._shutdown_timeout_s = shutdown_timeout_s
        self._lease_s = settings.webhook_lease.total_seconds()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.outcomes: Counter[AttemptOutcome] = Counter()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Deliver, in a thread, for as long as the block runs."""
        if not self._can_sign():
            yield
            return
        thread = threading.Thread(target=self._stay, name="mindia-webhooks", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.stop()
            thread.join(self._shutdown_timeout_s + 2 * _AGAIN_S)

    def stop(self) -> None:
        """Claim nothing more; the block of `running` ends when what is under way has ended."""
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """Have it look for deliveries now. From any thread."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it has just been closed
                loop.call_soon_threadsafe(self._look)

    def run_until_idle(self) -> None:
        """Deliver what is due, and return when there is nothing left to do now.

        Raises:
            DatabaseError: The database cannot be reached.
            MissingExtraError: There is something to deliver, and what that takes is not installed.
        """
        if not self._can_sign():
            return
        first = self._outbox.first(limit=self._settings.webhook_concurrency)
        if not first.deliveries and first.after is None and not _is_soon(first):
            return
        failed: list[BaseException] = []

        def work() -> None:
            try:
                asyncio.run(self._work(first=first, until_idle=True))
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                failed.append(error)

        # In a thread also here: there may be an event loop of the host's in this one.
        thread = threading.Thread(target=work, name="mindia-webhooks", daemon=True)
        thread.start()
        try:
            thread.join()
        except BaseException:
            self.stop()
            raise
        if failed:
            raise failed[0]

    def _can_sign(self) -> bool:
        if self._settings.secret_key is None:
            _log.debug("webhooks are not delivered by this process: its settings have no secret_key to sign with")
            return False
        return True

    def _stay(self) -> None:
        while not self._stopping:
            try:
                asyncio.run(self._work())
            except MissingExtraError as error:
                _log.error("webhooks are not delivered: %s", error)
                return
            except Exception:  # noqa: BLE001 - logged; deliveries that were under way come again
                _log.exception("delivering webhooks begins anew")
                time.sleep(_AGAIN_S)

    def _look(self) -> None:
        self._hand.news.set()

    async def _work(self, *, first: Claim | None = None, until_idle: bool = False) -> None:
        async with AsyncExitStack() as stack:
            self._hand = _Hand(self._settings, stack, self.outcomes)
            self._loop = asyncio.get_running_loop()
            stack.push_async_callback(self._outbox.close)
            try:
                if first is not None:
                    await self._hand.take(first)
                await self._rounds(until_idle=until_idle)
            finally:
                self._loop = None
                await self._hand.let_go()

    async def _rounds(self, *, until_idle: bool) -> None:
        """Claim and record, side by side: no claim waits for the disk that an end is written to."""
        both = [
            asyncio.create_task(self._claiming(until_idle=until_idle)),
            asyncio.create_task(self._recording(until_idle=until_idle)),
        ]
        try:
            await asyncio.gather(*both)
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
        await self._give_back()

    async def _claiming(self, *, until_idle: bool) -> None:
        hand = self._hand
        is_waiting = False
        while not self._stopping:
            hand.news.clear()
            claim = None
            was_empty = hand.is_empty  # what is recorded beside a claim may be due again, and not be seen by it
            if limit := hand.room():
                try:
                    told = None if until_idle else is_waiting
                    claim = await self._outbox.claim(limit=limit, is_waiting=told)
                except DatabaseError as error:
                    if until_idle:
                        raise
                    _log.warning("the outbox cannot be reached: %s", error)
                    await asyncio.sleep(_AGAIN_S)
                    continue
                await hand.take(claim)
                found = len(claim.deliveries)
                was_waiting, is_waiting = is_waiting, not found or (is_waiting and found <= _FEW)
                has_more = claim.after is not None or (is_waiting and not was_waiting and not until_idle)
                if until_idle and not found and was_empty and claim.after is None and not _is_soon(claim):
                    break
                if has_more and hand.room():
                    continue
            wait_s = self._settings.poll.total_seconds()
            if claim is not None and claim.wait is not None:
                wait_s = min(wait_s, claim.wait.total_seconds())
            await hand.pause(hand.news, wait_s)
        hand.is_last = True
        hand.ends.set()

    async def _recording(self, *, until_idle: bool) -> None:
        hand = self._hand
        renew_at = time.monotonic() + self._lease_s / 3
        stop_at: float | None = None
        while True:
            if hand.is_last and stop_at is None:
                stop_at = time.monotonic() + self._shutdown_timeout_s
            if stop_at is not None and (hand.is_empty or time.monotonic() >= stop_at):
                break
            hand.ends.clear()
            ended = hand.take_ended()
            renewed = hand.deliveries if time.monotonic() >= renew_at else ()
            try:
                if ended:
                    hand.recorded(await self._outbox.record(ended))
                if renewed:
                    hand.lost(await self._outbox.renew(renewed))
            except DatabaseError as error:
                hand.put_back()
                if until_idle:
                    raise
                _log.warning("the outbox cannot be reached: %s", error)
                await asyncio.sleep(_AGAIN_S)
                continue
            if renewed:
                renew_at = time.monotonic() + self._lease_s / 3
            if hand.is_last and hand.is_empty:
                continue  # what was recorded just now was the last: nothing more would end the pause
            wait_s = (renew_at if stop_at is None else min(renew_at, stop_at)) - time.monotonic()
            await hand.pause(hand.ends, min(wait_s, _HELD_S) if hand.held else wait_s)

    async def _give_back(self) -> None:
        """Let others have what is still under way."""
        left = await self._hand.let_go()
        if left:
            _log.warning("%d deliveries were still under way; they are for other workers", len(left))
        try:
            if ended := self._hand.take_ended(with_held=True):
                self._hand.recorded(await self._outbox.record(ended))
            await self._outbox.wait_no_more()
            if left:
                await self._outbox.give_back(left)
        except DatabaseError as error:
            _log.warning("deliveries cannot be given back, they come again after their lease: %s", error)


class _Hand:
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
        return len(self._flying) > _FEW

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
                    self._held_until = time.monotonic() + _HELD_S
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


def _is_soon(claim: Claim) -> bool:
    return claim.wait is not None and claim.wait.total_seconds() <= _SOON_S


def _sockets() -> int:
    """Return how many connections there may be, at most, by the limit of the system: half of the file descriptors."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(16, soft // 2)
