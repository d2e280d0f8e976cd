"""Users, and what is needed to let them log in."""

from __future__ import annotations

from datetime import datetime
from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.tenants import User, UserRole

_COLUMNS: LiteralString = "id, tenant_id, email, role::text, is_active, created_at, updated_at, last_login_at"

_CREATE = f"""
insert into mindia.users (tenant_id, id, email, password_hash, role) values (%s, %s, %s, %s, %s::mindia.user_role)
returning {_COLUMNS}
"""

_GET = f"select {_COLUMNS} from mindia.users where tenant_id = %s and id = %s"

_BY_EMAIL = f"select {_COLUMNS} from mindia.users where tenant_id = %s and email_key = lower(%s)"

_WITH_PASSWORD = f"select password_hash, {_COLUMNS} from mindia.users where tenant_id = %s and email_key = lower(%s)"

_PAGE = f"""
select {_COLUMNS} from mindia.users
where tenant_id = %(tenant_id)s and (%(after)s::uuid is null or id > %(after)s)
order by id limit %(limit)s
"""

_SET_ROLE = f"""
update mindia.users set role = %s::mindia.user_role, updated_at = now() where tenant_id = %s and id = %s
returning {_COLUMNS}
"""

_SET_ACTIVE = f"""
update mindia.users set is_active = %s, updated_at = now() where tenant_id = %s and id = %s
returning {_COLUMNS}
"""

_SET_PASSWORD = f"""
update mindia.users set password_hash = %s, updated_at = now() where tenant_id = %s and id = %s
returning {_COLUMNS}
"""

# A new hash of the password does not take the place of a new password, which came while the old one was verified.
_LOG_IN = f"""
update mindia.users
set last_login_at = now(),
    password_hash = case password_hash when %(verified)s then %(rehashed)s else password_hash end
where tenant_id = %(tenant_id)s and id = %(id)s and is_active
returning {_COLUMNS}
"""


@attrs.frozen
class WithPassword:
    """A user, and the hash of the password, which leaves the services for nowhere."""

    user: User
    password_hash: str = attrs.field(repr=False)


def create(
    session: Session,
    tenant_id: UUID,
    *,
    id: UUID,  # noqa: A002 - the column
    email: str,
    password_hash: str,
    role: UserRole,
) -> User:
    """Write a user."""
    created = session.one(_CREATE, (tenant_id, id, email, password_hash, role), row=_user)
    assert created is not None
    return created


def get(session: Session, tenant_id: UUID, user_id: UUID) -> User | None:
    """Read a user."""
    return session.one(_GET, (tenant_id, user_id), row=_user)


def by_email(session: Session, tenant_id: UUID, email: str) -> User | None:
    """Read the user with an e-mail address, without regard to case."""
    return session.one(_BY_EMAIL, (tenant_id, email), row=_user)


def with_password(session: Session, tenant_id: UUID, email: str) -> WithPassword | None:
    """Read the user with an e-mail address, and the hash of the password."""
    return session.one(
        _WITH_PASSWORD, (tenant_id, email), row=lambda password_hash, *user: WithPassword(_user(*user), password_hash)
    )


def page(session: Session, tenant_id: UUID, *, after: UUID | None, limit: int) -> list[User]:
    """Read users in the order of their making."""
    return session.all(_PAGE, {"tenant_id": tenant_id, "after": after, "limit": limit}, row=_user)


def set_role(session: Session, tenant_id: UUID, user_id: UUID, role: UserRole) -> User | None:
    """Change what a user may do."""
    return session.one(_SET_ROLE, (role, tenant_id, user_id), row=_user)


def set_active(session: Session, tenant_id: UUID, user_id: UUID, *, is_active: bool) -> User | None:
    """Refuse a user from now on, or no longer."""
    return session.one(_SET_ACTIVE, (is_active, tenant_id, user_id), row=_user)


def set_password(session: Session, tenant_id: UUID, user_id: UUID, password_hash: str) -> User | None:
    """Change the password."""
    return session.one(_SET_PASSWORD, (password_hash, tenant_id, user_id), row=_user)


def log_in(session: Session, tenant_id: UUID, user_id: UUID, *, verified: str, rehashed: str) -> User | None:
    """Record a log-in, and the hash that takes the place of the one that was verified; None for an inactive user."""
    parameters = {"tenant_id": tenant_id, "id": user_id, "verified": verified, "rehashed": rehashed}
    return session.one(_LOG_IN, parameters, row=_user)


def _user(
    id: UUID,  # noqa: A002 - the column
    tenant_id: UUID,
    email: str,
    role: str,
    is_active: bool,  # noqa: FBT001 - the column
    created_at: datetime,
    updated_at: datetime,
    last_login_at: datetime | None,
) -> User:
    return User(
        id=id,
        tenant_id=tenant_id,
        email=email,
        role=UserRole(role),
        is_active=is_active,
        created_at=created_at,
        updated_at=updated_at,
        last_login_at=last_login_at,
    )
