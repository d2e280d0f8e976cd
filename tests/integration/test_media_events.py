"""Endpoints are told what happened to the items of their tenant, if it happened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import attrs
import pytest
from tests.conftest import Roles
from tests.integration.library_calls import SETTINGS
from tests.integration.media_rows import Host, register, rolled_back

import mindia
from mindia import Library, MemoryStorage, Mindia, Tenant
from mindia._ids import uuid7
from mindia.errors import (
    NotFoundError,
    StagedObjectExpiredError,
)
from mindia.services import signed_urls
from mindia.testing import samples


@pytest.fixture
def other(app: Mindia) -> Library:
    """Another tenant's library."""
    return app.library(app.tenants.create("Globex"))


def told(host: Host, library: Library) -> list[tuple[Any, ...]]:
    """What is on record for the endpoints of the tenant, in the order of its making."""
    with host.transaction():
        return host.execute(
            """select webhook_id, event_id, event_type, payload, delivery_status::text, retry_count, tenant_id
            from mindia.webhook_events where tenant_id = %s order by id""",
            (library.tenant_id,),
        ).fetchall()


@pytest.mark.parametrize(
    ("events", "uploaded", "deleted"),
    [
        (["image.uploaded"], True, False),
        (["image.deleted"], False, True),
        (["image.*"], True, True),
        (["*"], True, True),
        (["video.uploaded", "image.uploaded"], True, False),
        (["*", "image.*", "image.uploaded"], True, True),
        (["video.*"], False, False),
        (["image"], False, False),
        (["image."], False, False),
        (["image.uploaded.*"], False, False),
        (["*.uploaded"], False, False),
        (["IMAGE.*"], False, False),
        ([], False, False),
    ],
    ids=str,
)
def test_an_endpoint_is_told_what_it_has_subscribed_to(
    library: Library, host: Host, events: list[str], uploaded: bool, deleted: bool
) -> None:
    webhook_id = register(host, library, events)

    item = library.media.add(samples.image(), filename="cat.jpg")
    library.media.delete(item)

    expected = [name for name, wanted in (("image.uploaded", uploaded), ("image.deleted", deleted)) if wanted]
    assert [(row[0], row[2]) for row in told(host, library)] == [(webhook_id, name) for name in expected]


def test_no_one_else_is_told(library: Library, other: Library, host: Host) -> None:
    register(host, other, ["*"])

    library.media.delete(library.media.add(samples.image()))

    assert told(host, library) == []
    assert told(host, other) == []


def test_events_for_an_endpoint_that_is_not_active_wait_for_it(library: Library, host: Host) -> None:
    webhook_id = register(host, library, ["*"], active=False)

    library.media.add(samples.image())

    assert [(event[0], event[4]) for event in told(host, library)] == [(webhook_id, "pending")]


def test_what_is_signed_is_the_text_that_was_written(library: Library, host: Host) -> None:
    register(host, library, ["*"])
    item = library.media.add(samples.image(), filename='Größe "1" 🐈.jpg')

    with host.transaction():
        rows = host.execute(
            "select body, payload from mindia.webhook_events where tenant_id = %s", (library.tenant_id,)
        ).fetchall()

    ((body, payload),) = rows
    assert json.loads(body) == payload
    assert list(json.loads(body)) == ["id", "type", "timestamp", "tenant_id", "initiated_by", "data"]
    assert payload["data"]["filename"] == item.filename


def test_a_signed_url_is_there_for_those_who_asked_for_it(
    application_url: str, roles: Roles, tenant: Tenant, library: Library, host: Host
) -> None:
    plain, asked = register(host, library, ["*"]), register(host, library, ["*"])
    with host.transaction():
        host.execute("update mindia.webhooks set includes_url = true where id = %s", (asked,))

    item = library.media.add(samples.image(), filename="a.jpg")
    library.media.update(item, description="of the sea")
    copied = library.media.copy(item)
    library.media.delete(item)
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker, public_url=None)
    with mindia.connect(application_url, storage=MemoryStorage(), settings=settings) as without:
        without.library(tenant).media.add(samples.image(color="navy"))

    urls: dict[UUID, list[str | None]] = {plain: [], asked: []}
    for webhook_id, _, _, payload, *_ in told(host, library):
        urls[webhook_id].append(payload["data"].get("url"))
    assert urls[plain] == [None] * 5
    assert urls[asked][3:] == [None, None]
    for url, media_id in zip(urls[asked], [item.id, item.id, copied.id], strict=False):
        assert url is not None
        assert signed_urls.verify(url, settings=SETTINGS).media_id == media_id


