"""URLs at which `mindia.serving` takes the bytes of an upload, signed with a key of the host."""

from __future__ import annotations

import hmac
import time
from datetime import datetime
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID

import attrs

from mindia.config import Settings
from mindia.errors import InvalidError, SignatureError
from mindia.services.signed_urls import derived_key

_PURPOSE = b"mindia upload url v1"
_WHOLE = "whole"


@attrs.frozen(kw_only=True)
class UploadTicket:
    """What a URL whose signature is right allows.

    Attributes:
        tenant_id: Whose upload it is.
        upload_id: The upload.
        part: Which part of it may be put, or None for all of it.
        expires_at: Until when, in seconds since 1970.
    """

    tenant_id: UUID
    upload_id: UUID
    part: int | None
    expires_at: int


def sign(tenant_id: UUID, upload_id: UUID, *, part: int | None, expires_at: datetime, settings: Settings) -> str:
    """Return a URL to which a part of an upload may be put, or all of it be posted.

    Raises:
        InvalidError: A setting is missing.
    """
    root = checked_root(settings)
    ticket = UploadTicket(tenant_id=tenant_id, upload_id=upload_id, part=part, expires_at=int(expires_at.timestamp()))
    query = urlencode({"expires": ticket.expires_at, "signature": _signature(ticket, settings)})
    return f"{root}/{tenant_id}/{upload_id}/{part or _WHOLE}?{query}"


def checked_root(settings: Settings) -> str:
    """Return the address below which uploads are taken.

    Raises:
        InvalidError: A setting is missing.
    """
    if settings.public_url is None:
        raise InvalidError(
            "Settings.public_url is not set: the address below which mindia.serving.MediaFiles takes uploads"
        )
    derived_key(settings, purpose=_PURPOSE)
    return settings.public_url.rstrip("/")


def verify(url: str, *, settings: Settings) -> UploadTicket:
    """Return what a URL allows.

    Args:
        url: As `sign` returned it; all before the tenant may be missing.
        settings: Those that it was signed with.

    Raises:
        SignatureError: It has expired, was changed, or is none of ours.
    """
    try:
        split = urlsplit(url)
        tenant_id, upload_id, part = split.path.split("/")[-3:]
        fields = parse_qs(split.query, strict_parsing=True, max_num_fields=10)
        (expires,), (signature,) = (fields[name] for name in ("expires", "signature"))
        ticket = UploadTicket(
            tenant_id=UUID(tenant_id),
            upload_id=UUID(upload_id),
            part=None if part == _WHOLE else _number(part),
            expires_at=_number(expires),
        )
        is_ours = hmac.compare_digest(_signature(ticket, settings).encode(), signature.encode())
    except (ValueError, KeyError):
        raise SignatureError("this is not a URL of an upload") from None
    if not is_ours:
        raise SignatureError("the signature of the URL is not right: it was changed, or signed with another key")
    if ticket.expires_at < time.time():
        raise SignatureError("the URL of the upload has expired: begin another one")
    return ticket


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ValueError(text)
    return int(text)


def _signature(ticket: UploadTicket, settings: Settings) -> str:
    fields = (ticket.tenant_id, ticket.upload_id, ticket.part or _WHOLE, ticket.expires_at)
    return hmac.digest(derived_key(settings, purpose=_PURPOSE), "\n".join(map(str, fields)).encode(), "sha256").hex()
