"""The events that endpoints can subscribe to: Mindia's own, and those of the host: `app.events`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from mindia._handles import Handle
from mindia.domain.events import BUILT_IN
from mindia.domain.media import JsonValue
from mindia.errors import InvalidError
from mindia.services._named import shown
from mindia.worker.registry import as_json, check_fields, converter

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_MAX_NAME = 100
_MAX_PATTERNS = 100
_RESERVED = {name.partition(".")[0] for name in BUILT_IN} | {"workflow", "mindia"}


class EventTypes(Handle):
    """Names of events, and the classes of their data. Thread-safe, as single calls of a dict are."""

    def __init__(self) -> None:
        self._declared: dict[type[Any], str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All that can be subscribed to, in the order of the alphabet."""
        return tuple(sorted((*BUILT_IN, *self._declared.values())))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def declare(self, name: str, data: type[Any]) -> None:
        """Add an event of the host's. Every process declares what it emits, or registers endpoints for.

        Args:
            name: Words of small letters, digits and underscores, with dots between them: `order.shipped`.
            data: An attrs class; the event is emitted by a value of it, with `library.webhooks.emit`.

        Raises:
            InvalidError: The name is taken, Mindia's own or not a name; or the class is not attrs', stands for another
                event or has fields that JSON cannot say.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
            raise InvalidError(
                f"the name of an event has words of small letters with dots between them, as order.shipped, and up to "
                f"{_MAX_NAME} characters, not {shown(name)}"
            )
        if (first := name.partition(".")[0]) in _RESERVED:
            raise InvalidError(f"events that begin with {first}. are Mindia's own: name {name!r} otherwise")
        if not isinstance(data, type) or not attrs.has(data):
            raise InvalidError(f"data must be an attrs class, decorated with @attrs.frozen, not {shown(data)}")
        if name in self._declared.values():
            raise InvalidError(f"the event {name!r} is declared already")
        if data in self._declared:
            raise InvalidError(f"{data.__name__} is the data of {self._declared[data]!r} already")
        check_fields(data)
        self._declared[data] = name

    def encoded(self, data: object) -> tuple[str, JsonValue]:
        """Return the name of the event that a value is emitted as, and the value as JSON has it.

        Raises:
            InvalidError: Its class is not declared, or it holds something that JSON cannot say or PostgreSQL not store.
        """
        name = self._declared.get(type(data))
        if name is None:
            raise InvalidError(
                f"{type(data).__name__} is not declared: call app.events.declare(name, {type(data).__name__}) before"
            )
        try:
            plain = converter().unstructure(data)
            as_json(plain)
        except Exception as error:
            raise InvalidError(f"the data of {name!r} cannot be sent: {error}") from error
        return name, plain

    def checked(self, patterns: Iterable[str]) -> tuple[str, ...]:
        """Return names and wildcards, each once, if each of them can ever mean something.

        Raises:
            InvalidError: One cannot, or there is none.
        """
        if isinstance(patterns, str) or not isinstance(patterns, Iterable):
            raise InvalidError(f"events must be a list of names, as ['image.*'], not {shown(patterns)}")
        given = tuple(dict.fromkeys(patterns))
        if not given or len(given) > _MAX_PATTERNS:
            raise InvalidError(
                f"an endpoint subscribes to 1 to {_MAX_PATTERNS} events, not {len(given)}: '*' means all"
            )
        names = self.names
        for pattern in given:
            if not isinstance(pattern, str) or not (pattern == "*" or pattern in names or _is_wildcard(pattern, names)):
                raise InvalidError(
                    f"there is no event {shown(pattern)}; there are {', '.join(names)}, and wildcards as * and "
                    "image.*. Events of the host's own are declared first, with app.events.declare"
                )
        return given


def _is_wildcard(pattern: str, names: Iterable[str]) -> bool:
    return pattern.endswith(".*") and any(name.startswith(pattern[:-1]) for name in names)
