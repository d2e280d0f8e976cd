"""What operations have in common: the checks of their values, and their text form."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Self, TypeVar
from uuid import UUID

import attrs

from mindia.errors import InvalidError

E = TypeVar("E", bound=StrEnum)

MAX_SIDE = 16_383
"""Of a picture in pixels: more has no place in WebP."""

_PLACES = 3
"""Behind the decimal point of what is no whole number."""


def shown(value: object) -> str:
    """Return a value as messages show it."""
    try:
        return repr(value)[:80]
    except ValueError:  # a number of thousands of digits
        return "what cannot be shown"


def number(value: float) -> float:
    """Return a number as its text form has it, so that both are the same; what is none is refused later."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e9 < value < 1e9:
        return value
    return round(float(value), _PLACES) + 0.0


def between(low: float, high: float) -> Callable[[object, attrs.Attribute[float], float], None]:
    """Return a validator of numbers."""

    def check(owner: object, attribute: attrs.Attribute[float], value: float) -> None:
        if not isinstance(value, float) or not math.isfinite(value) or not low <= value <= high:
            raise InvalidError(
                f"{attribute.name} of {type(owner).__name__} must be {low:g} to {high:g}, not {shown(value)}"
            )

    return check


def pixels(low: int = 1) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    """Return a validator of a number of pixels."""

    def check(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= MAX_SIDE:
            raise InvalidError(
                f"{attribute.name} of {type(owner).__name__} must be {low} to {MAX_SIDE} pixels, not {shown(value)}"
            )

    return check


def check_flag(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise InvalidError(f"{attribute.name} of {type(owner).__name__} must be True or False, not {shown(value)}")


def chosen(value: E | str, kind: type[E]) -> E:
    """Return the member of an enum.

    Raises:
        InvalidError: There is none.
    """
    try:
        return kind(value)
    except ValueError:
        raise InvalidError(f"{kind.__name__} must be one of {', '.join(kind)}, not {shown(value)}") from None


def hex_color(value: str | None) -> str | None:
    """Return a colour as the text form has it."""
    return value.lower().removeprefix("#") if isinstance(value, str) else value


def check_color(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse what is neither a colour nor None."""
    if value is not None and (not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{6}", value)):
        raise InvalidError(
            f"{attribute.name} of {type(owner).__name__} must be a colour as '#ffcc00', not {shown(value)}"
        )


def _parsed_number(text: str) -> float:
    if not re.fullmatch(r"-?\d{1,9}(\.\d{1,3})?", text, re.ASCII):
        raise ValueError(text)
    return float(text)


def _parsed_whole(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ValueError(text)
    return int(text)


def parsed_by(parse: Callable[[str], object]) -> dict[str, Any]:
    """Return the metadata of a field whose text form is read by a function, which raises ValueError or KeyError."""
    return {"parse": parse}


NUMBER = parsed_by(_parsed_number)
WHOLE = parsed_by(_parsed_whole)
TEXT = parsed_by(str)
FLAG = parsed_by({"yes": True, "no": False}.__getitem__)


@attrs.frozen
class Operation:
    """Something that is done with a picture. See its subclasses."""

    name: ClassVar[str] = ""

    def __str__(self) -> str:
        """Return the text form: what is as it is by default is left out."""
        given = [
            f"_{field.name}-{_text(value)}"
            for field in attrs.fields(type(self))
            if (value := getattr(self, field.name)) != field.default
        ]
        return self.name + "".join(given)

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Self:
        """Return the operation that has some values, each as a text.

        Raises:
            InvalidError: One is not known, or not allowed.
        """
        fields = attrs.fields_dict(cls)
        parsed = {}
        for name, text in values.items():
            if name not in fields:
                raise InvalidError(f"{cls.name!r} has no value {shown(name)}; it has {', '.join(fields) or 'none'}")
            try:
                parsed[name] = fields[name].metadata["parse"](text)
            except (ValueError, KeyError):
                raise InvalidError(f"{name} of {cls.name!r} cannot be {shown(text)}") from None
        try:
            return cls(**parsed)
        except TypeError:
            missing = [name for name, field in fields.items() if field.default is attrs.NOTHING and name not in parsed]
            raise InvalidError(f"{cls.name!r} needs {', '.join(missing)}") from None


def _text(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.{_PLACES}f}".rstrip("0").rstrip(".")
        case UUID():
            return value.hex
        case _:
            return str(value)
