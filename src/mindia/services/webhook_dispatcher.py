"""Webhooks: `library.webhooks`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TypeVar
from uuid import UUID

from mindia._handles import Handle
from mindia._ids import uuid7
from mindia.db.session import Session
from mindia.delivery import signing
from mindia.domain.events import Event, WebhookTest
from mindia.domain.webhooks import (
    DeliveryStatus,
    IssuedWebhook,
    Webhook,
    WebhookAttempt,
    WebhookEvent,
    WebhookHealth,
)
from mindia.errors import ConflictError, InvalidError, NotFoundError
from mindia.repositories import events as outbox
from mindia.repositories import webhook_log
from mindia.repositories import webhooks as repository
from mindia.repositories.webhooks import NewWebhook
from mindia.services._named import named, shown
from mindia.services._webhooks import (
    checked_description,
    checked_flag,
    checked_in_flight,
    checked_rate,
    delivery_id_of,
    id_of,
)
from mindia.services.context import TenantContext

T = TypeVar("T")

MAX_EVENT_BYTES = 256 * 1024
"""Of an event as it is sent; Standard Webhooks advises to stay far below."""

_PAGE = 100
_MAX_URL = 512
_MAX_OVERLAP = timedelta(days=30)


class _Unchanged(Enum):
    """Stands for what stays as it is; None means something for some of it."""

    AS_IT_IS = "as it is"


class WebhookDispatcher(Handle):
    """Keeps the endpoints of one tenant, and tells them of events. Thread-safe, unless it is that of a transaction.

    Through a library that is bound to a user, every call takes an admin, but for `emit`, which takes a member. Workers
    deliver: see `Mindia.worker`.
    """

    def __init__(self, context: TenantContext) -> None:
        self._context = context

    def register(
        self,
        url: str,
        *,
        events: Iterable[str],
        description: str = "",
        secret: str | None = None,
        is_ordered: bool = False,
        max_in_flight: int = 8,
        max_per_second: float | None = None,
        includes_url: bool = False,
    ) -> IssuedWebhook:
        """Add an endpoint. Its signing secret is in what is returned, and nowhere else.

        Args:
            url: Where events are sent, at most 512 characters; `https` or, where the settings allow it, `http`. An
                address in a private network is refused unless `Settings.webhook_allow_private` lets it through.
            events: Which: names (`image.uploaded`) and wildcards (`image.*`, `*`). See `app.events.names`.
            description: For people, at most 1,000 characters.
            secret: Instead of a new one, for receivers that have one already: `whsec_` and base64 of 24 to 64 bytes.
            is_ordered: Send one event after the other, in their order, each when the one before was delivered or given
                up on. One that fails holds up those behind it.
            max_in_flight: How many are sent at once, at most.
            max_per_second: How many are sent in a second, at most; None is no limit.
            includes_url: Whether events about items have a signed URL of their bytes, good for
                `Settings.webhook_url_lifetime`.

        Raises:
            InvalidError: An argument is not allowed, or a setting is missing: `secret_key`, which secrets are encrypted
                with; for `includes_url` also `public_url`.
            ForbiddenAddressError: The URL leads where nothing may be sent.
            PermissionDeniedError: The user of the library is no admin.
            MissingExtraError: cryptography is not installed.
        """
        context, webhook_id = self._context, uuid7()
        raw = signing.new_secret() if secret is None else signing.secret_of(secret)
        context.secret_box.check()
        new = NewWebhook(
            id=webhook_id,
            url=self._checked_url(url),
            events=context.events.checked(events),
            sealed=context.secret_box.seal(raw, tenant_id=context.tenant_id, webhook_id=webhook_id),
            description=checked_description(description),
            is_ordered=checked_flag(is_ordered, argument="is_ordered"),
            max_in_flight=checked_in_flight(max_in_flight),
            max_per_second=checked_rate(max_per_second),
            includes_url=self._checked_includes_url(includes_url),
        )

        def work(session: Session) -> Webhook:
            if session.repeated and (made := repository.get(session, context.tenant_id, webhook_id)):
                return made
            return repository.create(session, context.tenant_id, new)

        return IssuedWebhook(webhook=context.as_admin.run(work), secret=signing.shown(raw))

    def get(self, webhook_id: UUID) -> Webhook:
        """Return an endpoint.

        Raises:
            NotFoundError: There is none, or it is another tenant's.
            PermissionDeniedError: The user of the library is no admin.
        """
        return self._changed(webhook_id, repository.get)

    def list(self) -> Iterator[Webhook]:
        """Yield all endpoints, the oldest first.

        Raises:
            PermissionDeniedError: The user of the library is no admin.
        """
        tenant_id = self._context.tenant_id
        after: UUID | None = None
        while True:
            page = self._context.as_admin.run(
                lambda session, after=after: repository.page(session, tenant_id, after=after, limit=_PAGE),  # type: ignore[misc]  # mypy cannot type the default
                single=True,
            )
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].id

    def update(
        self,
        webhook: Webhook | UUID,
        *,
        url: str | _Unchanged = _Unchanged.AS_IT_IS,
        events: Iterable[str] | _Unchanged = _Unchanged.AS_IT_IS,
        description: str | _Unchanged = _Unchanged.AS_IT_IS,
        is_ordered: bool | _Unchanged = _Unchanged.AS_IT_IS,
        max_in_flight: int | _Unchanged = _Unchanged.AS_IT_IS,
        max_per_second: float | _Unchanged | None = _Unchanged.AS_IT_IS,
        includes_url: bool | _Unchanged = _Unchanged.AS_IT_IS,
    ) -> Webhook:
        """Change an endpoint; what is left out stays. What waits for it goes to the new URL. See `register`.

        Args:
            webhook: The endpoint or its id.
            url: As for `register`.
            events: As for `register`; from the next event on.
            description: As for `register`.
            is_ordered: As for `register`.
            max_in_flight: As for `register`.
            max_per_second: As for `register`; None takes the limit away.
            includes_url: As for `register`.

        Raises:
            InvalidError: An argument is not allowed, or a setting is missing.
            ForbiddenAddressError: The URL leads where nothing may be sent.
            NotFoundError: There is no such endpoint.
            PermissionDeniedError: The user of the library is no admin.
        """
        rate = checked_rate(max_per_second) if not isinstance(max_per_second, _Unchanged) else max_per_second
        changes: dict[str, object] = {
            "url": _unless_unchanged(url, self._checked_url),
            "events": _unless_unchanged(events, lambda given: [*self._context.events.checked(given)]),
            "description": _unless_unchanged(description, checked_description),
            "is_ordered": _unless_unchanged(is_ordered, lambda flag: checked_flag(flag, argument="is_ordered")),
            "max_in_flight": _unless_unchanged(max_in_flight, checked_in_flight),
            "max_per_second": math.nan if rate is None else _unless_unchanged(rate, float),
            "includes_url": _unless_unchanged(includes_url, self._checked_includes_url),
        }
        return self._changed(
            id_of(webhook), lambda session, tenant_id, key: repository.update(session, tenant_id, key, changes)
        )

    def pause(self, webhook: Webhook | UUID) -> Webhook:
        """Send nothing to an endpoint until it is resumed. Its events are kept and wait.

        Raises:
            NotFoundError: There is no such endpoint.
            PermissionDeniedError: The user of the library is no admin.
        """
        return self._changed(id_of(webhook), repository.pause)

    def resume(self, webhook: Webhook | UUID) -> Webhook:
        """Send to an endpoint again, be it paused, disabled, or left alone for a while because it fails.

        Raises:
            NotFoundError: There is no such endpoint.
            PermissionDeniedError: The user of the library is no admin.
        """
        return self._changed(id_of(webhook), repository.resume)

    def delete(self, webhook: Webhook | UUID) -> None:
        """Delete an endpoint, with its deliveries and what is known of them.

        Raises:
            NotFoundError: There is no such endpoint.
            PermissionDeniedError: The user of the library is no admin.
        """
        webhook_id = id_of(webhook)

        def work(session: Session) -> bool:
            return repository.delete(session, self._context.tenant_id, webhook_id) or session.repeated

        if not self._context.as_admin.run(work):
            raise _not_found(webhook_id)

    def rotate_secret(
        self, webhook: Webhook | UUID, *, secret: str | None = None, overlap: timedelta = timedelta(hours=24)
    ) -> IssuedWebhook:
        """Give an endpoint another signing secret, which is in what is returned, and nowhere else.

        Args:
            webhook: The endpoint or its id.
            secret: As for `register`.
            overlap: For how long the secret before signs as well, so that its receiver can change over at any time:
                nothing to 30 days.

        Raises:
            InvalidError: An argument is not allowed, or `Settings.secret_key` is missing.
            NotFoundError: There is no such endpoint.
            PermissionDeniedError: The user of the library is no admin.
            MissingExtraError: cryptography is not installed.
        """
        if not isinstance(overlap, timedelta) or not timedelta() <= overlap <= _MAX_OVERLAP:
            raise InvalidError(
                f"overlap must be a timedelta of nothing to {_MAX_OVERLAP.days} days, not {shown(overlap)}"
            )
        webhook_id, context = id_of(webhook), self._context
        raw = signing.new_secret() if secret is None else signing.secret_of(secret)
        sealed = context.secret_box.seal(raw, tenant_id=context.tenant_id, webhook_id=webhook_id)
        changed = self._changed(
            webhook_id,
            lambda session, tenant_id, key: repository.rotate(session, tenant_id, key, sealed=sealed, overlap=overlap),
        )
        return IssuedWebhook(webhook=changed, secret=signing.shown(raw))

    def emit(self, data: object) -> UUID:
        """Tell all endpoints that listen of an event of the host's; in a transaction, if that commits.

        Args:
            data: A value of a class that was declared with `app.events.declare`.

        Returns:
            The id of the event, which receivers are told as `webhook-id`.

        Raises:
            InvalidError: The class is not declared, or the event has more than 256 KiB.
            PermissionDeniedError: The user of the library is a viewer.
        """
        context = self._context
        name, plain = context.events.encoded(data)
        event = self._event(name, plain)
        size = len(outbox.payload(event).encode())
        if size > MAX_EVENT_BYTES:
            raise InvalidError(
                f"the event {name!r} has {size} bytes; the limit is {MAX_EVENT_BYTES}: send an id, and let receivers "
                "fetch the rest"
            )
        context.as_member.run(lambda session: outbox.emit(session, context.tenant_id, event), single=True)
        return event.id

    def test(self, webhook: Webhook | UUID) -> WebhookEvent:
        """Send an event `webhook.test` to an endpoint, once, whatever it has subscribed to.

        Returns:
            The delivery; `attempts` tells how it went, once a worker has sent it.

        Raises:
            ConflictError: The endpoint is paused or disabled.
            NotFoundError: There is no such endpoint.
            PermissionDeniedError: The user of the library is no admin.
        """
        found = self.get(id_of(webhook))
        if not found.is_active:
            raise ConflictError(f"webhook {found.id} is {found.status}: resume it first, with library.webhooks.resume")
        event = self._event("webhook.test", WebhookTest(webhook_id=found.id))
        return self._changed(
            found.id,
            lambda session, tenant_id, key: webhook_log.test(session, tenant_id, key, event),
        )

    def deliveries(
        self, webhook: Webhook | UUID | None = None, *, status: DeliveryStatus | str | None = None
    ) -> Iterator[WebhookEvent]:
        """Yield deliveries, the newest first, page by page. They are kept for `Settings.webhook_retention`.

        Args:
            webhook: Only those to this endpoint.
            status: Only those that stand there: `pending`, `delivered`, `failed`.

        Raises:
            InvalidError: There is no such status.
            PermissionDeniedError: The user of the library is no admin.
        """
        wanted = None if status is None else named(status, DeliveryStatus, argument="status")
        webhook_id = None if webhook is None else id_of(webhook)
        return self._deliveries(webhook_id, wanted)

    def delivery(self, delivery_id: int) -> WebhookEvent:
        """Return a delivery.

        Raises:
            NotFoundError: There is none, or it is another tenant's.
            PermissionDeniedError: The user of the library is no admin.
        """
        return self._found_delivery(delivery_id, webhook_log.get)

    def attempts(self, delivery: WebhookEvent | int) -> Sequence[WebhookAttempt]:
        """Return the attempts of a delivery, the first one first.

        Raises:
            NotFoundError: There is no such delivery.
            PermissionDeniedError: The user of the library is no admin.
        """
        key, tenant_id = delivery_id_of(delivery), self._context.tenant_id
        found = self._context.as_admin.run(lambda session: webhook_log.attempts(session, tenant_id, key), single=True)
        if not found:
            self.delivery(key)
        return tuple(found)

    def resend(self, delivery: WebhookEvent | int) -> WebhookEvent:
        """Send a delivery again, whatever became of it, with all its retries and the same `webhook-id`.

        Raises:
            NotFoundError: There is no such delivery.
            PermissionDeniedError: The user of the library is no admin.
        """
        return self._found_delivery(delivery_id_of(delivery), webhook_log.resend)

    def recover(self, webhook: Webhook | UUID, *, since: datetime) -> int:
        """Send again all that was given up on of what happened since a time, and return how many events that are.

        Args:
            webhook: The endpoint or its id.
            since: With a time zone.

        Raises:
            InvalidError: `since` has no time zone.
            NotFoundError: There is no such endpoint.
            PermissionDeniedError: The user of the library is no admin.
        """
        if not isinstance(since, datetime) or since.tzinfo is None:
            raise InvalidError(f"since must be a datetime with a time zone, not {shown(since)}")
        webhook_id, tenant_id = id_of(webhook), self._context.tenant_id
        recovered = self._context.as_admin.run(
            lambda session: webhook_log.recover(session, tenant_id, webhook_id, since=since), single=True
        )
        if not recovered:
            self.get(webhook_id)
        return recovered

    def health(self, webhook: Webhook | UUID, *, window: timedelta = timedelta(hours=24)) -> WebhookHealth:
        """Return how an endpoint does.

        Args:
            webhook: The endpoint or its id.
            window: How far back attempts are counted: the latest 10,000 at most.

        Raises:
            InvalidError: `window` is not longer than nothing.
            NotFoundError: There is no such endpoint.
            PermissionDeniedError: The user of the library is no admin.
        """
        if not isinstance(window, timedelta) or not timedelta() < window <= timedelta(days=3660):
            raise InvalidError(f"window must be a timedelta that is longer than nothing, not {shown(window)}")
        since = datetime.now(UTC) - window
        return self._changed(
            id_of(webhook), lambda session, tenant_id, key: webhook_log.health(session, tenant_id, key, since=since)
        )

    def _deliveries(self, webhook_id: UUID | None, status: DeliveryStatus | None) -> Iterator[WebhookEvent]:
        tenant_id = self._context.tenant_id
        before: WebhookEvent | None = None
        while True:
            page = self._context.as_admin.run(
                lambda session, before=before: webhook_log.page(  # type: ignore[misc]  # mypy cannot type the default
                    session, tenant_id, webhook_id=webhook_id, status=status, before=before, limit=_PAGE
                ),
                single=True,
            )
            yield from page
            if len(page) < _PAGE:
                return
            before = page[-1]

    def _event(self, name: str, data: object) -> Event:
        return Event(
            id=uuid7(),
            type=name,
            tenant_id=self._context.tenant_id,
            occurred_at=datetime.now(UTC),
            initiated_by=self._context.initiator,
            data=data,
        )

    def _changed(self, webhook_id: UUID, work: Callable[[Session, UUID, UUID], T | None]) -> T:
        tenant_id = self._context.tenant_id
        found = self._context.as_admin.run(lambda session: work(session, tenant_id, webhook_id), single=True)
        if found is None:
            raise _not_found(webhook_id)
        return found

    def _found_delivery(
        self, delivery_id: int, work: Callable[[Session, UUID, int], WebhookEvent | None]
    ) -> WebhookEvent:
        key, tenant_id = delivery_id_of(delivery_id), self._context.tenant_id
        found = self._context.as_admin.run(lambda session: work(session, tenant_id, key), single=True)
        if found is None:
            raise NotFoundError(f"there is no delivery {key}")
        return found

    def _checked_url(self, url: str) -> str:
        if not isinstance(url, str):
            raise InvalidError(f"url must be a text, not {type(url).__name__}")
        if len(url) > _MAX_URL:
            raise InvalidError(f"the URL has {len(url)} characters; the limit is {_MAX_URL}")
        self._context.address_guard.check(url)
        return url

    def _checked_includes_url(self, given: bool) -> bool:  # noqa: FBT001 - a value that is checked
        wanted = checked_flag(given, argument="includes_url")
        if wanted and self._context.settings.public_url is None:
            raise InvalidError(
                "includes_url needs Settings.public_url: the address below which mindia.serving.MediaFiles serves media"
            )
        return wanted


def _not_found(webhook_id: UUID) -> NotFoundError:
    return NotFoundError(f"there is no webhook {webhook_id}")


def _unless_unchanged(given: T | _Unchanged, checked: Callable[[T], object]) -> object:
    return None if isinstance(given, _Unchanged) else checked(given)
