"""Signatures of webhooks, as Standard Webhooks has them: https://www.standardwebhooks.com.

What is signed is `id.timestamp.body`, with HMAC-SHA256; the header has a list of signatures, one for each secret.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from mindia.domain.media import JsonValue
from mindia.domain.webhooks import ClaimedDelivery
from mindia.errors import InvalidError, WebhookSignatureError

PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)
_NEW_SECRET_BYTES = 32

_ID, _TIMESTAMP, _SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"

_MAX_HEADER = 4096
_MAX_SIGNATURES = 32


@attrs.frozen(kw_only=True)
class WebhookMessage:
    """What a receiver has been sent, with a signature that is right.

    Attributes:
        id: The same for each try to deliver it: a receiver that has seen it has nothing to do.
        sent_at: When it was sent, in UTC; of this try.
        payload: The body, as JSON.
    """

    id: str
    sent_at: datetime
    payload: JsonValue = attrs.field(hash=False)

    @property
    def type(self) -> str | None:
        """What happened: `image.uploaded`; None where the body has no `type`."""
        found = self.payload.get("type") if isinstance(self.payload, Mapping) else None
        return found if isinstance(found, str) else None

    @property
    def data(self) -> JsonValue:
        """What it happened to; None where the body has no `data`."""
        return self.payload.get("data") if isinstance(self.payload, Mapping) else None


def new_secret() -> bytes:
    """Return a secret that nobody knows."""
    return secrets.token_bytes(_NEW_SECRET_BYTES)


def shown(secret: bytes) -> str:
    """Return a secret as people and receivers have it."""
    return PREFIX + base64.b64encode(secret).decode()


def secret_of(text: str) -> bytes:
    """Return the bytes of a secret: `whsec_` and base64 of 24 to 64 bytes.

    Raises:
        InvalidError: It is none. The message does not show it.
    """
    problem = "a signing secret is 'whsec_' and base64 of 24 to 64 bytes; this is not"
    if not isinstance(text, str) or len(text) > _MAX_HEADER:
        raise InvalidError(problem)
    try:
        secret = base64.b64decode(text.strip().removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidError(problem) from None
    if len(secret) not in _SECRET_BYTES:
        raise InvalidError(problem)
    return secret


def keyed(secret: bytes) -> hmac.HMAC:
    """Return what signs with a secret, any number of messages."""
    return hmac.new(secret, digestmod="sha256")


def signature(key: hmac.HMAC, *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message, as it stands in the header."""
    # Unlike `hmac.digest`, this does not give up the interpreter's lock for a message that is short.
    signing = key.copy()
    signing.update(f"{message_id}.{timestamp}.".encode() + body)
    return "v1," + binascii.b2a_base64(signing.digest(), newline=False).decode()


def headers(delivery: ClaimedDelivery, keys: Sequence[hmac.HMAC], *, at: datetime | None = None) -> dict[str, str]:
    """Return the headers that a delivery is signed with.

    Args:
        delivery: What is sent.
        keys: Of the secrets of the endpoint; each makes a signature.
        at: When it is sent; now by default.
    """
    timestamp = int(time.time() if at is None else at.timestamp())
    message_id = str(delivery.event_id)
    return {
        _ID: message_id,
        _TIMESTAMP: str(timestamp),
        _SIGNATURE: " ".join(
            signature(key, message_id=message_id, timestamp=timestamp, body=delivery.body) for key in keys
        ),
    }


