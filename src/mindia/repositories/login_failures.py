"""Log-ins that have not succeeded, by e-mail address; a row counts until it expires, and is taken for none then."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session

_HASH: LiteralString = "sha256(convert_to(lower(%(email)s), 'UTF8'))"

# The attempt that reaches the limit starts the time anew: from then on it is that of the lock-out.
_COUNT = f"""
insert into mindia.login_failures as f (tenant_id, email_hash, failure_count, expires_at)
values (%(tenant_id)s, {_HASH}, 1, now() + %(lockout)s::interval)
on conflict on constraint login_failures_pkey do update
set failure_count = case when f.expires_at <= now() then 1 else f.failure_count + 1 end,
    expires_at = case when f.expires_at <= now() or f.failure_count + 1 = %(limit)s
                      then excluded.expires_at else f.expires_at end
returning failure_count, expires_at
"""

_FORGET = f"delete from mindia.login_failures where tenant_id = %(tenant_id)s and email_hash = {_HASH}"

_REMOVE_EXPIRED = """
delete from mindia.login_failures where (tenant_id, email_hash) in (
    select tenant_id, email_hash from mindia.login_failures where expires_at <= now() for update skip locked
)
"""


@attrs.frozen
class Failures:
    """How often log-in with an e-mail address has failed, the attempt that is under way included.

    Attributes:
        count: How often.
        expires_at: Until when that is held against it.
    """

    count: int
    expires_at: datetime


def count(session: Session, tenant_id: UUID, email: str, *, limit: int, lockout: timedelta) -> Failures:
    """Count an attempt."""
    parameters = {"tenant_id": tenant_id, "email": email, "limit": limit, "lockout": lockout}
    counted = session.one(_COUNT, parameters, row=Failures)
    assert counted is not None
    return counted


def forget(session: Session, tenant_id: UUID, email: str) -> None:
    """Hold nothing against an e-mail address any more."""
    session.execute(_FORGET, {"tenant_id": tenant_id, "email": email})


def remove_expired(session: Session) -> int:
    """Delete what is not held against anybody any more, of all tenants, and return how many rows that were."""
    return session.execute(_REMOVE_EXPIRED)
