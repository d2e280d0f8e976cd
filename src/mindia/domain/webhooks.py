"""Webhook endpoints and what is delivered to them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import attrs

from mindia.domain.media import JsonValue


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@attrs.frozen(kw_only=True)
class Webhook:
    """An endpoint of a tenant. Its signing secret is not part of it.

    Attributes:
        id: UUIDv7, made by the client.
        tenant_id: Whose it is.
        url: Where events are sent.
        events: Names and patterns: `image.uploaded`, `image.*`, `*`.
        is_active: Whether events are sent.
        created_at: In UTC.
    """

    id: UUID
    tenant_id: UUID
    url: str
    events: tuple[str, ...]
    is_active: bool
    created_at: datetime


@attrs.frozen(kw_only=True)
class WebhookEvent:
    """An event on its way to one endpoint.

    Attributes:
        id: Number of the delivery.
        webhook_id: The endpoint.
        event_id: The event; the same for all its endpoints.
        event_type: For example `image.uploaded`.
        payload: What is sent.
        delivery_status: Where it stands.
        retry_count: How often it was tried again.
        created_at: In UTC.
    """

    id: int
    webhook_id: UUID
    event_id: UUID
    event_type: str
    payload: JsonValue = attrs.field(hash=False)
    delivery_status: DeliveryStatus
    retry_count: int
    created_at: datetime
