"""Webhook endpoints and what is delivered to them."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import attrs

from mindia._ids import uuid7
from mindia.domain.media import JsonValue


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class WebhookStatus(StrEnum):
    """Whether events are sent to an endpoint. Those that come while they are not wait for it.

    `disabled` is what failed for days, or has answered 410 (gone); `paused` was by the host.
    """

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"


class AttemptOutcome(StrEnum):
    """How an attempt ended: with 2xx, with another status, too late, or without an answer in HTTP."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    FAILED = "failed"


class AttemptCause(StrEnum):
    """What set an attempt off."""

    EVENT = "event"
    RETRY = "retry"
    RESEND = "resend"
    TEST = "test"


@attrs.frozen(kw_only=True)
class Webhook:
    """An endpoint of a tenant. Its signing secret is not part of it.

    Attributes:
        id: UUIDv7, made by the client.
        tenant_id: Whose it is.
        url: Where events are sent.
        events: Names and patterns: `image.uploaded`, `image.*`, `*`.
        description: For people.
        is_active: Whether events are sent; those that come while they are not wait.
        disabled_at: When it was disabled for failing, in UTC, or None.
        disabled_reason: Why.
        is_ordered: Whether events go one after the other, each when the one before is done with.
        max_in_flight: How many go at once, at most, all workers taken together.
        max_per_second: How many begin in a second, at most; None is no limit.
        includes_url: Whether events about items have a signed URL of their bytes.
        previous_secret_until: Until when the secret before the present one signs as well, in UTC, or None.
        created_at: In UTC.
        updated_at: When it was last changed, in UTC.
    """

    id: UUID
    tenant_id: UUID
    url: str
    events: tuple[str, ...]
    description: str = ""
    is_active: bool
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    is_ordered: bool = False
    max_in_flight: int = 8
    max_per_second: float | None = None
    includes_url: bool = False
    previous_secret_until: datetime | None = None
    created_at: datetime
    updated_at: datetime = attrs.field(repr=False)

    @property
    def status(self) -> WebhookStatus:
        """Whether events are sent, and if not, why."""
        if self.is_active:
            return WebhookStatus.ACTIVE
        return WebhookStatus.PAUSED if self.disabled_at is None else WebhookStatus.DISABLED


@attrs.frozen(kw_only=True)
class IssuedWebhook:
    """An endpoint with its signing secret, which is shown this once: whoever loses it rotates it.

    Attributes:
        webhook: The endpoint.
        secret: What its receiver verifies signatures with, `whsec_…`. Never shown by `repr`.
    """

    webhook: Webhook
    secret: str = attrs.field(repr=lambda _: "'***'")


@attrs.frozen(kw_only=True)
class WebhookEvent:
    """An event on its way to one endpoint: a delivery.

    Attributes:
        id: Number of the delivery.
        webhook_id: The endpoint.
        event_id: The event; the same for all its endpoints.
        event_type: For example `image.uploaded`.
        payload: What is sent.
        delivery_status: Where it stands.
        retry_count: How often it was tried again, since it was last sent by hand.
        attempt_count: How often it was tried at all.
        next_attempt_at: While it is pending, not tried before, in UTC.
        delivered_at: When the receiver took it, in UTC, or None.
        created_at: In UTC.
    """

    id: int
    webhook_id: UUID
    event_id: UUID
    event_type: str
    payload: JsonValue = attrs.field(hash=False, repr=False)
    delivery_status: DeliveryStatus
    retry_count: int
    attempt_count: int = 0
    next_attempt_at: datetime
    delivered_at: datetime | None = None
    created_at: datetime


@attrs.frozen(kw_only=True)
class WebhookAttempt:
    """A try to deliver an event to an endpoint.

    Attributes:
        id: UUIDv7.
        webhook_id: The endpoint.
        delivery_id: Which delivery.
        attempt: Counted from 1.
        cause: What set it off.
        started_at: In UTC.
        duration: Until the answer, or until it was given up.
        outcome: How it ended.
        status_code: Of the response, or None where there was none.
        error_code: What went wrong where there was no response, in one word, or None.
        response: The beginning of the response's body, or None.
        address: The address that was connected to, or None.
    """

    id: UUID
    webhook_id: UUID
    delivery_id: int
    attempt: int
    cause: AttemptCause
    started_at: datetime
    duration: timedelta
    outcome: AttemptOutcome
    status_code: int | None
    error_code: str | None
    response: str | None = attrs.field(repr=False)
    address: str | None


