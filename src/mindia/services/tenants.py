"""Tenants: `app.tenants`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Self
from uuid import UUID

import attrs

from mindia._handles import Handle
from mindia._ids import uuid7
from mindia.db.session import Session
from mindia.db.units import Unit
from mindia.domain.tenants import MediaLimits, Quota, Tenant, TenantStatus
from mindia.errors import InvalidError, NotFoundError, TransactionError
from mindia.repositories import quotas, tenants
from mindia.repositories._text import storable
from mindia.services.known_tenants import KnownTenants
from mindia.storage.base import Storage

_PAGE = 500
_BUCKET = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""As on S3: 3 to 63 lower-case letters, digits, dots and hyphens, and no two dots in a row."""


@attrs.frozen(kw_only=True)
class NewTenant:
    """A tenant that is to be made."""

    id: UUID
    name: str
    s3_bucket: str
    s3_region: str

    @classmethod
    def checked(cls, name: str, *, s3_bucket: str | None, s3_region: str) -> Self:
        """Return it, if that is allowed; see `Tenants.create`.

        Raises:
            InvalidError: The name is empty or too long, or the bucket's name is not one.
        """
        tenant_id = uuid7()
        bucket = f"mindia-{tenant_id.hex}" if s3_bucket is None else s3_bucket
        if not _BUCKET.fullmatch(bucket):
            raise InvalidError(
                f"s3_bucket must have 3 to 63 lower-case letters, digits, dots and hyphens, not {bucket!r}"
            )
        return cls(id=tenant_id, name=_checked(name), s3_bucket=bucket, s3_region=s3_region)

    def write(self, session: Session) -> Tenant:
        """Write it, unless that has been done."""
        if session.repeated and (made := tenants.get(session, self.id)):
            return made
        return tenants.create(session, id=self.id, name=self.name, s3_bucket=self.s3_bucket, s3_region=self.s3_region)


class Tenants(Handle):
    """Makes and changes tenants. Thread-safe, unless it is that of a transaction."""

    def __init__(self, unit: Unit, storage: Storage, known: KnownTenants) -> None:
        self._unit = unit
        self._storage = storage
        self._known = known

    def create(self, name: str, *, s3_bucket: str | None = None, s3_region: str | None = None) -> Tenant:
        """Make a tenant.

        Args:
            name: For people, 1 to 255 characters.
            s3_bucket: Its bucket; a new name by default. In a local store, the name of its folder.
            s3_region: The region of the bucket; that of the storage by default.

        Raises:
            InvalidError: The name is empty or too long, or the bucket's name is not one.
            AlreadyExistsError: Another tenant uses the bucket.
        """
        new = NewTenant.checked(name, s3_bucket=s3_bucket, s3_region=s3_region or self._storage.region)
        return self._unit.run(new.write)

    def get(self, tenant_id: UUID) -> Tenant:
        """Return a tenant, whatever its status.

        Raises:
            NotFoundError: There is none.
        """
        return _found(self._unit.run(lambda session: tenants.get(session, tenant_id), single=True), tenant_id)

    def list(self) -> Iterator[Tenant]:
        """Yield all tenants that are not deleted, the oldest first."""
        after: UUID | None = None
        while True:
            page = self._unit.run(lambda session, after=after: tenants.page(session, after=after, limit=_PAGE))  # type: ignore[misc]  # mypy cannot type the default
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].id

    def rename(self, tenant_id: UUID, name: str) -> Tenant:
        """Change the name.

        Raises:
            InvalidError: It is empty or too long.
            NotFoundError: There is no such tenant.
        """
        name = _checked(name)
        changed = self._unit.run(lambda session: tenants.rename(session, tenant_id, name), single=True)
        return _changed(changed, tenant_id)

    def suspend(self, tenant_id: UUID) -> Tenant:
        """Refuse every call for the tenant from now on, until it is reactivated.

        Raises:
            NotFoundError: There is no such tenant, or it is deleted.
        """
        return self._set_status(tenant_id, TenantStatus.SUSPENDED)

    def reactivate(self, tenant_id: UUID) -> Tenant:
        """Serve a suspended tenant again.

        Raises:
            NotFoundError: There is no such tenant, or it is deleted.
        """
        return self._set_status(tenant_id, TenantStatus.ACTIVE)

    def delete(self, tenant_id: UUID) -> None:
        """Refuse every call for the tenant from now on, for good, and have workers remove all that it has.

        See `Maintenance.remove_deleted_tenants`. Deleting it again does nothing more, for as long as it is there.

        Raises:
            NotFoundError: There is no such tenant.
        """
        from mindia.repositories import tenant_deletion

        def work(session: Session) -> bool:
            return tenant_deletion.mark(session, tenant_id) or session.repeated  # it may have been removed since

        try:
            was_there = self._unit.run(work, single=True)
        finally:
            self._known.forget(tenant_id, self._unit)
        if not was_there:
            raise NotFoundError(f"there is no tenant {tenant_id}")

    def set_limits(self, tenant_id: UUID, limits: MediaLimits) -> Tenant:
        """Give a tenant limits of its own, in place of those that it had; other processes notice within a second.

        Raises:
            InvalidError: PostgreSQL has no text search configuration of the name.
            NotFoundError: There is no such tenant.
        """
        language = limits.language
        if language is not None and not self._unit.run(
            lambda session: tenants.has_language(session, language), single=True
        ):
            raise InvalidError(f"PostgreSQL has no text search configuration {language!r}")
        try:
            changed = self._unit.run(lambda session: tenants.set_limits(session, tenant_id, limits), single=True)
        finally:
            self._known.forget(tenant_id, self._unit)
        return _changed(changed, tenant_id)

    def set_quota(self, tenant_id: UUID, quota: Quota) -> None:
        """Give a tenant a quota in place of the one that it had; `Quota()` for none.

        What it has is counted for that: additions and deletions that are under way are waited for, and new ones wait
        meanwhile. From then on additions to a tenant with a quota wait for each other, each until the transaction that
        the other is in ends: none can exceed it. A quota below what there is refuses additions, and deletes nothing.

        Raises:
            NotFoundError: There is no such tenant.
            TransactionError: The transaction is not of the isolation level `read committed`: it could miss some.
        """
        if not isinstance(quota, Quota):
            raise InvalidError(f"quota must be a Quota, not {type(quota).__name__}")

        def work(session: Session) -> None:
            isolation = quotas.hold(session, tenant_id)
            if isolation is None:
                raise NotFoundError(f"there is no tenant {tenant_id}")
            if isolation != "read committed":
                raise TransactionError(
                    f"in a transaction of the isolation level {isolation} not all of what is there can be counted: "
                    "set the quota in one that is read committed"
                )
            quotas.put(session, tenant_id, quota)

        self._unit.run(work)

    def _set_status(self, tenant_id: UUID, status: TenantStatus) -> Tenant:
        try:
            changed = self._unit.run(lambda session: tenants.set_status(session, tenant_id, status), single=True)
        finally:
            self._known.forget(tenant_id, self._unit)
        return _changed(changed, tenant_id)


def _found(tenant: Tenant | None, tenant_id: UUID) -> Tenant:
    if tenant is None:
        raise NotFoundError(f"there is no tenant {tenant_id}")
    return tenant


def _changed(tenant: Tenant | None, tenant_id: UUID) -> Tenant:
    if tenant is None:
        raise NotFoundError(f"there is no tenant {tenant_id}, or it is deleted")
    return tenant


def _checked(name: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= 255 or storable(name) != name:
        raise InvalidError(f"a tenant's name has 1 to 255 characters of Unicode, no NUL: {name[:80]!r}")
    return name
