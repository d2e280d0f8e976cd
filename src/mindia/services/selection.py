"""The arguments of listings, looked at and brought into the form that the statements take."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from mindia.domain.filters import Between, Condition, Contains, Exists, Filters, MediaOrder, MetadataFilter
from mindia.domain.media import JsonValue, Media, MediaKind
from mindia.errors import InvalidError
from mindia.repositories._text import storable
from mindia.repositories.media_find import Place, Selection, metadata_parameters
from mindia.services._metadata import checked_key, checked_value
from mindia.services._named import named, shown

MAX_CONDITIONS = 10
MAX_IDS = 10_000
_MAX_PATTERN = 1024
_MAX_NUMBER = 2**63 - 1


def selection(filters: Filters) -> Selection:
    """Return what the filters select.

    Raises:
        InvalidError: One is unknown, or has a value that is not allowed.
    """
    unknown = filters.keys() - Filters.__annotations__.keys()
    if unknown:
        known = ", ".join(Filters.__annotations__)
        raise InvalidError(f"there is no filter {', '.join(sorted(unknown))}; there are {known}")
    given = {name: value for name, value in filters.items() if value is not None}
    parameters: dict[str, object] = {}
    kinds = _kinds(filters.get("kind"))
    if kinds is not None and len(kinds) != 1:
        parameters["kinds"] = [str(kind) for kind in kinds]
    if "filename" in given:
        parameters |= _pattern("filename", filters["filename"])
    if "content_type" in given:
        parameters["content_type"] = _pattern("content_type", filters["content_type"])["content_type"].lower()
    for name in ("min_bytes", "max_bytes"):
        if name in given:
            parameters[name] = _size(name, given[name])
    for name in ("uploaded_since", "uploaded_before"):
        if name in given:
            parameters[name] = _time(name, given[name])
    if "sha256" in given:
        parameters["sha256"] = _hash(given["sha256"])
    if "metadata" in given:
        parameters |= _metadata(filters["metadata"])
    for name in ("ids", "without_ids"):
        if name in given:
            parameters[name] = _ids(name, given[name])
    return Selection(kind=kinds[0] if kinds is not None and len(kinds) == 1 else None, parameters=parameters)


def place_after(after: str, order: MediaOrder) -> Place:
    """Return the place behind the item that `MediaPage.next` has named."""
    return _decode(after, order, "after", "next", backward=False)


def place_before(before: str, order: MediaOrder) -> Place:
    """Return the place ahead of the item that `MediaPage.previous` has named."""
    return _decode(before, order, "before", "previous", backward=True)


def name_place(media: Media, order: MediaOrder) -> str:
    """Return a name for the place of an item in a listing of an order."""
    value = getattr(media, order.removeprefix("-"))
    plain = value.isoformat() if isinstance(value, datetime) else value
    return base64.urlsafe_b64encode(json.dumps([order, plain, str(media.id)]).encode()).decode()


def _decode(text: str, order: MediaOrder, argument: str, source: str, *, backward: bool) -> Place:
    refused = InvalidError(
        f"{argument} must be the `{source}` of a page in the order {str(order)!r}, not {str(text)[:80]!r}"
    )
    try:
        named, value, media_id = json.loads(base64.urlsafe_b64decode(text))
        if MediaOrder(named) is not order:
            raise refused
        return Place(value=_place_value(value, order), media_id=UUID(media_id), backward=backward)
    except InvalidError:
        raise
    except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
        raise refused from None


def _place_value(value: object, order: MediaOrder) -> object:
    match order.removeprefix("-"), value:
        case "uploaded_at", str(text):
            time = datetime.fromisoformat(text)
            if time.tzinfo is not None:
                return time
        case "filename", str(name) if storable(name) == name:
            return name
        case "file_size", int(size) if 0 <= size <= _MAX_NUMBER and not isinstance(size, bool):
            return size
    raise ValueError(value)


def _kinds(given: MediaKind | str | Sequence[MediaKind | str] | None) -> list[MediaKind] | None:
    if given is None:
        return None
    if isinstance(given, str):
        return [named(given, MediaKind, argument="kind")]
    if not isinstance(given, Sequence) or not given:
        raise InvalidError(f"kind must be one of {', '.join(MediaKind)}, or a list of some of them, not {shown(given)}")
    return sorted({named(kind, MediaKind, argument="kind") for kind in given})


def _pattern(name: str, given: object) -> dict[str, str]:
    """Return a pattern as `like` takes it, and the range of what begins as it does, which the index can look up."""
    if not isinstance(given, str) or not 1 <= len(given) <= _MAX_PATTERN or storable(given) != given:
        raise InvalidError(f"{name} must be a pattern of 1 to {_MAX_PATTERN} characters, not {str(given)[:80]!r}")
    like = re.sub(r"[\\%_]", r"\\\g<0>", given).replace("*", "%").replace("?", "_")
    found = {name: like}
    prefix = re.split(r"[*?]", given, maxsplit=1)[0]
    if prefix:
        found[f"{name}_from"] = prefix
        if (end := _successor(prefix)) is not None:
            found[f"{name}_to"] = end
    return found


def _successor(prefix: str) -> str | None:
    """Return the first text, by code points, behind all that begin so; None where there is none."""
    for at in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[at]) + 1
        if point <= 0x10FFFF:
            return prefix[:at] + chr(0xE000 if point == 0xD800 else point)  # surrogates are no characters
    return None


def _size(name: str, given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= _MAX_NUMBER:
        raise InvalidError(f"{name} must be a number of bytes, not {shown(given)}")
    return given


def _time(name: str, given: object) -> datetime:
    if not isinstance(given, datetime) or given.utcoffset() is None:
        raise InvalidError(f"{name} must be a datetime with time zone, not {shown(given)}")
    return given


def _hash(given: object) -> bytes:
    if not isinstance(given, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", given):
        raise InvalidError(f"sha256 must have 64 hexadecimal digits, not {str(given)[:80]!r}")
    return bytes.fromhex(given)


def _ids(name: str, given: object) -> list[UUID]:
    if not isinstance(given, Collection) or len(given) > MAX_IDS or not all(isinstance(each, UUID) for each in given):
        raise InvalidError(f"{name} must be UUIDs, {MAX_IDS} at most, not {shown(given)}")
    return list(given)


def _metadata(given: MetadataFilter | None) -> dict[str, object]:
    if not isinstance(given, Mapping) or len(given) > MAX_CONDITIONS:
        raise InvalidError(f"metadata must be a mapping of at most {MAX_CONDITIONS} keys to values or conditions")
    equal: dict[str, JsonValue] = {}
    conditions: dict[str, Condition] = {}
    for key, wanted in given.items():
        checked_key(key)
        match wanted:
            case Between():
                _check_range(key, wanted)
                conditions[key] = wanted
            case Contains():
                conditions[key] = Contains(checked_value(key, wanted.value))
            case Exists():
                if not isinstance(wanted.present, bool):
                    raise InvalidError(f"the condition on metadata {key!r} must say True or False, not {shown(wanted)}")
                conditions[key] = wanted
            case _:
                equal[key] = checked_value(key, wanted)
    return metadata_parameters(equal, conditions)


def _check_range(key: str, wanted: Between) -> None:
    limits = [limit for limit in (wanted.low, wanted.high) if limit is not None]
    are_numbers = all(isinstance(limit, int | float) and not isinstance(limit, bool) for limit in limits)
    are_texts = all(isinstance(limit, str) for limit in limits)
    if not limits or not (are_numbers or are_texts):
        raise InvalidError(f"the range of metadata {key!r} must have one or two numbers, or texts, not {shown(wanted)}")
    for limit in limits:
        if limit not in (math.inf, -math.inf):  # JSON has none, and yet every number lies between them
            checked_value(key, limit)
