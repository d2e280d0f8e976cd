"""URLs that carry their permission with them, signed with a key of the host."""

from __future__ import annotations

import hmac
import math
import re
import time
from datetime import timedelta
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from uuid import UUID

import attrs

from mindia._hkdf import derived
from mindia.config import Settings
from mindia.domain.media import Disposition, Media, Staged
from mindia.errors import InvalidError, SignatureError
from mindia.services._named import named
from mindia.services.stored import StoredFile

MAX_LIFETIME = timedelta(days=365)

_PURPOSE = b"mindia signed url v1"
_STREAM_PURPOSE = b"mindia signed stream v1"
_STREAM = re.compile(
    r"/([0-9a-f-]{36})/([0-9a-f-]{36})/hls/([0-9a-f-]{36})/(\d{1,19})-([0-9a-f]{64})"
    r"/(master\.m3u8|[0-9A-Za-z_-]{1,40}/[0-9A-Za-z_-]{1,60}\.[0-9a-z]{2,4})\Z",
    re.ASCII,
)
"""The permission stands in the path: so it goes with the addresses in playlists, which are relative to it."""


@attrs.frozen(kw_only=True)
class SignedUrl:
    """What a URL whose signature is right gives.

    Attributes:
        tenant_id: Whose item it is.
        media_id: The item.
        operations: What was done with it, where it is a picture that was made of it; else None.
        disposition: What a browser shall do with it.
        expires_at: Until when, in seconds since 1970.
    """

    tenant_id: UUID
    media_id: UUID
    operations: str | None = None
    disposition: Disposition
    expires_at: int


@attrs.frozen(kw_only=True)
class StreamUrl:
    """What an address of a stream whose signature is right gives.

    Attributes:
        tenant_id: Whose video it is.
        media_id: The video.
        derivative_id: Its stream.
        expires_at: Until when, in seconds since 1970.
        name: The file that is asked for, below the prefix of the stream; all of them are given.
    """

    tenant_id: UUID
    media_id: UUID
    derivative_id: UUID
    expires_at: int
    name: str


def sign(
    media: Media | Staged,
    *,
    settings: Settings,
    expires_in: timedelta,
    disposition: Disposition | str,
    made: StoredFile | None = None,
) -> str:
    """Return a URL of an item, or of a picture that was made of it.

    Raises:
        InvalidError: An argument is not allowed, or a setting is missing.
    """
    wanted = checked(expires_in, disposition)
    base = _base(settings)
    granted = SignedUrl(
        tenant_id=media.tenant_id,
        media_id=media.id,
        operations=None if made is None else made.operations,
        disposition=wanted,
        expires_at=math.ceil(time.time() + expires_in.total_seconds()),
    )
    query = {"disposition": wanted, "expires": granted.expires_at, "signature": _signature(granted, settings)}
    if granted.operations is not None:
        query["operations"] = granted.operations
    path = f"{media.tenant_id}/{media.id}/{quote(media.filename if made is None else made.filename, safe='')}"
    return f"{base}/{path}?{urlencode(query)}"


def sign_stream(media: Media, derivative_id: UUID, *, settings: Settings, expires_in: timedelta) -> str:
    """Return the address of the master playlist of a video.

    Raises:
        InvalidError: A setting is missing.
    """
    granted = StreamUrl(
        tenant_id=media.tenant_id,
        media_id=media.id,
        derivative_id=derivative_id,
        expires_at=math.ceil(time.time() + expires_in.total_seconds()),
        name="master.m3u8",
    )
    permission = f"{granted.expires_at}-{_stream_signature(granted, settings)}"
    return f"{_base(settings)}/{media.tenant_id}/{media.id}/hls/{derivative_id}/{permission}/{granted.name}"


def is_of_stream(path: str) -> bool:
    """Tell whether a path is one of a stream."""
    return _STREAM.search(path) is not None


