"""What listings can be narrowed down by, and the orders that they can have."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TypedDict
from uuid import UUID

import attrs

from mindia.domain.media import JsonValue, MediaKind


class MediaOrder(StrEnum):
    """The orders of a listing; each has an index, so that any page of any length of list is read at once.

    Filenames are ordered by the code points of their characters.
    """

    NEWEST = "-uploaded_at"
    OLDEST = "uploaded_at"
    FILENAME = "filename"
    FILENAME_DESCENDING = "-filename"
    SMALLEST = "file_size"
    LARGEST = "-file_size"


@attrs.frozen
class Between:
    """Metadata condition: the value is a number, or a text, that is not below `low` and not above `high`.

    Numbers are compared as numbers, texts by the code points of their characters, so that dates in ISO form have their
    order. A value of another type does not fit.

    Attributes:
        low: Smallest value, or None for no limit.
        high: Largest value, or None for no limit.
    """

    low: float | str | None = None
    high: float | str | None = None


@attrs.frozen
class Contains:
    """Metadata condition: the value is a text with this text in it, whatever its case, or a list or object with this.

    Attributes:
        value: The text, the element of the list (of a list or object within it, a part is enough), or the part of the
            object.
    """

    value: JsonValue


@attrs.frozen
class Exists:
    """Metadata condition: there is a value, be it null.

    Attributes:
        present: False for: there is none.
    """

    present: bool = True


Condition = Between | Contains | Exists
MetadataFilter = Mapping[str, "JsonValue | Condition"]


class Filters(TypedDict, total=False):
    """What `MediaStore.find`, `iterate`, `count` and `exists` take; an item must fit all that is given.

    Attributes:
        kind: Of this kind, or one of these.
        filename: Matches this pattern, in which `*` stands for any characters and `?` for one; upper and lower case
            differ. A prefix is `IMG_*`.
        content_type: This MIME type, or `image/*` and the like.
        min_bytes: At least so large.
        max_bytes: At most so large.
        uploaded_since: Not added before this time, with time zone.
        uploaded_before: Added before this time, with time zone.
        sha256: Its bytes have this hash, 64 hexadecimal digits.
        metadata: For each key the value that it must have, or a condition: `Between`, `Contains`, `Exists`. At most 10.
        ids: One of these items, 10,000 at most.
        without_ids: None of these items, 10,000 at most.
    """

    kind: MediaKind | str | Sequence[MediaKind | str] | None
    filename: str | None
    content_type: str | None
    min_bytes: int | None
    max_bytes: int | None
    uploaded_since: datetime | None
    uploaded_before: datetime | None
    sha256: str | None
    metadata: MetadataFilter | None
    ids: Collection[UUID] | None
    without_ids: Collection[UUID] | None
