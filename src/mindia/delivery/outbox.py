"""The outbox of webhooks, as a worker goes to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from mindia.config import Settings
from mindia.db.async_session import AsyncSession
from mindia.db.database import Database
from mindia.db.session import ACROSS_TENANTS
from mindia.db.units import OwnTransaction
from mindia.delivery.recording import ends_of, give_up
from mindia.domain.webhooks import Attempt, Claim, ClaimedDelivery, Recorded
from mindia.repositories import webhook_outbox, workers


class Outbox:
    """The outbox, as one worker goes to it: one claim at a time, and beside it one end or renewal at a time.

    All of it is the event loop's. Threads would take the interpreter's lock from it some thirty times a statement,
    which cost as much as sending does.

    Args:
        database: Where it is.
        settings: Times and limits.
        worker_id: Who is told of events that are written, if anybody is.
    """

    def __init__(self, database: Database, settings: Settings, worker_id: UUID | None) -> None:
        self._database = database
        self._claims, self._ends = AsyncSession(database), AsyncSession(database)
        self._settings = settings
        self._worker_id = worker_id
        self._is_waiting = False
        self._after: UUID | None = None

    def first(self, *, limit: int) -> Claim:
        """Take what is due, where there is no event loop yet."""
        with self._database.transaction(ACROSS_TENANTS, single=True) as session:
            return session.ask(webhook_outbox.claim(limit=limit, lease=self._settings.webhook_lease))

    async def claim(self, *, limit: int, is_waiting: bool | None = None) -> Claim:
        """Take what is due.

        Args:
            limit: How many deliveries are wanted.
            is_waiting: Whether the worker is to be told of events that are written; None for as before.
        """
        if is_waiting is not None:
            await self._tell(is_waiting=is_waiting)  # before the claim: what is written before others see it is found
        # Not sent again after a lost connection: what was claimed by then waits for its lease, and more would.
        lease = self._settings.webhook_lease
        claim = await self._claims.ask(webhook_outbox.claim(limit=limit, lease=lease, after=self._after))
        self._after = claim.after
        return claim

    async def record(self, ended: Sequence[Attempt]) -> Sequence[Recorded]:
        """Record attempts that have ended, and return what became of each."""
        ends = await self._ends.ask(ends_of(ended, settings=self._settings), repeats=True)
        if ends.failing:
            await asyncio.to_thread(give_up, OwnTransaction(self._database, ACROSS_TENANTS), ends.failing)
        return ends.recorded

    async def renew(self, deliveries: Sequence[ClaimedDelivery]) -> list[ClaimedDelivery]:
        """Renew leases, and return the deliveries that are somebody else's by now."""
        lease = self._settings.webhook_lease
        kept = await self._ends.ask(webhook_outbox.renew(deliveries, lease=lease), repeats=True)
        return [delivery for delivery in deliveries if delivery.id not in kept]

    async def wait_no_more(self) -> None:
        """Have the worker not be told of events."""
        await self._tell(is_waiting=False)

    async def give_back(self, deliveries: Sequence[ClaimedDelivery]) -> None:
        """Let others have deliveries that were not sent to the end."""
        await self._ends.ask(webhook_outbox.give_back(deliveries), repeats=True)

    async def close(self) -> None:
        """Close the connections."""
        await self._claims.close()
        await self._ends.close()

    async def _tell(self, *, is_waiting: bool) -> None:
        if self._worker_id is None or is_waiting is self._is_waiting:
            return
        await self._claims.ask(workers.awaiting_events(self._worker_id, is_waiting=is_waiting), repeats=True)
        self._is_waiting = is_waiting
