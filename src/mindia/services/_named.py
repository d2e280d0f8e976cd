"""Arguments that name one of a few things."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from mindia.domain._operation import shown as shown
from mindia.errors import InvalidError

E = TypeVar("E", bound=StrEnum)


def named(given: E | str, kind: type[E], *, argument: str) -> E:
    """Return the member of an enum that has this value.

    Raises:
        InvalidError: There is none.
    """
    try:
        return kind(given)
    except ValueError:
        raise InvalidError(f"{argument} must be one of {', '.join(kind)}, not {shown(given)}") from None