@pytest.mark.parametrize(
    ("make", "filename", "kind", "content_type", "facts"),
    [
        (samples.image, "a.jpg", "image", "image/jpeg", ["width", "height"]),
        (samples.video, "b.mp4", "video", "video/mp4", ["duration", "width", "height"]),
        (samples.wav, "c.wav", "audio", "audio/wav", ["duration", "bitrate", "sample_rate", "channels"]),
        (samples.pdf, "d.pdf", "document", "application/pdf", ["page_count"]),
    ],
)
def test_an_event_says_what_happened_to_which_item_and_when(
    library: Library,
    host: Host,
    make: Callable[[], bytes],
    filename: str,
    kind: str,
    content_type: str,
    facts: list[str],
) -> None:
    content = make()
    webhook_id = register(host, library, ["*"])

    before = datetime.now(UTC)
    item = library.media.add(content, filename=filename)
    library.media.delete(item)
    after = datetime.now(UTC)

    events = told(host, library)
    assert [event[2] for event in events] == [f"{kind}.uploaded", f"{kind}.deleted"]
    for event in events:
        found_webhook, event_id, event_type, payload, status, retry_count, tenant_id = event
        assert (found_webhook, status, retry_count, tenant_id) == (webhook_id, "pending", 0, library.tenant_id)
        assert payload.keys() == {"id", "type", "timestamp", "tenant_id", "initiated_by", "data"}
        assert payload["tenant_id"] == str(library.tenant_id)
        assert payload["initiated_by"] is None
        assert UUID(payload["id"]) == event_id
        assert event_id.version == 7
        assert payload["type"] == event_type
        timestamp = datetime.fromisoformat(payload["timestamp"])
        assert timestamp.utcoffset() == timedelta()
        assert before <= timestamp <= after
        assert payload["data"] == {
            "media_id": str(item.id),
            "kind": kind,
            "filename": filename,
            "content_type": content_type,
            "file_size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            **{name: getattr(item, name) for name in facts},
        }
    assert events[0][1] != events[1][1]


def test_all_endpoints_are_told_of_the_same_event(library: Library, host: Host) -> None:
    webhooks = {register(host, library, [pattern]) for pattern in ("*", "image.*", "image.uploaded")}

    library.media.add(samples.image())

    events = told(host, library)
    assert {event[0] for event in events} == webhooks
    assert len(events) == 3
    assert len({event[1] for event in events}) == 1
    assert all(event[3] == events[0][3] for event in events)


def test_an_event_is_written_with_its_item_or_not_at_all(library: Library, host: Host) -> None:
    register(host, library, ["*"])

    with rolled_back(library) as tx:
        tx.media.add(samples.image())
    assert told(host, library) == []

    with library.transaction() as tx:
        item = tx.media.add(samples.image())
        assert told(host, library) == []
    assert [event[2] for event in told(host, library)] == ["image.uploaded"]

    with rolled_back(library) as tx:
        tx.media.delete(item)
    assert [event[2] for event in told(host, library)] == ["image.uploaded"]


def test_what_fails_is_told_to_no_one(library: Library, host: Host) -> None:
    register(host, library, ["*"])
    staged = library.media.stage(samples.image())
    library.media.add(staged)

    with pytest.raises(StagedObjectExpiredError):
        library.media.add(staged)
    with pytest.raises(NotFoundError):
        library.media.delete(uuid7())

    assert len(told(host, library)) == 1
