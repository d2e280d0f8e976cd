"""What is known of tenants, so that a call need not ask for it each time."""

from __future__ import annotations

import time
from uuid import UUID

import attrs

from mindia.config import Settings
from mindia.db.units import OpenTransaction, Unit
from mindia.domain.tenants import Tenant
from mindia.errors import NotFoundError
from mindia.repositories import tenants

_FRESH_S = 1.0
"""How long a tenant that was seen active is believed to be. Statements on its rows look for themselves."""

_MAX_TENANTS = 10_000


@attrs.frozen(kw_only=True)
class KnownTenant:
    """What the services need to know of a tenant.

    Attributes:
        s3_bucket: Its bucket, which stays the same.
        s3_region: Where that is.
        settings: The settings, with the limits of the tenant's own.
        seen_at: When it was seen active, by `time.monotonic`.
    """

    s3_bucket: str
    s3_region: str
    settings: Settings
    seen_at: float


def known_of(tenant: Tenant, settings: Settings, *, seen_at: float) -> KnownTenant:
    """Return what the services need to know of a tenant."""
    own = {name: value for name, value in attrs.asdict(tenant.limits).items() if value is not None}
    return KnownTenant(
        s3_bucket=tenant.s3_bucket,
        s3_region=tenant.s3_region,
        settings=attrs.evolve(settings, **own) if own else settings,
        seen_at=seen_at,
    )


class KnownTenants:
    """Remembers tenants for a moment. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[UUID, KnownTenant] = {}
        self._changing: dict[UUID, OpenTransaction] = {}

    def active(self, tenant_id: UUID, unit: Unit) -> KnownTenant:
        """Return a tenant that was seen active just now.

        Raises:
            NotFoundError: There is none.
            TenantInactiveError: It is suspended or deleted.
        """
        unit.check()
        self._look_again_after_transaction(tenant_id)
        known = self._known.get(tenant_id)
        if known is None or time.monotonic() - known.seen_at > _FRESH_S:
            known = self._read(tenant_id, unit)
        return known

    def bucket(self, tenant_id: UUID, unit: Unit) -> str:
        """Return the bucket of a tenant."""
        known = self._known.get(tenant_id) or self._read(tenant_id, unit)
        return known.s3_bucket

    def forget(self, tenant_id: UUID, unit: Unit) -> None:
        """Look again next time: the tenant has been changed. Where that is not committed yet, only then for good."""
        if isinstance(unit, OpenTransaction):
            self._changing[tenant_id] = unit
        self._known.pop(tenant_id, None)

    def _look_again_after_transaction(self, tenant_id: UUID) -> None:
        changing = self._changing.get(tenant_id)
        if changing is not None and changing.ended:
            self._known.pop(tenant_id, None)
            self._changing.pop(tenant_id, None)

    def _read(self, tenant_id: UUID, unit: Unit) -> KnownTenant:
        seen_at = time.monotonic()
        tenant = unit.run(lambda session: tenants.get(session, tenant_id), single=True)
        if tenant is None:
            raise NotFoundError(f"there is no tenant {tenant_id}")
        known = known_of(tenant, self._settings, seen_at=seen_at)
        if tenant_id in self._changing:
            return known  # what a transaction sees of its own changes, nobody else may believe
        if len(self._known) >= _MAX_TENANTS:
            self._known.clear()
        self._known[tenant_id] = known
        return known
