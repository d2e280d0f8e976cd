"""Endpoints are kept as users say, and told of the host's own events in the host's own transaction."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import psycopg
import pytest
from tests.conftest import Roles
from tests.integration.library_calls import SETTINGS
from tests.integration.media_rows import Host, rolled_back

import mindia
from mindia import DeliveryStatus, IssuedWebhook, Library, MemoryStorage, Mindia, Settings, Tenant, UserRole, Webhook
from mindia._ids import uuid7
from mindia.delivery import signing
from mindia.delivery.secrets import SecretBox
from mindia.domain.events import BUILT_IN
from mindia.errors import ConflictError, ForbiddenAddressError, InvalidError, MindiaError, NotFoundError
from mindia.testing import samples

URL = "https://93.184.216.34/hook"
"""Of a receiver; nothing is sent there, and its name needs no look-up."""


@attrs.frozen
class OrderShipped:
    number: int
    to: str = "Lisbon"
    at: datetime | None = None


@attrs.frozen
class Undeclared:
    number: int = 0


@pytest.fixture
def app(app: Mindia) -> Mindia:
    app.events.declare("order.shipped", OrderShipped)
    return app


@pytest.fixture
def webhook(library: Library) -> Webhook:
    return library.webhooks.register(URL, events=["*"]).webhook


def sealed(host: Host, webhook: Webhook) -> tuple[str, str | None]:
    """The secrets of an endpoint, as they are stored."""
    with host.transaction():
        row = host.execute(
            "select signing_secret, previous_secret from mindia.webhooks where id = %s", (webhook.id,)
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def opened(stored: str | None, webhook: Webhook, settings: Settings = SETTINGS) -> str:
    assert stored is not None
    return signing.shown(SecretBox(settings).open(stored, tenant_id=webhook.tenant_id, webhook_id=webhook.id))


# Endpoints.


def test_an_endpoint_is_as_it_was_registered_and_its_secret_is_shown_this_once(library: Library, host: Host) -> None:
    issued = library.webhooks.register(
        URL,
        events=["image.*", "order.shipped", "image.*"],
        description="the shop",
        is_ordered=True,
        max_in_flight=3,
        max_per_second=2.5,
        includes_url=True,
    )

    found = library.webhooks.get(issued.webhook.id)
    assert found == issued.webhook
    assert (found.url, found.events, found.description) == (URL, ("image.*", "order.shipped"), "the shop")
    assert (found.is_ordered, found.max_in_flight, found.max_per_second, found.includes_url) == (True, 3, 2.5, True)
    assert (found.status, found.is_active, found.previous_secret_until) == ("active", True, None)
    assert issued.secret.startswith("whsec_")
    assert issued.secret not in repr(issued)
    stored, before = sealed(host, found)
    assert issued.secret.removeprefix("whsec_") not in stored
    assert opened(stored, found) == issued.secret
    assert before is None


def test_a_receiver_may_bring_its_secret(library: Library, host: Host) -> None:
    secret = signing.shown(b"0123456789" * 3)

    issued = library.webhooks.register(URL, events=["*"], secret=secret)

    assert issued.secret == secret
    assert opened(sealed(host, issued.webhook)[0], issued.webhook) == secret


def test_endpoints_are_listed_the_oldest_first(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mindia.services.webhook_dispatcher._PAGE", 2)
    registered = [library.webhooks.register(f"{URL}/{number}", events=["*"]).webhook for number in range(5)]

    assert list(library.webhooks.list()) == registered


def test_what_is_left_out_of_an_update_stays(library: Library) -> None:
    before = library.webhooks.register(URL, events=["image.*"], max_per_second=5, description="a").webhook

    changed = library.webhooks.update(before, events=["*"], max_in_flight=2)
    assert changed == attrs.evolve(before, events=("*",), max_in_flight=2, updated_at=changed.updated_at)
    without = library.webhooks.update(before.id, max_per_second=None, description="", url=URL + "/2", is_ordered=True)
    assert (without.max_per_second, without.description, without.url, without.is_ordered) == (
        None,
        "",
        URL + "/2",
        True,
    )
    assert library.webhooks.get(before.id) == without


def test_pausing_keeps_events_and_resuming_lets_them_go(library: Library, webhook: Webhook) -> None:
    assert library.webhooks.pause(webhook).status == "paused"
    library.webhooks.emit(OrderShipped(1))

    assert library.webhooks.health(webhook).waiting == 1
    assert library.webhooks.resume(webhook).status == "active"
    assert library.webhooks.resume(webhook).status == "active"


def test_a_deleted_endpoint_is_gone_with_all_that_was_to_go_there(library: Library, webhook: Webhook) -> None:
    library.webhooks.emit(OrderShipped(1))

    library.webhooks.delete(webhook)

    assert list(library.webhooks.list()) == []
    assert list(library.webhooks.deliveries()) == []
    with pytest.raises(NotFoundError, match=str(webhook.id)):
        library.webhooks.delete(webhook)


@pytest.mark.parametrize(
    "call",
    [
        lambda webhooks, key: webhooks.get(key),
        lambda webhooks, key: webhooks.update(key, description="a"),
        lambda webhooks, key: webhooks.pause(key),
        lambda webhooks, key: webhooks.resume(key),
        lambda webhooks, key: webhooks.rotate_secret(key),
        lambda webhooks, key: webhooks.test(key),
        lambda webhooks, key: webhooks.health(key),
        lambda webhooks, key: webhooks.recover(key, since=datetime.now(UTC)),
    ],
)
def test_what_is_not_there_is_not_found(library: Library, call: Callable[[Any, Any], object]) -> None:
    with pytest.raises(NotFoundError, match="there is no webhook"):
        call(library.webhooks, uuid7())
    with pytest.raises(NotFoundError, match="there is no webhook"):
        call(library.webhooks, uuid7())


def test_a_rotated_secret_signs_beside_the_one_before_for_a_while(
    library: Library, host: Host, webhook: Webhook
) -> None:
    first = opened(sealed(host, webhook)[0], webhook)

    issued = library.webhooks.rotate_secret(webhook)

    assert issued.secret != first
    assert [opened(each, webhook) for each in sealed(host, webhook)] == [issued.secret, first]
    until = issued.webhook.previous_secret_until
    assert until is not None
    assert timedelta(hours=23) < until - datetime.now(UTC) <= timedelta(hours=24)
    at_once = library.webhooks.rotate_secret(webhook, overlap=timedelta(), secret=first)
    assert at_once.webhook.previous_secret_until is None


def test_secrets_of_a_key_before_are_encrypted_anew(
    application_url: str, roles: Roles, library: Library, host: Host, webhook: Webhook
) -> None:
    library.webhooks.rotate_secret(webhook)
    before = [opened(each, webhook) for each in sealed(host, webhook)]
    settings = attrs.evolve(
        SETTINGS,
        worker_role=roles.worker,
        secret_key="the next one of the host",
        previous_secret_keys=(SETTINGS.secret_key or "",),
    )

    with mindia.connect(application_url, storage=MemoryStorage(), settings=settings) as app:
        assert app.maintenance.renew_webhook_secrets() >= 1
        assert app.maintenance.renew_webhook_secrets() == 0

    alone = attrs.evolve(settings, previous_secret_keys=())
    assert [opened(each, webhook, alone) for each in sealed(host, webhook)] == before


def test_without_a_key_of_the_host_registering_fails_and_says_why(
    application_url: str, roles: Roles, tenant: Tenant
) -> None:
    settings = Settings(worker_role=roles.worker)
    with (
        mindia.connect(application_url, storage=MemoryStorage(), settings=settings) as app,
        pytest.raises(InvalidError, match=r"Settings\.secret_key"),
    ):
        app.library(tenant).webhooks.register(URL, events=["*"])


REFUSED: dict[str, tuple[dict[str, Any], type[MindiaError], str]] = {
    "an unknown event": ({"events": ["imge.uploaded"]}, InvalidError, "image.uploaded"),
    "an unknown wildcard": ({"events": ["imge.*"]}, InvalidError, "there is no event 'imge"),
    "a wildcard within": ({"events": ["*.uploaded"]}, InvalidError, "there is no event"),
    "no event": ({"events": []}, InvalidError, "1 to 100 events"),
    "events as a text": ({"events": "image.uploaded"}, InvalidError, "must be a list"),
    "events of another type": ({"events": [7]}, InvalidError, "there is no event 7"),
    "too many events": ({"events": [f"a.b{n}" for n in range(101)]}, InvalidError, "1 to 100"),
    "no URL": ({"url": "nonsense"}, InvalidError, "nonsense"),
    "a URL of another type": ({"url": 7}, InvalidError, "must be a text"),
    "a long URL": ({"url": URL + "x" * 512}, InvalidError, "limit is 512"),
    "loopback": ({"url": "http://127.0.0.1:8080/"}, ForbiddenAddressError, "127.0.0.1"),
    "a metadata service": ({"url": "http://169.254.169.254/latest"}, ForbiddenAddressError, "169.254"),
    "a short secret": ({"secret": "whsec_AAAA"}, InvalidError, "24 to 64 bytes"),
    "none in flight": ({"max_in_flight": 0}, InvalidError, "max_in_flight"),
    "half of one in flight": ({"max_in_flight": 1.5}, InvalidError, "max_in_flight"),
    "a rate of nothing": ({"max_per_second": 0}, InvalidError, "max_per_second"),
    "a rate that is no number": ({"max_per_second": math.nan}, InvalidError, "max_per_second"),
    "an order that is none": ({"is_ordered": 1}, InvalidError, "is_ordered"),
    "a long description": ({"description": "x" * 1001}, InvalidError, "1000"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_allowed_is_refused_with_the_value_and_the_way_out(
    library: Library, webhook: Webhook, arguments: dict[str, Any], error: type[MindiaError], message: str
) -> None:
    with pytest.raises(error, match=message):
        library.webhooks.register(**({"url": URL, "events": ["*"]} | arguments))
    if "secret" not in arguments:
        with pytest.raises(error, match=message):
            library.webhooks.update(webhook, **arguments)
    assert list(library.webhooks.list()) == [webhook]


@pytest.mark.parametrize("overlap", [-timedelta(1), timedelta(days=31), 24, None])
def test_an_overlap_that_is_none_is_refused(library: Library, webhook: Webhook, overlap: Any) -> None:
    with pytest.raises(InvalidError, match="overlap"):
        library.webhooks.rotate_secret(webhook, overlap=overlap)


@pytest.mark.parametrize("key", ["7", 7, None])
def test_what_is_no_endpoint_is_refused(library: Library, key: Any) -> None:
    with pytest.raises(InvalidError, match="must be a Webhook or its UUID"):
        library.webhooks.pause(key)


# Events of the host's.


def test_an_event_of_the_hosts_goes_to_those_who_listen_in_its_own_transaction(
    app: Mindia, library: Library, tenant: Tenant, host: Host
) -> None:
    listening = library.webhooks.register(URL, events=["order.*"]).webhook
    library.webhooks.register(URL, events=["image.*"])
    user = library.users.create("ada@example.org", role=UserRole.MEMBER)
    at = datetime(2026, 1, 2, tzinfo=UTC)

    with rolled_back(library) as tx:
        tx.webhooks.emit(OrderShipped(0))
    event_id = app.library(tenant, user=user).webhooks.emit(OrderShipped(7, "Pôrto", at))
    with psycopg.connect(host.info.dsn, password=host.info.password or None) as own:
        own.execute("select 1")
        with library.transaction(connection=own) as tx:
            tx.webhooks.emit(OrderShipped(8))
        assert len(list(library.webhooks.deliveries())) == 1

    second, first = library.webhooks.deliveries()
    assert (first.webhook_id, first.event_id, first.event_type) == (listening.id, event_id, "order.shipped")
    assert isinstance(first.payload, dict)
    assert first.payload["data"] == {"number": 7, "to": "Pôrto", "at": at.isoformat()}
    assert first.payload["initiated_by"] == str(user.id)
    assert first.payload["tenant_id"] == str(tenant.id)
    assert isinstance(second.payload, dict)
    assert second.payload["data"]["number"] == 8


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Undeclared(), r"Undeclared is not declared: call app\.events\.declare"),
        ({"number": 7}, "dict is not declared"),
        (OrderShipped(7, "x" * 262_144), "the limit is 262144"),
        (OrderShipped(7, "ü" * 131_072), "the limit is 262144"),
        (OrderShipped(7, "a\0b"), "NUL"),
        (OrderShipped(7, "\ud800"), "surrogate"),
        (OrderShipped(math.nan), "JSON"),  # type: ignore[arg-type]  # that is what is tried
        (OrderShipped(object()), "cannot be sent"),  # type: ignore[arg-type]  # likewise
    ],
    ids=["undeclared", "a dict", "large", "large in bytes", "NUL", "half a character", "NaN", "no JSON"],
)
def test_what_cannot_be_sent_is_refused_when_it_is_emitted(
    library: Library, webhook: Webhook, data: object, message: str
) -> None:
    with pytest.raises(InvalidError, match=message):
        library.webhooks.emit(data)
    assert library.webhooks.health(webhook).waiting == 0


def test_an_event_of_nearly_the_limit_is_taken(library: Library, webhook: Webhook) -> None:
    library.webhooks.emit(OrderShipped(7, "x" * 261_700))

    assert library.webhooks.health(webhook).waiting == 1


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("order", Undeclared, "with dots between"),
        ("Order.shipped", Undeclared, "small letters"),
        ("order..shipped", Undeclared, "small letters"),
        ("order.*", Undeclared, "small letters"),
        ("order." + "x" * 100, Undeclared, "100"),
        (7, Undeclared, "small letters"),
        ("image.loved", Undeclared, r"begin with image\. are Mindia's own"),
        ("order.shipped", Undeclared, "declared already"),
        ("order.sent", OrderShipped, "is the data of 'order.shipped' already"),
        ("order.sent", dict, "attrs class"),
        ("order.sent", Undeclared(), "attrs class"),
    ],
)
@pytest.mark.usefixtures("app")
def test_an_event_that_cannot_be_declared_is_refused(app: Mindia, name: Any, data: Any, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        app.events.declare(name, data)
    assert app.events.names == tuple(sorted([*BUILT_IN, "order.shipped"]))


# Waking who sends.


WAKES: dict[str, Callable[[Library, Webhook], object]] = {
    "an item": lambda library, _: library.media.add(samples.image()),
    "an event": lambda library, _: library.webhooks.emit(OrderShipped(1)),
    "a test": lambda library, webhook: library.webhooks.test(webhook),
    "sending again": lambda library, webhook: library.webhooks.resend(next(library.webhooks.deliveries(webhook))),
    "resuming": lambda library, webhook: library.webhooks.resume(webhook),
}


@pytest.mark.parametrize("call", WAKES.values(), ids=WAKES)
def test_who_waits_for_events_is_woken_at_the_commit_and_nobody_else(
    library: Library, webhook: Webhook, database_url: str, call: Callable[[Library, Webhook], object]
) -> None:
    library.webhooks.emit(OrderShipped(0))
    worker_id = uuid7()
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("listen mindia_webhooks")
        call(library, webhook)
        assert list(owner.notifies(timeout=0)) == []
        owner.execute(
            "insert into mindia.workers (id, hostname, pid, awaits_events) values (%s, 'here', 1, true)", (worker_id,)
        )
        try:
            with library.transaction() as tx:
                call(tx, webhook)
                assert list(owner.notifies(timeout=0)) == []
            assert len(list(owner.notifies(timeout=10, stop_after=1))) == 1
        finally:
            owner.execute("delete from mindia.workers where id = %s", (worker_id,))


# Deliveries.


def test_a_test_goes_to_one_endpoint_whatever_it_has_subscribed_to(library: Library, webhook: Webhook) -> None:
    other = library.webhooks.register(URL, events=["order.*"]).webhook

    delivery = library.webhooks.test(other)

    assert (delivery.webhook_id, delivery.event_type, delivery.delivery_status) == (other.id, "webhook.test", "pending")
    assert list(library.webhooks.deliveries()) == [delivery]
    assert library.webhooks.delivery(delivery.id) == delivery
    assert library.webhooks.attempts(delivery) == ()
    assert list(library.webhooks.deliveries(webhook)) == []
    library.webhooks.pause(other)
    with pytest.raises(ConflictError, match="is paused: resume it first"):
        library.webhooks.test(other)


def test_deliveries_are_listed_the_newest_first_by_endpoint_and_by_status(
    library: Library, webhook: Webhook, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mindia.services.webhook_dispatcher._PAGE", 2)
    other = library.webhooks.register(URL, events=["order.*"]).webhook
    ids = [library.webhooks.emit(OrderShipped(number)) for number in range(5)]
    with host.transaction():
        host.execute(
            "update mindia.webhook_events set delivery_status = 'failed' where event_id = %s and webhook_id = %s",
            (ids[1], other.id),
        )

    assert [each.event_id for each in library.webhooks.deliveries(webhook)] == ids[::-1]
    everything = list(library.webhooks.deliveries())
    assert sorted(each.event_id for each in everything) == sorted(ids * 2)
    assert everything == sorted(everything, key=lambda each: (each.created_at, each.id), reverse=True)
    assert [each.event_id for each in library.webhooks.deliveries(status="failed")] == [ids[1]]
    assert len(list(library.webhooks.deliveries(other, status=DeliveryStatus.PENDING))) == 4
    with pytest.raises(InvalidError, match="status must be one of"):
        library.webhooks.deliveries(status="lost")


def test_one_delivery_is_sent_again_and_what_failed_is_recovered(
    library: Library, webhook: Webhook, host: Host
) -> None:
    library.webhooks.emit(OrderShipped(1))
    begun = datetime.now(UTC)
    for number in (2, 3, 4):
        library.webhooks.emit(OrderShipped(number))
    fourth, third, second, first = library.webhooks.deliveries(webhook)
    with host.transaction():
        host.execute(
            "update mindia.webhook_events set delivery_status = 'failed', retry_count = 9, attempt_count = 10, "
            "next_attempt_at = now() + interval '1 day' where id = any(%s)",
            ([first.id, second.id, third.id],),
        )
        host.execute("update mindia.webhook_events set delivery_status = 'delivered' where id = %s", (fourth.id,))

    assert library.webhooks.recover(webhook, since=begun) == 2
    assert library.webhooks.recover(webhook, since=begun) == 0
    again = library.webhooks.resend(fourth)
    assert (again.event_id, again.delivery_status, again.retry_count) == (fourth.event_id, "pending", 0)
    assert again.next_attempt_at <= datetime.now(UTC)
    found = library.webhooks.delivery(second.id)
    assert (found.delivery_status, found.retry_count, found.attempt_count) == ("pending", 0, 10)
    assert library.webhooks.health(webhook).failed == 1
    for key in (10**9, 2**63, 10**5000):
        with pytest.raises(NotFoundError, match="there is no delivery"):
            library.webhooks.resend(key)
    with pytest.raises(InvalidError, match="time zone"):
        library.webhooks.recover(webhook, since=datetime(2026, 1, 1))  # noqa: DTZ001 - that is what is tried


def test_health_tells_how_an_endpoint_does(library: Library, webhook: Webhook, host: Host) -> None:
    library.webhooks.emit(OrderShipped(1))
    (delivery,) = library.webhooks.deliveries(webhook)
    now = datetime.now(UTC)
    with host.transaction():
        for number, (ago, outcome, took) in enumerate(
            [(50, "delivered", 9000), (3, "delivered", 20), (2, "delivered", 40), (1, "rejected", 7000)]
        ):
            host.execute(
                "insert into mindia.webhook_attempts (tenant_id, id, webhook_event_id, webhook_id, attempt, cause, "
                "started_at, duration_ms, outcome, status_code, response) "
                "values (%s, %s, %s, %s, %s, 'retry', %s, %s, %s, 503, 'no')",
                (
                    library.tenant_id,
                    uuid7(),
                    delivery.id,
                    webhook.id,
                    number + 1,
                    now - timedelta(hours=ago),
                    took,
                    outcome,
                ),
            )

    health = library.webhooks.health(webhook)

    assert (health.attempts, health.delivered, health.success_rate) == (3, 2, 2 / 3)
    assert (health.latency_p50, health.latency_p95) == (timedelta(milliseconds=20), timedelta(milliseconds=40))
    assert (health.waiting, health.oldest_waiting_at, health.failed) == (1, delivery.created_at, 0)
    assert health.last_success_at == now - timedelta(hours=2)
    assert health.last_failure == library.webhooks.attempts(delivery)[-1]
    assert health.last_failure is not None
    assert (health.last_failure.status_code, health.last_failure.response) == (503, "no")
    fresh = library.webhooks.health(library.webhooks.register(URL, events=["*"]).webhook)
    assert (fresh.success_rate, fresh.latency_p50, fresh.last_failure, fresh.waiting) == (None, None, None, 0)
    with pytest.raises(InvalidError, match="window"):
        library.webhooks.health(webhook, window=timedelta())


def test_what_is_registered_is_told_of_items(library: Library, webhook: Webhook) -> None:
    item = library.media.add(samples.image(), filename="a.jpg")

    (delivery,) = library.webhooks.deliveries(webhook)
    assert isinstance(delivery.payload, dict)
    assert delivery.payload["data"]["media_id"] == str(item.id)
    assert json.loads(json.dumps(delivery.payload)) == delivery.payload
    assert isinstance(library.webhooks.rotate_secret(webhook), IssuedWebhook)