def verify_webhook(
    body: bytes | str,
    headers: Mapping[str, str],
    secrets: str | Iterable[str],
    *,
    tolerance: timedelta = timedelta(minutes=5),
    now: datetime | None = None,
) -> WebhookMessage:
    """Return what was sent, if it was signed with one of the secrets, and not long ago.

    For receivers of webhooks, Mindia's and any others that follow Standard Webhooks.

    Args:
        body: Of the request: the bytes as they came, before anything has read them as JSON.
        headers: Of the request, by names in any case: what Flask, Django, FastAPI and the like hand out.
        secrets: The secret, `whsec_…`, or several while one is being changed for another.
        tolerance: How old, or how far in the future, a message may be.
        now: Instead of the time, for tests.

    Raises:
        WebhookSignatureError: A header is missing or makes no sense, no signature is right, the message is too old, or
            its body is no JSON. Whatever was sent, nothing else is raised.
        InvalidError: A secret is none, or `tolerance` is negative: the fault of who calls, not of who sent.
    """
    keys = [secret_of(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    if not keys:
        raise InvalidError("secrets is empty: a receiver needs the secret of its endpoint")
    if not isinstance(tolerance, timedelta) or tolerance < timedelta():
        raise InvalidError(f"tolerance must be a timedelta that is not negative, not {tolerance!r}")
    raw = _bytes_of(body)
    message_id, timestamp, given = (_header(headers, name) for name in (_ID, _TIMESTAMP, _SIGNATURE))
    sent_at = _sent_at(timestamp)
    if not _is_signed(keys, message_id, timestamp, raw, given):
        raise WebhookSignatureError(
            "no signature of the webhook is right: it was signed with another secret, or its body was changed on the "
            "way: hand in the bytes as they came"
        )
    age = (datetime.now(UTC) if now is None else now) - sent_at
    if abs(age) > tolerance:
        raise WebhookSignatureError(f"the webhook was sent {age} ago; the tolerance is {tolerance}")
    try:
        payload = json.loads(raw)
    except (ValueError, RecursionError):
        raise WebhookSignatureError("the body of the webhook is no JSON") from None
    return WebhookMessage(id=message_id, sent_at=sent_at, payload=payload)


def _bytes_of(body: object) -> bytes:
    try:
        if isinstance(body, str):
            return body.encode()
    except UnicodeEncodeError:
        raise WebhookSignatureError("the body is text that has no bytes") from None
    if not isinstance(body, bytes | bytearray | memoryview):
        raise WebhookSignatureError(f"the body must be bytes, not {type(body).__name__}")
    return bytes(body)


def _header(headers: Mapping[str, str], name: str) -> str:
    found: list[object] = []
    named: Mapping[Any, Any] = headers  # which come from outside, whatever they are said to be
    try:
        for key, value in named.items():
            if isinstance(key, bytes):
                key, value = key.decode("latin-1"), value.decode("latin-1")  # as ASGI has them
            if key.lower().replace("_", "-").removeprefix("http-") == name:
                found.append(value)
    except (AttributeError, TypeError, ValueError):
        raise WebhookSignatureError("the headers are no mapping of names to texts") from None
    only = found[0] if len(found) == 1 else None
    if not isinstance(only, str):
        raise WebhookSignatureError(f"the header {name} is missing, or there more than once")
    value = only.strip()
    if not value or len(value) > _MAX_HEADER or not value.isascii() or not value.isprintable():
        raise WebhookSignatureError(f"the header {name} is empty, too long, or not of plain characters")
    return value


def _sent_at(timestamp: str) -> datetime:
    if not timestamp.isdigit() or len(timestamp) > 11:
        raise WebhookSignatureError(f"the header {_TIMESTAMP} is no number of seconds")
    return datetime.fromtimestamp(int(timestamp), UTC)


def _is_signed(keys: Sequence[bytes], message_id: str, timestamp: str, body: bytes, given: str) -> bool:
    """Compare each signature with each secret's, in constant time, and all of them."""
    offered = [part.partition(",")[2].encode() for part in given.split()[:_MAX_SIGNATURES] if part.startswith("v1,")]
    signed = f"{message_id}.{timestamp}.".encode() + body
    is_signed = False
    for key in keys:
        expected = base64.b64encode(hmac.digest(key, signed, "sha256"))
        for offer in offered:
            is_signed |= hmac.compare_digest(expected, offer)
    return is_signed
