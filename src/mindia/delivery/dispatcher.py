"""Sends webhooks: claims what is due, has all of it under way at once, and records in batches how that ended.

It is an event loop in a thread of its own. No transaction is open while a receiver is waited for. What limits an
endpoint (its cap, rate, order and breaker) is in the claim, and so holds for all workers together.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from uuid import UUID

from mindia.config import Settings
from mindia.db.database import Database
from mindia.delivery.in_flight import HELD_S, InFlight
from mindia.delivery.outbox import Outbox
from mindia.domain.webhooks import AttemptOutcome, Claim
from mindia.errors import DatabaseError, MissingExtraError

_FEW = 16
"""Where no more came at once, the outbox is as good as empty: the worker goes on to be told of each event."""

_AGAIN_S = 0.5

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
        self._in_flight.news.set()

    async def _work(self, *, first: Claim | None = None, until_idle: bool = False) -> None:
        async with AsyncExitStack() as stack:
            self._in_flight = InFlight(self._settings, stack, self.outcomes)
            self._loop = asyncio.get_running_loop()
            stack.push_async_callback(self._outbox.close)
            try:
                if first is not None:
                    await self._in_flight.take(first)
                await self._rounds(until_idle=until_idle)
            finally:
                self._loop = None
                await self._in_flight.let_go()

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
        in_flight = self._in_flight
        is_waiting = False
        while not self._stopping:
            in_flight.news.clear()
            claim = None
            was_empty = in_flight.is_empty  # what is recorded beside a claim may be due again, and not be seen by it
            if limit := in_flight.room():
                try:
                    told = None if until_idle else is_waiting
                    claim = await self._outbox.claim(limit=limit, is_waiting=told)
                except DatabaseError as error:
                    if until_idle:
                        raise
                    _log.warning("the outbox cannot be reached: %s", error)
                    await asyncio.sleep(_AGAIN_S)
                    continue
                await in_flight.take(claim)
                found = len(claim.deliveries)
                was_waiting, is_waiting = is_waiting, not found or (is_waiting and found <= _FEW)
                has_more = claim.after is not None or (is_waiting and not was_waiting and not until_idle)
                if until_idle and not found and was_empty and claim.after is None and not _is_soon(claim):
                    break
                if has_more and in_flight.room():
                    continue
            wait_s = self._settings.poll.total_seconds()
            if claim is not None and claim.wait is not None:
                wait_s = min(wait_s, claim.wait.total_seconds())
            await in_flight.pause(in_flight.news, wait_s)
        in_flight.is_last = True
        in_flight.ends.set()

    async def _recording(self, *, until_idle: bool) -> None:
        in_flight = self._in_flight
        renew_at = time.monotonic() + self._lease_s / 3
        stop_at: float | None = None
        while True:
            if in_flight.is_last and stop_at is None:
                stop_at = time.monotonic() + self._shutdown_timeout_s
            if stop_at is not None and (in_flight.is_empty or time.monotonic() >= stop_at):
                break
            in_flight.ends.clear()
            ended = in_flight.take_ended()
            renewed = in_flight.deliveries if time.monotonic() >= renew_at else ()
            try:
                if ended:
                    in_flight.recorded(await self._outbox.record(ended))
                if renewed:
                    in_flight.lost(await self._outbox.renew(renewed))
            except DatabaseError as error:
                in_flight.put_back()
                if until_idle:
                    raise
                _log.warning("the outbox cannot be reached: %s", error)
                await asyncio.sleep(_AGAIN_S)
                continue
            if renewed:
                renew_at = time.monotonic() + self._lease_s / 3
            if in_flight.is_last and in_flight.is_empty:
                continue  # what was recorded just now was the last: nothing more would end the pause
            wait_s = (renew_at if stop_at is None else min(renew_at, stop_at)) - time.monotonic()
            await in_flight.pause(in_flight.ends, min(wait_s, HELD_S) if in_flight.held else wait_s)

    async def _give_back(self) -> None:
        """Let others have what is still under way."""
        left = await self._in_flight.let_go()
        if left:
            _log.warning("%d deliveries were still under way; they are for other workers", len(left))
        try:
            if ended := self._in_flight.take_ended(with_held=True):
                self._in_flight.recorded(await self._outbox.record(ended))
            await self._outbox.wait_no_more()
            if left:
                await self._outbox.give_back(left)
        except DatabaseError as error:
            _log.warning("deliveries cannot be given back, they come again after their lease: %s", error)


def _is_soon(claim: Claim) -> bool:
    return claim.wait is not None and claim.wait.total_seconds() <= _SOON_S
