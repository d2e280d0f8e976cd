"""Facts that only some items have: kept together in the column `details`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from mindia.domain.media import Facts, JsonValue, Location

_COLUMNS = {"width", "height", "duration", "bitrate", "sample_rate", "channels", "page_count"}
"""Facts with a column of their own."""


def columns_of(facts: Facts) -> dict[str, Any]:
    """Return the facts that have columns."""
    return {name: getattr(facts, name) for name in attrs.fields_dict(type(facts)) if name in _COLUMNS}


def details_of(facts: Facts) -> dict[str, JsonValue]:
    """Return the other facts as JSON, without those that are not known, and without the text of a document."""
    found: dict[str, JsonValue] = {}
    for name in attrs.fields_dict(type(facts)):
        value = getattr(facts, name)
        if name in _COLUMNS or name == "text" or value is None:
            continue
        match value:
            case datetime():
                found[name] = value.isoformat()
            case Location():
                found[name] = attrs.asdict(value)
            case _:
                found[name] = value
    return found


def facts_of(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `details_of` has written as arguments for an item."""
    found = dict(details)
    if "taken_at" in found:
        found["taken_at"] = datetime.fromisoformat(found["taken_at"])
    if "location" in found:
        found["location"] = Location(**found["location"])
    return found
