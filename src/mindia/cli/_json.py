"""Objects as the lines of JSON that `--json` prints."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs


def line_of(value: object, *, kind: str | None = None) -> str:
    """Return an object as one line of JSON, in ASCII: its `type`, then its fields and properties by their names.

    Args:
        value: An attrs object, or a mapping.
        kind: Its type; by default the name of the class.
    """
    kind = kind or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(value).__name__).lower()
    fields = (
        value.items() if isinstance(value, Mapping) else ((name, getattr(value, name)) for name in _names(type(value)))
    )
    return json.dumps({"type": kind} | {str(name): _plain(each) for name, each in fields}, separators=(", ", ": "))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: times in ISO 8601, time spans in seconds."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID | Path):
        return str(value)
    if isinstance(value, BaseException):
        return error_fields(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if attrs.has(type(value)):
        return {name: _plain(getattr(value, name)) for name in _names(type(value))}
    return [_plain(each) for each in value]


def _names(kind: type[Any]) -> tuple[str, ...]:
    fields = [field.name for field in attrs.fields(kind)]
    properties = [name for each in kind.__mro__ for name, value in vars(each).items() if isinstance(value, property)]
    return tuple(dict.fromkeys(name for name in (*fields, *properties) if not name.startswith("_")))


def error_fields(error: BaseException) -> dict[str, object]:
    """Return what is said of an error."""
    return {
        "code": getattr(error, "code", "error"),
        "message": str(error) or type(error).__name__,
        "retryable": bool(getattr(error, "retryable", False)),
    }
