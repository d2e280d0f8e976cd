"""The types of tasks: payload class and handler of each."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import cache, partial
from inspect import iscoroutinefunction
from typing import Any, TypeVar
from uuid import UUID

import attrs

from mindia.domain.tasks import TaskType
from mindia.errors import DiscardTask, InvalidError
from mindia.repositories.task_claims import NO_LIMITS, Limits
from mindia.worker.context import TaskContext
from mindia.worker.waker import Waker

P = TypeVar("P")

_MAX_JSON_BYTES = 1 << 20

_to_json = json.JSONEncoder(allow_nan=False).encode


Handler = Callable[[TaskContext, P], object] | Callable[[TaskContext, P], Awaitable[object]]
"""Returns what JSON can say, or nothing."""

ProcessHandler = Callable[[P], object]
"""One that runs in a process of its own: it is given the payload alone, and is a function of a module."""

BatchHandler = Callable[[Sequence[TaskContext], Sequence[P]], Sequence[object]]
"""Takes tasks of one tenant together; returns for each what a handler would, or the exception that it failed with."""


@attrs.frozen(kw_only=True)
class RegisteredTask:
    """A type of task.

    Attributes:
        kind: Its name.
        task_type: The label in the database.
        payload: The class of its payload.
        handler: What runs it.
        is_async: Whether the handler is a coroutine function.
        in_process: Whether the handler runs in a process of its own.
        timeout: How long an attempt may take, where its task does not say; None for as long as it likes.
        limits: What may run at once, and how many begin in a second.
        batch_size: How many tasks of a tenant the handler takes together; more than 1 for one that is given lists.
    """

    kind: str
    task_type: TaskType
    payload: type[Any]
    handler: Handler[Any] | ProcessHandler[Any] | BatchHandler[Any]
    is_async: bool = False
    in_process: bool = False
    timeout: timedelta | None = None
    limits: Limits = NO_LIMITS
    batch_size: int = 1

    def encode(self, payload: object) -> str:
        """Return a payload as JSON.

        Raises:
            InvalidError: It holds something that JSON cannot say, or PostgreSQL not store, or is larger than 1 MiB.
        """
        return self.encode_many([payload])[0]

    def encode_many(self, payloads: Sequence[object]) -> list[str]:
        """Return payloads as JSON, without line breaks.

        Raises:
            InvalidError: As for `encode`.
        """
        unstructure = converter().unstructure
        encoded = []
        for payload in payloads:
            try:
                encoded.append(as_json(unstructure(payload)))
            except Exception as error:
                raise InvalidError(f"the payload {_shown(payload)} cannot be kept: {error}") from error
        return encoded

    def decode(self, payload: object) -> Any:
        """Return a payload of what was read from the database.

        Raises:
            DiscardTask: It does not fit the class; trying again would not help.
        """
        if not isinstance(payload, dict):
            raise DiscardTask(f"the payload does not fit {self.payload.__name__}: it is no JSON object")
        try:
            return converter().structure(payload, self.payload)
        except Exception as error:
            from cattrs import transform_error

            reasons = "; ".join(transform_error(error, path="payload"))
            raise DiscardTask(f"the payload does not fit {self.payload.__name__}: {reasons}") from error


def as_json(value: object) -> str:
    """Return a value as JSON that PostgreSQL stores, without line breaks.

    Raises:
        InvalidError: It holds something that JSON cannot say, or PostgreSQL not store, or is larger than 1 MiB.
    """
    try:
        text = _to_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidError(f"it cannot be written as JSON: {error}") from error
    if len(text) > _MAX_JSON_BYTES:
        raise InvalidError(f"it has {len(text)} bytes of JSON; the limit is {_MAX_JSON_BYTES}")
    if "\\u" in text and not _is_storable(text):
        raise InvalidError("it has a NUL character, or half of a surrogate pair, which PostgreSQL does not store")
    return text


def _is_storable(text: str) -> bool:
    # Pairs of backslashes are those of the text itself.
    escapes = [int(code, 16) for code in re.findall(r"\\u([0-9a-f]{4})", text.replace("\\\\", ""))]
    if 0 in escapes:
        return False
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(payload: object) -> str:
    try:
        return f"{payload!r:.200}"
    except Exception:  # noqa: BLE001 - of the host's class; what is said about it must not fail
        return type(payload).__name__


class TaskRegistry:
    """Task types by name and by payload class.

    Attributes:
        waker: Says when a worker may be woken, for all queues that share the registry.
    """

    def __init__(self) -> None:
        self.waker = Waker()
        self._by_kind: dict[str, RegisteredTask] = {}
        self._by_payload: dict[type[Any], RegisteredTask] = {}

    def register(
        self,
        kind: str,
        payload: type[P],
        handler: Handler[P] | ProcessHandler[P] | BatchHandler[P],
        *,
        task_type: TaskType = TaskType.CUSTOM,
        in_process: bool = False,
        timeout: timedelta | None = None,
        limits: Limits | None = None,
        is_ours: bool = False,
        batch_size: int = 1,
    ) -> None:
        """Add a type.

        Args:
            kind: As for `Mindia.register_task`, like the others.
            payload: Its class.
            handler: What runs.
            task_type: Its label in the database.
            in_process: Whether it runs in a process of its own.
            timeout: How long an attempt may take.
            limits: How many run at once.
            is_ours: Whether its fields are known to be readable from JSON; looking costs time when an application is
                made.
            batch_size: How many of a tenant it takes together.

        Raises:
            InvalidError: The name is taken or not a name, the class is not attrs', stands for another type or has
                fields that cannot be read from JSON, the handler is no function, or a limit is out of range.
        """
        if not isinstance(payload, type) or not attrs.has(payload):
            raise InvalidError(f"the payload must be an attrs class, decorated with @attrs.frozen, not {payload!r}")
        if not callable(handler):
            raise InvalidError(f"the handler must be a function, not {handler!r}")
        is_async = iscoroutinefunction(handler) or iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004 - an object may be async only there
        if in_process:
            _check_importable(handler, is_async=is_async)
        if timeout is not None and timeout <= timedelta():
            raise InvalidError(f"timeout must be longer than nothing, not {timeout!r}")
        if not re.fullmatch(r"[a-z][a-z0-9_.]{0,99}", kind):
            raise InvalidError(f"a kind has up to 100 small letters, digits, dots and underscores, not {kind!r}")
        if kind in self._by_kind or (task_type is TaskType.CUSTOM and kind in tuple(TaskType)):
            raise InvalidError(f"the kind {kind!r} is registered already")
        if payload in self._by_payload:
            raise InvalidError(f"{payload.__name__} is the payload of {self._by_payload[payload].kind!r} already")
        if task_type is TaskType.CUSTOM and not is_ours:
            check_fields(payload)
        registered = RegisteredTask(
            kind=kind,
            task_type=task_type,
            payload=payload,
            handler=handler,
            is_async=is_async,
            in_process=in_process,
            timeout=timeout,
            limits=limits or NO_LIMITS,
            batch_size=batch_size,
        )
        self._by_kind[kind] = self._by_payload[payload] = registered

    def of_payload(self, payload: object) -> RegisteredTask:
        """Return the type that a payload is for.

        Raises:
            InvalidError: Its class is not registered.
        """
        try:
            return self._by_payload[type(payload)]
        except KeyError:
            raise InvalidError(
                f"{type(payload).__name__} is not registered: call app.register_task(kind, class, handler) before"
            ) from None

    def of_kind(self, kind: str) -> RegisteredTask:
        """Return the type of that name."""
        return self._by_kind[kind]

    @property
    def kinds(self) -> list[str]:
        """The names of all types."""
        return list(self._by_kind)

    def checked(self, kinds: Sequence[str]) -> list[str]:
        """Return names of types, each once.

        Raises:
            InvalidError: One is not registered, or there is none.
        """
        for kind in kinds:
            if kind not in self._by_kind:
                raise InvalidError(f"there is no type {kind!r}; there are {', '.join(self._by_kind)}")
        if not kinds or isinstance(kinds, str):
            raise InvalidError(f"types must be a list of names, and not empty: {kinds!r}")
        return list(dict.fromkeys(kinds))

    def limits_of(self, kind: str) -> Limits:
        """Return what limits a type has."""
        return self._by_kind[kind].limits


def _check_importable(handler: Any, *, is_async: bool) -> None:
    name = getattr(handler, "__qualname__", "")
    if is_async or not name or "<" in name or getattr(handler, "__module__", "__main__") == "__main__":
        raise InvalidError(
            f"a handler that runs in a process must be a function of a module that it can import, not {handler!r}"
        )


def check_fields(payload: type[Any]) -> None:
    """Refuse a class that no payload could be read into, before each of its tasks fails for that."""
    try:
        converter().get_structure_hook(payload)
    except Exception as error:
        raise InvalidError(f"the fields of {payload.__name__} cannot be read from JSON: {error}") from error


def _same(accepted: tuple[type[Any], ...], value: object, kind: type[Any]) -> object:
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"it is no {kind.__name__}: {value!r:.100}")
    return kind(value)


@cache
def converter() -> Any:
    """Return what makes JSON of payloads, and payloads of JSON."""
    from cattrs.preconf.json import make_converter

    made = make_converter()
    made.register_structure_hook(UUID, lambda value, _: UUID(value))
    made.register_unstructure_hook(UUID, str)
    # Left to itself, cattrs makes text of whatever there is, and numbers of text.
    for kind, accepted in ((str, (str,)), (int, (int,)), (float, (int, float)), (bool, (bool,))):
        made.register_structure_hook(kind, partial(_same, accepted))
    return made