def verify_stream(path: str, *, settings: Settings) -> StreamUrl:
    """Return what an address of a stream gives.

    Args:
        path: Its path; all before the tenant may be missing.
        settings: Those that it was signed with.

    Raises:
        SignatureError: It has expired, was changed, or is none of ours.
    """
    match = _STREAM.search(path)
    try:
        if match is None:
            raise ValueError(path)  # noqa: TRY301 - told like the others
        granted = StreamUrl(
            tenant_id=UUID(match[1]),
            media_id=UUID(match[2]),
            derivative_id=UUID(match[3]),
            expires_at=int(match[4]),
            name=match[6],
        )
    except ValueError:
        raise SignatureError("this is not a signed URL of a stream") from None
    if not hmac.compare_digest(_stream_signature(granted, settings), match[5]):
        raise SignatureError("the signature of the URL is not right: it was changed, or signed with another key")
    if granted.expires_at < time.time():
        raise SignatureError("the URL has expired: make another one with library.media.hls_url()")
    return granted


def _base(settings: Settings) -> str:
    if settings.public_url is None:
        raise InvalidError(
            "Settings.public_url is not set: the address below which mindia.serving.MediaFiles serves media"
        )
    return settings.public_url.rstrip("/")


def event_url(media: Media | Staged, *, settings: Settings) -> str | None:
    """Return the URL of an item that events have; None where the settings do not allow for one."""
    if settings.public_url is None or settings.secret_key is None:
        return None
    expires_in = min(MAX_LIFETIME, max(settings.webhook_url_lifetime, timedelta(seconds=1)))
    return sign(media, settings=settings, expires_in=expires_in, disposition=Disposition.INLINE)


def checked(expires_in: timedelta, disposition: Disposition | str) -> Disposition:
    """Return the disposition, if both are allowed.

    Raises:
        InvalidError: One is not.
    """
    if not isinstance(expires_in, timedelta) or not timedelta(seconds=1) <= expires_in <= MAX_LIFETIME:
        raise InvalidError(f"expires_in must be a timedelta of a second to a year, not {expires_in!r}")
    return named(disposition, Disposition, argument="disposition")


def verify(url: str, *, settings: Settings) -> SignedUrl:
    """Return what a URL gives. Its last part, the filename, is for people and not signed.

    Args:
        url: As `sign` returned it; all before the tenant may be missing.
        settings: Those that it was signed with.

    Raises:
        SignatureError: It has expired, was changed, or is none of ours.
    """
    try:
        parts = urlsplit(url)
        tenant_id, media_id = parts.path.split("/")[-3:-1]
        fields = parse_qs(parts.query, strict_parsing=True, max_num_fields=10)
        (disposition,), (expires,), (signature,) = (fields[name] for name in ("disposition", "expires", "signature"))
        granted = SignedUrl(
            tenant_id=UUID(tenant_id),
            media_id=UUID(media_id),
            operations=fields["operations"][0] if "operations" in fields else None,
            disposition=Disposition(disposition),
            expires_at=int(expires) if expires.isascii() and expires.isdigit() and len(expires) < 20 else -1,
        )
        is_ours = hmac.compare_digest(_signature(granted, settings).encode(), signature.encode())
    except (ValueError, KeyError):
        raise SignatureError("this is not a signed URL") from None
    if not is_ours:
        raise SignatureError("the signature of the URL is not right: it was changed, or signed with another key")
    if granted.expires_at < time.time():
        raise SignatureError("the URL has expired: make another one with library.media.url()")
    return granted


def _signature(granted: SignedUrl, settings: Settings) -> str:
    fields: tuple[object, ...] = (granted.tenant_id, granted.media_id, granted.disposition, granted.expires_at)
    if granted.operations is not None:
        fields = (*fields, granted.operations)
    return hmac.digest(derived_key(settings, purpose=_PURPOSE), "\n".join(map(str, fields)).encode(), "sha256").hex()


def _stream_signature(granted: StreamUrl, settings: Settings) -> str:
    fields = (granted.tenant_id, granted.media_id, granted.derivative_id, granted.expires_at)
    key = derived_key(settings, purpose=_STREAM_PURPOSE)
    return hmac.digest(key, "\n".join(map(str, fields)).encode(), "sha256").hex()


def derived_key(settings: Settings, *, purpose: bytes) -> bytes:
    """Return a key for one purpose alone."""
    if settings.secret_key is None:
        raise InvalidError("signed URLs need Settings.secret_key: make one with secrets.token_urlsafe(32)")
    return derived(settings.secret_key, purpose)