@attrs.frozen(kw_only=True)
class WebhookHealth:
    """How an endpoint does.

    Attributes:
        webhook_id: The endpoint.
        since: As of when attempts are counted, in UTC.
        attempts: How many there were.
        delivered: How many of them were successful.
        latency_p50: Half of the successful ones took no longer, or None where there was none.
        latency_p95: The same for 95 of 100.
        waiting: Events that wait to be delivered.
        oldest_waiting_at: When the oldest of those was written, in UTC, or None.
        failed: Events that were given up on and are kept, to be sent again by hand.
        failures_in_row: Attempts that failed since the last success.
        open_until: Nothing is sent before, since so many attempts failed in a row; in UTC, or None.
        last_success_at: When the latest successful attempt began, in UTC, or None.
        last_failure: The latest attempt that failed, or None.
    """

    webhook_id: UUID
    since: datetime
    attempts: int
    delivered: int
    latency_p50: timedelta | None
    latency_p95: timedelta | None
    waiting: int
    oldest_waiting_at: datetime | None
    failed: int
    failures_in_row: int
    open_until: datetime | None
    last_success_at: datetime | None
    last_failure: WebhookAttempt | None

    @property
    def success_rate(self) -> float | None:
        """The share of attempts that were successful, 0 to 1; None where there was none."""
        return self.delivered / self.attempts if self.attempts else None


@attrs.frozen(kw_only=True)
class ClaimedDelivery:
    """A delivery in the hands of one sender.

    Attributes:
        id: Number of the delivery.
        tenant_id: Whose it is.
        webhook_id: The endpoint.
        event_id: The event; what receivers are told as `webhook-id`.
        event_type: For example `image.uploaded`.
        url: Where it goes.
        body: The exact bytes that are signed and sent.
        sealed_secrets: The endpoint's secrets, encrypted: the present one, and the one before while that still signs.
        attempt: Counted from 1.
        retry_count: How often it was tried again before.
        cause: What sets it off.
        token: Of the claim; the fence against a sender that was given up on.
    """

    id: int
    tenant_id: UUID
    webhook_id: UUID
    event_id: UUID
    event_type: str
    url: str
    body: bytes = attrs.field(repr=False)
    sealed_secrets: tuple[str, ...] = attrs.field(repr=False)
    attempt: int
    retry_count: int
    cause: AttemptCause
    token: UUID


@attrs.frozen(kw_only=True)
class Attempt:
    """What came of sending a claimed delivery. See `WebhookAttempt`.

    Attributes:
        id: UUIDv7.
        delivery: What was sent.
        started_at: In UTC.
        duration: How long it took.
        outcome: How it ended.
        status_code: Of the response.
        error_code: What went wrong, in one word.
        response: The beginning of the response's body.
        address: The address that was connected to.
        retry_after: What the receiver asks to wait, where it does.
    """

    id: UUID = attrs.field(factory=uuid7)
    delivery: ClaimedDelivery
    started_at: datetime
    duration: timedelta
    outcome: AttemptOutcome
    status_code: int | None = None
    error_code: str | None = None
    response: str | None = attrs.field(default=None, repr=False)
    address: str | None = None
    retry_after: timedelta | None = None


class Recorded(StrEnum):
    """What became of recording an attempt.

    `recorded`: it is on record. `busy`: an open transaction holds the event; try again with the next ones. `lost`: the
    delivery was taken from this sender, or is gone with its endpoint.
    """

    RECORDED = "recorded"
    BUSY = "busy"
    LOST = "lost"


@attrs.frozen(kw_only=True)
class Claim:
    """What came of a claim.

    Attributes:
        deliveries: What is to be sent now.
        after: For the next claim: where the walk over the endpoints goes on.
        wait: After so long something more becomes due, as far as is known; None where nothing does.
    """

    deliveries: list[ClaimedDelivery]
    after: UUID | None
    wait: timedelta | None
