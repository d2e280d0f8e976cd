"""Deleting items: by their users, and when their time has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from uuid import UUID

from mindia.db.session import Session
from mindia.domain.events import MediaEvent
from mindia.domain.media import Media
from mindia.repositories import derivatives, media_change, quotas
from mindia.services._keys import derived_prefix


def delete_items(
    session: Session,
    tenant_id: UUID,
    items: Sequence[Media],
    *,
    event_ids: Mapping[UUID, UUID],
    initiated_by: UUID | None,
    only_expired: bool = False,
) -> set[UUID]:
    """Delete items of any kind, and return the ids of those that were deleted.

    Args:
        session: Where.
        tenant_id: Whose they are.
        items: The items.
        event_ids: By the id of an item, that of the event that tells of its end.
        initiated_by: On whose behalf; None for the host itself.
        only_expired: Whether one stays that has been given more time meanwhile.
    """
    deleted: set[UUID] = set()
    now = datetime.now(UTC)
    # In one order for all, so that two that delete the same items wait for each other rather than collide.
    in_order = sorted(items, key=lambda item: (item.kind, item.id))
    for kind, group in groupby(in_order, key=lambda item: item.kind):
        alike = list(group)
        deleted |= media_change.delete(
            session,
            tenant_id,
            kind,
            alike,
            s3_prefixes=[derived_prefix(derivatives.source_of(item.s3_key) or item.id) for item in alike],
            events=[
                MediaEvent.of(item, "deleted", id=event_ids[item.id], occurred_at=now, initiated_by=initiated_by)
                for item in alike
            ],
            only_expired=only_expired,
        )
    if deleted:
        # Last: whoever holds the quota waits for no item that another one is deleting.
        quotas.give_back(session, tenant_id, [item for item in items if item.id in deleted])
    return deleted
