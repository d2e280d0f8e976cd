"""What a tenant has: `library.usage`."""

from __future__ import annotations

from mindia.db.session import Session
from mindia.domain.tenants import Quota, Usage
from mindia.repositories import derivatives, quotas
from mindia.services.context import TenantContext


def usage_of(context: TenantContext) -> Usage:
    """Return how much there is of each type, and the quota.

    Raises:
        PermissionDeniedError: The user is a viewer.
    """

    def work(session: Session) -> Usage:
        quota = quotas.get(session, context.tenant_id)
        derived = derivatives.usage(session, context.tenant_id)
        return Usage(
            by_type=tuple(quotas.usage(session, context.tenant_id)),
            quota=quota or Quota(),
            derivative_count=derived.count,
            derivative_bytes=derived.total_bytes,
        )

    return context.as_member.run(work)
