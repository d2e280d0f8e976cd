"""Values as they are typed in."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from mindia.errors import InvalidError

if TYPE_CHECKING:
    from mindia.domain.media import JsonValue

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def uuid_of(text: str) -> UUID:
    """Return an id.

    Raises:
        InvalidError: It is none.
    """
    try:
        return UUID(text)
    except ValueError:
        raise InvalidError(f"{text!r} is no id, such as 019a20f3-5bbf-7c7c-9436-5ae07bebd113") from None


def uuids_of(texts: Sequence[str]) -> list[UUID]:
    """Return ids; `-` stands for those that come on standard input, one a line.

    Raises:
        InvalidError: One is none.
    """
    if list(texts) == ["-"]:
        return [uuid_of(line.strip()) for line in sys.stdin if line.strip()]
    return [uuid_of(text) for text in texts]


def duration_of(text: str) -> timedelta:
    """Return a time span: `90s`, `15m`, `24h`, `7d`, `2w`, or a number of seconds.

    Raises:
        InvalidError: It is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text.strip().lower())
    if match is None:
        raise InvalidError(f"{text!r} is no time span, such as 90s, 15m, 24h, 7d or 2w")
    try:
        return timedelta(seconds=float(match[1]) * _UNITS[match[2] or "s"])
    except OverflowError:
        raise InvalidError(f"{text!r} is too long") from None


def time_of(text: str | None) -> datetime | None:
    """Return a point in time: ISO 8601, in UTC where it says nothing else, or a time span ago, `24h`.

    Raises:
        InvalidError: It is none.
    """
    if text is None:
        return None
    try:
        return _written_out(text) or datetime.now(UTC) - duration_of(text)
    except (InvalidError, OverflowError):
        raise InvalidError(
            f"{text!r} is no time, such as 2026-03-01, 2026-03-01T12:00:00+01:00, or 24h for a day ago"
        ) from None


def moment_of(text: str) -> datetime:
    """Return a point in time to come: ISO 8601, in UTC where it says nothing else, or a time span from now, `24h`.

    Raises:
        InvalidError: It is none.
    """
    try:
        return _written_out(text) or datetime.now(UTC) + duration_of(text)
    except (InvalidError, OverflowError):
        raise InvalidError(
            f"{text!r} is no time, such as 2026-03-01, 2026-03-01T12:00:00+01:00, or 24h for a day from now"
        ) from None


def _written_out(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def metadata_of(pairs: Sequence[str] | None) -> dict[str, JsonValue]:
    """Return what `key=value` says; a value that is JSON is taken as such, else it is a text.

    Raises:
        InvalidError: One has no `=`.
    """
    found: dict[str, JsonValue] = {}
    for pair in pairs or ():
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise InvalidError(f"metadata is key=value, not {pair!r}")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def secret_of(what: str, *, variable: str, twice: bool = False) -> str:
    """Return a secret: from the environment, from the terminal, unseen, or else the first line of standard input.

    Args:
        what: Stands in the prompt.
        variable: The environment variable.
        twice: Whether the terminal is asked twice.

    Raises:
        InvalidError: There is none, or the two differ.
    """
    if found := os.environ.get(variable):
        return found
    if sys.stdin is None or not sys.stdin.isatty():
        secret = "" if sys.stdin is None else sys.stdin.readline().rstrip("\r\n")
    else:
        secret = getpass.getpass(f"{what}: ")
        if twice and secret and getpass.getpass(f"{what}, once more: ") != secret:
            raise InvalidError("the two differ")
    if not secret:
        raise InvalidError(f"{what.lower()} is missing: type it in, write it to standard input, or set {variable}")
    return secret
