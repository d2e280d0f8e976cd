"""Places where a run of `verify` goes on, and how they are written."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from uuid import UUID

import attrs

from mindia.errors import InvalidError
from mindia.services._named import shown

_FIRST = datetime(1, 1, 1, tzinfo=UTC)
_NOBODY = UUID(int=0)


@attrs.frozen(kw_only=True)
class ItemsPlace:
    """Behind an item of a tenant; before the first tenant where there is none.

    Attributes:
        salt: By which it is drawn which items are hashed.
        tenant_id: The tenant.
        uploaded_at: When the item was made.
        media_id: The item.
    """

    salt: int = 0
    tenant_id: UUID | None = None
    uploaded_at: datetime = _FIRST
    media_id: UUID = _NOBODY


@attrs.frozen(kw_only=True)
class DerivativesPlace:
    """Behind something that was made of the items of a tenant, all of which have been looked at.

    Attributes:
        salt: By which it is drawn what is hashed.
        tenant_id: The tenant.
        derivative_id: What was made of an item.
    """

    salt: int
    tenant_id: UUID
    derivative_id: UUID = _NOBODY


@attrs.frozen(kw_only=True)
class ObjectsPlace:
    """Behind an object of a tenant, all of whose items and derivatives have been looked at.

    Attributes:
        salt: By which it is drawn which items are hashed.
        tenant_id: The tenant.
        key: The object; empty before the first.
    """

    salt: int
    tenant_id: UUID
    key: str = ""


Place = ItemsPlace | DerivativesPlace | ObjectsPlace

BEGINNING = ItemsPlace()


def token_of(place: Place) -> str:
    """Write a place as a text without spaces."""
    behind: list[object]
    match place:
        case ItemsPlace():
            behind = [place.uploaded_at.isoformat(), str(place.media_id)]
        case DerivativesPlace():
            behind = [None, str(place.derivative_id)]
        case ObjectsPlace():
            behind = [place.key]
    tenant = None if place.tenant_id is None else str(place.tenant_id)
    return urlsafe_b64encode(json.dumps([place.salt, tenant, *behind]).encode()).decode().rstrip("=")


def place_of(token: str) -> Place:
    """Read a place.

    Raises:
        InvalidError: It is none.
    """
    try:
        salt, tenant, *behind = json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        tenant_id = None if tenant is None else UUID(tenant)
        salt.to_bytes(8, "big")
        match behind:
            case [str(uploaded_at), str(media_id)]:
                return ItemsPlace(
                    salt=salt,
                    tenant_id=tenant_id,
                    uploaded_at=_aware(datetime.fromisoformat(uploaded_at)),
                    media_id=UUID(media_id),
                )
            case [None, str(derivative_id)] if tenant_id is not None:
                return DerivativesPlace(salt=salt, tenant_id=tenant_id, derivative_id=UUID(derivative_id))
            case [str(key)] if tenant_id is not None:
                return ObjectsPlace(salt=salt, tenant_id=tenant_id, key=key)
    except (ValueError, TypeError, AttributeError, OverflowError):
        pass
    raise InvalidError(f"after must be VerifyReport.next of an earlier report, not {shown(token)}")


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(moment)
    return moment
