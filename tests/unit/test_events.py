"""Events say what happened in the form that the docs tell, field by field."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import attrs
import pytest

from mindia import ProcessingStatus, Video
from mindia._ids import uuid7
from mindia.domain.events import BUILT_IN, MEDIA_DATA, Event, MediaData, MediaEvent, WebhookDisabled, WebhookTest
from mindia.repositories.events import patterns, payload
from mindia.services.event_types import EventTypes

_PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text("utf-8")


def video() -> Video:
    now = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    return Video(
        id=uuid7(),
        tenant_id=uuid7(),
        filename="b.mp4",
        original_filename="b.mp4",
        content_type="video/mp4",
        file_size=7,
        sha256="0" * 64,
        s3_key="originals/b",
        uploaded_at=now,
        updated_at=now,
        duration=1.5,
        width=640,
        height=360,
        processing_status=ProcessingStatus.FAILED,
    )


def test_an_event_of_a_video_that_failed_says_why() -> None:
    item = video()
    event = MediaEvent.of(
        item, "failed", id=uuid7(), occurred_at=item.updated_at, initiated_by=None, reason="there is no such codec"
    )

    assert event.type in BUILT_IN
    assert json.loads(payload(event)) == {
        "id": str(event.id),
        "type": "video.failed",
        "timestamp": "2026-01-02T03:04:05.678901+00:00",
        "tenant_id": str(item.tenant_id),
        "initiated_by": None,
        "data": {
            "media_id": str(item.id),
            "kind": "video",
            "filename": "b.mp4",
            "content_type": "video/mp4",
            "file_size": 7,
            "sha256": "0" * 64,
            "duration": 1.5,
            "width": 640,
            "height": 360,
            "reason": "there is no such codec",
        },
    }


def test_the_text_ends_with_the_end_of_data_so_that_a_url_can_be_put_there() -> None:
    event = Event(
        id=uuid7(),
        type="webhook.test",
        tenant_id=uuid7(),
        occurred_at=datetime.now(UTC),
        initiated_by=uuid7(),
        data=WebhookTest(webhook_id=uuid7()),
    )
    text = payload(event)

    with_url = text[:-2] + ',"url":"https://example.org/"}}'

    assert json.loads(with_url)["data"]["url"] == "https://example.org/"
    assert UUID(json.loads(text)["initiated_by"]) == event.initiated_by


@pytest.mark.parametrize(
    "data", [*MEDIA_DATA.values(), WebhookDisabled, WebhookTest], ids=lambda data: str(data.__name__)
)
def test_every_field_is_in_the_docs(data: type) -> None:
    rows = {name for line in _PAGE.splitlines() if line.startswith("|") for name in re.findall(r"`(\w+)`", line)}

    assert attrs.fields_dict(data).keys() <= rows


def test_every_event_is_in_the_docs() -> None:
    told = set(re.findall(r"`(\w+\.\w+)`", _PAGE))
    of_all_kinds = {
        name.replace("image", str(kind)) for name in told if name.startswith("image.") for kind in MEDIA_DATA
    }

    assert set(BUILT_IN) <= told | of_all_kinds
    assert EventTypes().names == tuple(sorted(BUILT_IN))
    assert {data for data in BUILT_IN.values() if issubclass(data, MediaData)} == set(MEDIA_DATA.values())


def test_an_endpoint_means_an_event_by_its_name_or_by_any_wildcard_above_it() -> None:
    assert patterns("image.uploaded") == ["*", "image.*", "image.uploaded"]
    assert patterns("order.line.added") == ["*", "order.*", "order.line.*", "order.line.added"]
