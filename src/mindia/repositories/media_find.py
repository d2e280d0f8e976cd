"""Listings of media: pages in any order that has an index, counts, and what they can be narrowed down by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

import attrs
from psycopg.types.json import Jsonb

from mindia.db.session import Session
from mindia.domain.filters import Between, Contains, Exists, MediaOrder
from mindia.domain.media import JsonValue, Media, MediaKind
from mindia.repositories.media import COLUMNS, media_of

_FROM: LiteralString = " from mindia.media m where m.tenant_id = %(tenant_id)s"

# Metadata that are equal are looked up by the index of what is searched, which takes a function of the owner. Where it
# names few items, they are looked up by their ids; where there are too many, all are looked through in their order. One
# of the two finds nothing.
_WANTED: LiteralString = """
with wanted as materialized (
    select mindia.items_with_metadata(%(tenant_id)s, %(equal)s::jsonb, %(most)s::int) as ids
)
"""
_FROM_NAMED: LiteralString = """
from wanted cross join lateral unnest(wanted.ids) as named (named_id) cross join lateral (
    select * from mindia.media i where i.tenant_id = %(tenant_id)s and i.id = named_id offset 0
) m
where true
"""
_FROM_ALL: LiteralString = """
from mindia.media m
where m.tenant_id = %(tenant_id)s and (select ids is null from wanted) and m.metadata @> %(equal)s::jsonb
"""
_MOST_TO_NAME, _MOST_TO_COUNT = 1_000, 5_000
"""Looking up one takes as long as looking through some 25, and a page ends when it is full."""

# A kind that stands in the statement leaves the tables of the others out when it is planned.
_OF_KIND: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: " and m.kind = 'image'",
    MediaKind.VIDEO: " and m.kind = 'video'",
    MediaKind.AUDIO: " and m.kind = 'audio'",
    MediaKind.DOCUMENT: " and m.kind = 'document'",
}

_CONDITIONS: dict[str, LiteralString] = {
    "kinds": " and m.kind = any(%(kinds)s::mindia.entity_type[])",
    "filename": " and m.filename like %(filename)s",
    "filename_from": " and m.filename >= %(filename_from)s",
    "filename_to": " and m.filename < %(filename_to)s",
    "content_type": " and m.content_type like %(content_type)s",
    "min_bytes": " and m.file_size >= %(min_bytes)s",
    "max_bytes": " and m.file_size <= %(max_bytes)s",
    "uploaded_since": " and m.uploaded_at >= %(uploaded_since)s",
    "uploaded_before": " and m.uploaded_at < %(uploaded_before)s",
    "sha256": " and m.sha256 = %(sha256)s",
    "ids": " and m.id = any(%(ids)s::uuid[])",
    "without_ids": " and m.id <> all(%(without_ids)s::uuid[])",
    # Containing is equality but for lists and objects, which are compared whole.
    "equal_whole": """
        and not exists (
            select from jsonb_each(%(equal_whole)s::jsonb) as wanted (key, value)
            where m.metadata -> wanted.key is distinct from wanted.value
        )
    """,
    "present": " and m.metadata ?& %(present)s::text[]",
    "absent": " and not m.metadata ?| %(absent)s::text[]",
    "numbers": """
        and not exists (
            select from unnest(%(numbers)s::text[], %(numbers_low)s::numeric[], %(numbers_high)s::numeric[])
                as wanted (key, low, high)
            where not coalesce(case when jsonb_typeof(m.metadata -> wanted.key) = 'number' then
                (m.metadata ->> wanted.key)::numeric between coalesce(wanted.low, '-infinity')
                    and coalesce(wanted.high, 'infinity') end, false)
        )
    """,
    "texts": """
        and not exists (
            select from unnest(%(texts)s::text[], %(texts_low)s::text[], %(texts_high)s::text[])
                as wanted (key, low, high)
            where not coalesce(case when jsonb_typeof(m.metadata -> wanted.key) = 'string' then
                (wanted.low is null or (m.metadata ->> wanted.key) collate "C" >= wanted.low)
                and (wanted.high is null or (m.metadata ->> wanted.key) collate "C" <= wanted.high) end, false)
        )
    """,
    "contained": """
        and not exists (
            select from unnest(%(contained)s::text[], %(contained_values)s::jsonb[]) as wanted (key, value)
            where not coalesce(case jsonb_typeof(m.metadata -> wanted.key)
                when 'array' then m.metadata -> wanted.key @> jsonb_build_array(wanted.value)
                when 'object' then jsonb_typeof(wanted.value) = 'object' and m.metadata -> wanted.key @> wanted.value
                when 'string' then jsonb_typeof(wanted.value) = 'string'
                    and position(lower(wanted.value #>> '{}') in lower(m.metadata ->> wanted.key)) > 0
                end, false)
        )
    """,
}
"""By the parameter that each needs."""


_BEHIND: dict[str, LiteralString] = {
    "uploaded_at": " and (m.uploaded_at, m.id) > (%(place)s::timestamptz, %(place_id)s::uuid)",
    "-uploaded_at": " and (m.uploaded_at, m.id) < (%(place)s::timestamptz, %(place_id)s::uuid)",
    "filename": " and (m.filename, m.id) > (%(place)s::text, %(place_id)s::uuid)",
    "-filename": " and (m.filename, m.id) < (%(place)s::text, %(place_id)s::uuid)",
    "file_size": " and (m.file_size, m.id) > (%(place)s::bigint, %(place_id)s::uuid)",
    "-file_size": " and (m.file_size, m.id) < (%(place)s::bigint, %(place_id)s::uuid)",
}
_ORDER: dict[str, LiteralString] = {
    "uploaded_at": " order by m.uploaded_at, m.id",
    "-uploaded_at": " order by m.uploaded_at desc, m.id desc",
    "filename": " order by m.filename, m.id",
    "-filename": " order by m.filename desc, m.id desc",
    "file_size": " order by m.file_size, m.id",
    "-file_size": " order by m.file_size desc, m.id desc",
}
"""Both by the values of `MediaOrder`."""

# A limit that is known when the statement is planned: without one the plan that is prepared once would be one for
# reading a tenth of all, and so never be taken, and planning takes longer than the rest.
_AT_MOST: LiteralString = " limit 1001"
_LIMIT: LiteralString = " limit %(limit)s"


@attrs.frozen(kw_only=True)
class Selection:
    """What a listing is narrowed down to.

    Attributes:
        kind: The one kind, where it is one.
        parameters: By the names of the conditions, and what those need beside.
    """

    kind: MediaKind | None = None
    parameters: Mapping[str, object] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Place:
    """A place in a listing: beside an item.

    Attributes:
        value: What the order goes by.
        media_id: The item.
        backward: Whether what comes before it is wanted.
    """

    value: object
    media_id: UUID
    backward: bool


def page(
    session: Session, tenant_id: UUID, *, selection: Selection, order: MediaOrder, place: Place | None, limit: int
) -> list[Media]:
    """Read items from a place on, away from it: those before a place come in the opposite order."""
    direction = str(order)
    if place is not None and place.backward:
        direction = order.removeprefix("-") if order.startswith("-") else f"-{order}"
    narrowed: LiteralString = _narrowed(selection)
    parameters: dict[str, Any] = {"tenant_id": tenant_id, "limit": limit, **selection.parameters}
    if place is not None:
        narrowed += _BEHIND[direction]
        parameters |= {"place": place.value, "place_id": place.media_id}
    narrowed += _ORDER[direction]
    narrowed += _AT_MOST
    query: LiteralString
    if "equal" in selection.parameters:
        parameters["most"] = _MOST_TO_NAME
        query = _WANTED + f"select {COLUMNS} from ((select m.* "
        query += _FROM_NAMED + narrowed + ") union all (select m.* " + _FROM_ALL + narrowed + ")) m"
    else:
        query = f"select * from (select {COLUMNS} " + _FROM + narrowed + ") m"
    query += _ORDER[direction]
    query += _LIMIT
    return session.all(query, parameters, row=media_of(tenant_id))


def count(session: Session, tenant_id: UUID, selection: Selection) -> int:
    """Count items."""
    narrowed: LiteralString = _narrowed(selection)
    parameters: dict[str, Any] = {"tenant_id": tenant_id, **selection.parameters}
    query: LiteralString = "select count(*)" + _FROM + narrowed
    if "equal" in selection.parameters:
        parameters["most"] = _MOST_TO_COUNT
        query = _WANTED + "select (select count(*) " + _FROM_NAMED + narrowed
        query += ") + (select count(*) " + _FROM_ALL + narrowed + ")"
    counted = session.one(query, parameters, row=int)
    assert counted is not None
    return counted


def exists(session: Session, tenant_id: UUID, selection: Selection) -> bool:
    """Tell whether there is an item."""
    # Without an order, or with a limit that is known when it is planned, the planner counts on meeting an item soon,
    # and goes through all search texts where there is none.
    narrowed: LiteralString = _narrowed(selection) + _ORDER[MediaOrder.NEWEST] + _LIMIT
    parameters: dict[str, Any] = {"tenant_id": tenant_id, "limit": 1, **selection.parameters}
    query: LiteralString = "select true" + _FROM + narrowed
    if "equal" in selection.parameters:
        parameters["most"] = _MOST_TO_NAME
        query = _WANTED + "select true from ((select m.id " + _FROM_NAMED + narrowed
        query += ") union all (select m.id " + _FROM_ALL + narrowed + ")) m"
    return session.one(query, parameters, row=bool) is not None


def named_first(selection: Selection) -> LiteralString:
    """Return what comes before a statement with `listed` in it, from its `with` on, if anything does."""
    return _WANTED if "equal" in selection.parameters else ""


def listed(selection: Selection) -> LiteralString:
    """Return a query of the ids of the items that fit, as a part of a statement."""
    narrowed: LiteralString = _narrowed(selection)
    if "equal" in selection.parameters:
        query: LiteralString = "(select m.id as listed_id " + _FROM_NAMED + narrowed
        query += ") union all (select m.id " + _FROM_ALL + narrowed + ")"
        return query
    return "select m.id as listed_id " + _FROM + narrowed


def checked(selection: Selection) -> LiteralString:
    """Return the conditions on an item `m` of the view."""
    narrowed: LiteralString = _narrowed(selection)
    if "equal" in selection.parameters:
        narrowed += " and m.metadata @> %(equal)s::jsonb"
    return narrowed


def count_up_to(session: Session, tenant_id: UUID, selection: Selection, *, most: int) -> int:
    """Count the items that fit, but not further than one more than `most`."""
    query: LiteralString = named_first(selection)
    ids: LiteralString = listed(selection)
    query += "select count(*) from (" + ids + " limit %(limit)s) fitting"
    counted = session.one(
        query,
        {"tenant_id": tenant_id, "most": _MOST_TO_COUNT, "limit": most + 1, **selection.parameters},
        row=int,
    )
    assert counted is not None
    return counted


def parameters_of(selection: Selection) -> dict[str, Any]:
    """Return what the parts of statements need that `listed` and `checked` return."""
    return {"most": _MOST_TO_COUNT, **selection.parameters}


def _narrowed(selection: Selection) -> LiteralString:
    query: LiteralString = "" if selection.kind is None else _OF_KIND[selection.kind]
    for name in _CONDITIONS:
        if name in selection.parameters:
            query += _CONDITIONS[name]
    return query


def metadata_parameters(
    equal: Mapping[str, JsonValue], conditions: Mapping[str, Between | Contains | Exists]
) -> dict[str, object]:
    """Return the parameters of a selection for conditions on the host's own values."""
    found: dict[str, object] = {}
    if equal:
        found["equal"] = Jsonb(equal)
    if whole := {key: value for key, value in equal.items() if isinstance(value, dict | list)}:
        found["equal_whole"] = Jsonb(whole)
    ranges = {key: condition for key, condition in conditions.items() if isinstance(condition, Between)}
    for name, kind in (("numbers", int | float), ("texts", str)):
        fitting = {
            key: each for key, each in ranges.items() if isinstance(each.low, kind) or isinstance(each.high, kind)
        }
        if fitting:
            found[name] = list(fitting)
            found[f"{name}_low"] = [_exact(each.low) for each in fitting.values()]
            found[f"{name}_high"] = [_exact(each.high) for each in fitting.values()]
    contained = {key: each.value for key, each in conditions.items() if isinstance(each, Contains)}
    if contained:
        found["contained"] = list(contained)
        found["contained_values"] = [Jsonb(value) for value in contained.values()]
    for name, wanted in (("present", True), ("absent", False)):
        keys = [key for key, each in conditions.items() if isinstance(each, Exists) and each.present is wanted]
        if keys:
            found[name] = keys
    return found


def _exact(limit: float | str | None) -> Decimal | str | None:
    """Return a number as JSON writes it: a float would lose digits on its way to `numeric`."""
    return Decimal(json.dumps(limit)) if isinstance(limit, int | float) else limit
