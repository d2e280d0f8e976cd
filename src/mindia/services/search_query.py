"""The arguments of searches, looked at and brought into the form that the statement takes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from mindia.domain.filters import Filters
from mindia.embedding.base import DIMENSIONS, padded
from mindia.errors import InvalidError
from mindia.repositories.media_find import Selection
from mindia.services._named import shown
from mindia.services.search_router import BREADTH, MAX_BREADTH
from mindia.services.selection import selection

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

MAX_QUERY_BYTES = 16 * 1024
MAX_LIMIT = 100

# As `websearch_to_tsquery` reads it: a minus sign before a word or a phrase.
_EXCLUDED = re.compile(r'(?<!\S)-(?=["\w])("[^"]*"?|\S+)')
_OR = re.compile(r"(?<!\S)or(?!\S)", re.IGNORECASE)


@attrs.frozen
class Words:
    """A query in words.

    Attributes:
        full: All of it, in the syntax of `websearch_to_tsquery`.
        positive: What is looked for, as plain text; may be empty.
        excluded: What must not be there, in that syntax, or None.
    """

    full: str
    positive: str
    excluded: str | None


@attrs.frozen
class Narrowed:
    """What results are narrowed down to.

    Attributes:
        kinds: Of these kinds, or None.
        selection: What else they must fit, or None.
    """

    kinds: list[str] | None
    selection: Selection | None


@attrs.frozen
class Place:
    """A place in the results of a search.

    Attributes:
        floor: Ranks up to this were on pages before, but for items with less than this score.
        depth: How many candidates each leg named.
        score: Of the last item, or None at the beginning of what is behind `floor`.
        media_id: The last item, or None.
        first_depth: How many candidates each leg named for the first pages.
        breadth: How far the index was searched for the first page; 0 where all vectors were compared.
    """

    floor: int
    depth: int
    score: float | None
    media_id: UUID | None
    first_depth: int
    breadth: int


def words_of(query: str) -> Words:
    """Return a query that can be asked.

    Raises:
        InvalidError: It is no text, too long, or has nothing in it.
    """
    if not isinstance(query, str):
        raise InvalidError(f"the query must be a text, not {shown(query)}")
    size = len(query.encode("utf-8", "replace"))
    if size > MAX_QUERY_BYTES:
        raise InvalidError(f"the query has {size} bytes; the limit is {MAX_QUERY_BYTES}")
    plain = query.encode("utf-8", "replace").decode().replace("\0", " ").strip()
    if not plain:
        raise InvalidError(f"the query has no words: {query!r}")
    excluded = [match[1] for match in _EXCLUDED.finditer(plain)]
    rest = _EXCLUDED.sub(" ", plain)
    positive = " ".join(_OR.sub(" ", rest).replace('"', " ").split())
    return Words(plain, positive, " or ".join(excluded) or None)


def narrowed(filters: Filters) -> Narrowed:
    """Return what the filters narrow a search down to.

    Raises:
        InvalidError: One is unknown, or has a value that is not allowed.
    """
    wanted = selection(filters)
    kinds = None
    if wanted.kind is not None:
        kinds = [str(wanted.kind)]
    elif "kinds" in wanted.parameters:
        kinds = list(wanted.parameters["kinds"])  # type: ignore[call-overload]  # that is a list
    is_more = wanted.parameters.keys() - {"kinds"}
    return Narrowed(kinds, wanted if is_more else None)


def check_limit(limit: int) -> None:
    """Raise where a number of results is out of range."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidError(f"limit must be 1 to {MAX_LIMIT}, not {shown(limit)}")


def checked_number(name: str, given: float, low: float, high: float) -> float:
    """Return a number, if it is in range.

    Raises:
        InvalidError: It is not, or it is no number.
    """
    if not isinstance(given, int | float) or isinstance(given, bool) or not low <= given <= high:
        raise InvalidError(f"{name} must be a number of {low:g} to {high:g}, not {shown(given)}")
    return float(given)


def checked_vector(given: object, *, native_dimensions: int) -> NDArray[float32]:
    """Return a vector of the host's in the stored form.

    Raises:
        InvalidError: It has another length than the model's, values that are not finite, or zeros alone.
    """
    import numpy as np

    try:
        vector = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InvalidError(f"the vector must be numbers, not {shown(given)}") from None
    if vector.ndim != 1 or len(vector) not in (native_dimensions, DIMENSIONS):
        raise InvalidError(f"the vector has the shape {vector.shape}; the model makes {native_dimensions} dimensions")
    norm = float(np.linalg.norm(vector))
    if not math.isfinite(norm) or not norm > 0:
        raise InvalidError("the vector has values that are not finite" if norm else "the vector has zeros alone")
    return padded(vector / norm)


def fingerprint(*parts: object) -> str:
    """Return a short text that is the same for the same search."""
    return hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()[:16]


def name_place(place: Place, mark: str) -> str:
    """Return a name for a place in the results of the search that `mark` tells from others."""
    media_id = None if place.media_id is None else str(place.media_id)
    values = [mark, place.floor, place.depth, place.score, media_id, place.first_depth, place.breadth]
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


def place_after(after: str, mark: str, *, max_depth: int) -> Place:
    """Return the place that `name_place` has named.

    Raises:
        InvalidError: It is none, or one of another search.
    """
    refused = InvalidError(f"after must be the `next` of results of the same search, not {shown(after)}")
    try:
        named, floor, depth, score, media_id, first_depth, breadth = json.loads(base64.urlsafe_b64decode(after))
        if (
            named != mark
            or not isinstance(floor, int)
            or not isinstance(depth, int)
            or not isinstance(first_depth, int)
            or not isinstance(breadth, int)
            or not 0 < first_depth <= min(depth, MAX_LIMIT + 1)
            or not 0 <= floor < depth <= max_depth
            or (breadth != 0 and not BREADTH <= breadth <= MAX_BREADTH)
        ):
            raise refused
        if (score is None) is not (media_id is None):
            raise refused
        return Place(
            floor,
            depth,
            None if score is None else float(score),
            None if media_id is None else UUID(media_id),
            first_depth,
            breadth,
        )
    except InvalidError:
        raise
    except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
        raise refused from None
