"""URLs that carry their permission with them, signed with a key of the host."""

from __future__ import annotations

import hmac
import math
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
    if settings.public_url is None:
        raise InvalidError(
            "Settings.public_url is not set: the address below which mindia.serving.MediaFiles serves media"
        )
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
    return f"{settings.public_url.rstrip('/')}/{path}?{urlencode(query)}"


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


def derived_key(settings: Settings, *, purpose: bytes) -> bytes:
    """Return a key for one purpose alone."""
    if settings.secret_key is None:
        raise InvalidError("signed URLs need Settings.secret_key: make one with secrets.token_urlsafe(32)")
    return derived(settings.secret_key, purpose)
