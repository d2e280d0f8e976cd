"""Nobody guesses passwords for long: attempts to log in are counted, and after too many further ones are refused."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from mindia.config import Settings
from mindia.db.database import Database
from mindia.db.session import Scope, Session
from mindia.db.units import OwnTransaction
from mindia.errors import LockedOutError
from mindia.repositories import login_failures


class LoginAttempts:
    """Counts attempts by e-mail address, whether there is such a user or not. Thread-safe.

    An attempt is counted as a failure before it is made, and committed, so that attempts at the same time do not all
    pass before the first one is counted. One that succeeds has the failures forgotten.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._limit = settings.max_login_failures
        self._lockout = settings.login_lockout

    def count(self, tenant_id: UUID, email: str, *, beside: bool) -> None:
        """Count an attempt that is about to be made.

        Args:
            tenant_id: The tenant, which was found to be served.
            email: The address.
            beside: Whether a transaction is open, which may be rolled back and holds a connection of the pool.

        Raises:
            LockedOutError: There were too many.
        """

        def work(session: Session) -> datetime | None:
            failures = login_failures.count(session, tenant_id, email, limit=self._limit, lockout=self._lockout)
            # What a connection that was lost has counted twice is no reason to refuse it.
            return failures.expires_at if failures.count > self._limit + session.repeated else None

        locked_until = self._unit(tenant_id, beside=beside).run(work, single=True)
        if locked_until is not None:
            raise LockedOutError(
                f"too many attempts to log in have failed: try again after {locked_until:%Y-%m-%d %H:%M:%S} UTC",
                until=locked_until,
            )

    def forget(self, tenant_id: UUID, email: str, *, beside: bool) -> None:
        """Hold nothing against an e-mail address any more: an attempt has succeeded."""
        self._unit(tenant_id, beside=beside).run(
            lambda session: login_failures.forget(session, tenant_id, email), single=True
        )

    def _unit(self, tenant_id: UUID, *, beside: bool) -> OwnTransaction:
        # Also for a tenant that an open transaction has made, and that nobody else sees yet.
        return OwnTransaction(self._database, Scope(tenant_id=tenant_id, is_served=False), beside=beside)
