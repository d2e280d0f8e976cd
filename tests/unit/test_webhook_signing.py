"""Signatures are those of Standard Webhooks, and whoever verifies gets what was sent or one kind of error."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Peer

from mindia import WebhookMessage, verify_webhook
from mindia._ids import uuid7
from mindia.delivery import signing
from mindia.domain.webhooks import AttemptCause, ClaimedDelivery
from mindia.errors import InvalidError, WebhookSignatureError

# The vector of the specification's reference libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek"
SENT_AT = datetime(2021, 2, 25, 15, 2, 10, tzinfo=UTC)
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEADERS = {"webhook-id": MESSAGE, "webhook-timestamp": "1614265330", "webhook-signature": SIGNATURE}

OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()


def verify(
    body: Any = BODY,
    headers: Any = HEADERS,
    secrets: Any = SECRET,
    *,
    now: datetime = SENT_AT,
    **more: Any,
) -> WebhookMessage:
    return verify_webhook(body, headers, secrets, now=now, **more)


def delivery(body: bytes = BODY, event_id: UUID | None = None) -> ClaimedDelivery:
    return ClaimedDelivery(
        id=1,
        tenant_id=uuid7(),
        webhook_id=uuid7(),
        event_id=event_id or uuid7(),
        event_type="image.uploaded",
        url="https://example.org/",
        body=body,
        sealed_secrets=(),
        attempt=1,
        retry_count=0,
        cause=AttemptCause.EVENT,
        token=uuid7(),
    )


def test_the_signature_is_that_of_the_specification() -> None:
    secret = signing.secret_of(SECRET)

    assert signing.signature(signing.keyed(secret), message_id=MESSAGE, timestamp=1614265330, body=BODY) == SIGNATURE
    assert signing.shown(secret) == SECRET


def test_the_vector_of_the_specification_is_verified() -> None:
    message = verify()

    assert message == WebhookMessage(id=MESSAGE, sent_at=SENT_AT, payload={"test": 2432232314})
    assert (message.type, message.data) == (None, None)
    assert verify(BODY.decode()) == message


@pytest.mark.parametrize(
    "headers",
    [
        {name.title(): value for name, value in HEADERS.items()},
        {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS.items()},
        {name.encode(): value.encode() for name, value in HEADERS.items()},
        {**HEADERS, "content-type": "application/json"},
        HEADERS | {"webhook-signature": f"v1a,abcd {SIGNATURE}"},
        HEADERS | {"webhook-signature": f"v1,{'A' * 43}= {SIGNATURE}"},
        HEADERS | {"webhook-signature": f" {SIGNATURE} "},
    ],
    ids=["title", "WSGI", "ASGI", "others", "of another version before", "another one before", "white space"],
)
def test_headers_are_taken_as_frameworks_hand_them_out(headers: Mapping[Any, Any]) -> None:
    assert verify(headers=headers).id == MESSAGE


@pytest.mark.parametrize("secrets", [[OTHER, SECRET], (SECRET, OTHER), iter([SECRET]), SECRET.removeprefix("whsec_")])
def test_one_of_several_secrets_is_enough(secrets: Any) -> None:
    assert verify(secrets=secrets).id == MESSAGE


def test_the_peer_verifies_what_is_sent() -> None:
    body = json.dumps({"type": "image.uploaded", "data": {"filename": "Größe 🐈.jpg"}}, ensure_ascii=False).encode()
    secrets = [signing.new_secret(), signing.new_secret()]

    headers = signing.headers(delivery(body), [signing.keyed(secret) for secret in secrets])

    for secret in secrets:
        assert Peer(signing.shown(secret)).verify(body, headers) == json.loads(body)
        message = verify_webhook(body, headers, signing.shown(secret))
        assert (message.type, message.data) == ("image.uploaded", {"filename": "Größe 🐈.jpg"})
        assert headers["webhook-id"] == message.id


def test_what_the_peer_signs_is_verified() -> None:
    text = BODY.decode()
    peer = Peer(SECRET).sign(MESSAGE, SENT_AT, text)

    assert verify(headers=HEADERS | {"webhook-signature": peer}).payload == json.loads(text)


@pytest.mark.parametrize("late", [timedelta(minutes=5), -timedelta(minutes=5)], ids=str)
def test_the_tolerance_is_kept_to_both_sides(late: timedelta) -> None:
    verify(now=SENT_AT + late)
    with pytest.raises(WebhookSignatureError, match="the tolerance is 0:05:00"):
        verify(now=SENT_AT + late * 1.01)
    verify(now=SENT_AT + late * 1.01, tolerance=timedelta(minutes=6))


@pytest.mark.parametrize("missing", HEADERS)
def test_a_missing_header_is_refused(missing: str) -> None:
    with pytest.raises(WebhookSignatureError, match=f"{missing} is missing"):
        verify(headers={name: value for name, value in HEADERS.items() if name != missing})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-timestamp", "yesterday"),
        ("webhook-timestamp", "-1614265330"),
        ("webhook-timestamp", "1614265330.5"),
        ("webhook-timestamp", "٣"),
        ("webhook-timestamp", "9" * 400),
        ("webhook-timestamp", "1614265331"),
        ("webhook-id", "msg_other"),
        ("webhook-id", ""),
        ("webhook-id", "x" * 5000),
        ("webhook-id", "\ud800"),
        ("webhook-id", "a\0b"),
        ("webhook-id", 7),
        ("webhook-id", None),
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,"),
        ("webhook-signature", SIGNATURE.removeprefix("v1,")),
        ("webhook-signature", SIGNATURE.replace("v1", "v2")),
        ("webhook-signature", SIGNATURE[:-1]),
        ("webhook-signature", SIGNATURE.lower()),
        ("webhook-signature", "v1,ü"),
    ],
)
def test_headers_that_are_not_right_are_refused(name: str, value: object) -> None:
    with pytest.raises(WebhookSignatureError):
        verify(headers=HEADERS | {name: value})


@pytest.mark.parametrize(
    "body", [b"", BODY + b" ", "\ud800", None, 7, object(), ["a"]], ids=lambda body: type(body).__name__
)
def test_another_body_is_refused(body: object) -> None:
    with pytest.raises(WebhookSignatureError):
        verify(body)


@pytest.mark.parametrize("body", [b"not JSON", b"\xff\xfe", b"[" * 100_000, b"", b"9" * 10_000])
def test_a_body_that_is_no_json_is_refused_although_it_is_signed(body: bytes) -> None:
    secret = signing.secret_of(SECRET)
    headers = signing.headers(delivery(body), [signing.keyed(secret)], at=SENT_AT)

    with pytest.raises(WebhookSignatureError, match="no JSON"):
        verify(body, headers)


@pytest.mark.parametrize(
    "headers", [None, 7, [("webhook-id", MESSAGE)], "webhook-id", {b"a": 1 << 62}, {b"a": MESSAGE}], ids=repr
)
def test_headers_that_are_no_mapping_are_refused(headers: object) -> None:
    with pytest.raises(WebhookSignatureError):
        verify(headers=headers)


@pytest.mark.parametrize(
    "secrets", [[], "", "whsec_", "whsec_!", "whsec_AAAA", [SECRET, 7], "whsec_" + "A" * 88 + "AAAA"]
)
def test_a_secret_that_is_none_is_the_fault_of_the_receiver(secrets: Any) -> None:
    with pytest.raises(InvalidError) as error:
        verify(secrets=secrets)
    assert "AAAA" not in str(error.value)


@pytest.mark.parametrize("tolerance", [-timedelta(1), 300, None])
def test_a_tolerance_that_is_none_is_the_fault_of_the_receiver(tolerance: Any) -> None:
    with pytest.raises(InvalidError, match="tolerance"):
        verify(tolerance=tolerance)


_junk = st.one_of(st.none(), st.integers(), st.text(), st.binary(), st.floats())
_values = st.one_of(st.sampled_from([*HEADERS.values(), "v1,"]), _junk)
_names = st.one_of(st.sampled_from([*HEADERS, "Webhook-Id"]), _junk)


@given(
    body=st.one_of(st.just(BODY), st.binary(), st.text(), _junk),
    headers=st.one_of(st.dictionaries(_names, _values), st.fixed_dictionaries(dict.fromkeys(HEADERS, _values)), _junk),
)
def test_nothing_but_one_kind_of_error_comes_of_what_is_sent(body: object, headers: object) -> None:
    try:
        message = verify(body, headers)
    except WebhookSignatureError:
        return
    assert message.payload == json.loads(BODY)


@given(st.binary(max_size=200), st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3))
def test_whatever_is_signed_is_verified_with_each_secret_and_with_no_other(body: bytes, secrets: list[bytes]) -> None:
    payload = json.dumps({"type": "a.b", "data": body.hex()}).encode()
    headers = signing.headers(delivery(payload), [signing.keyed(secret) for secret in secrets], at=SENT_AT)

    for secret in secrets:
        message = verify(payload, headers, signing.shown(secret))
        assert message.data == body.hex()
    stranger = bytes(byte ^ 1 for byte in secrets[0])
    if stranger not in secrets:
        with pytest.raises(WebhookSignatureError, match="no signature"):
            verify(payload, headers, signing.shown(stranger))
