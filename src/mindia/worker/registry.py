"""The types of tasks: payload class and handler of each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import attrs

from mindia.domain.tasks import Task, TaskType
from mindia.errors import DiscardTask, InvalidError

if TYPE_CHECKING:
    from mindia.library import Library

P = TypeVar("P")


@attrs.frozen(kw_only=True)
class TaskContext:
    """What a handler is given besides the payload.

    Attributes:
        task: The task, as it was claimed.
        tenant_library: The library of its tenant, or None for a task of the system.
    """

    task: Task
    tenant_library: Library | None = attrs.field(repr=False)

    @property
    def library(self) -> Library:
        """The library of the task's tenant.

        Raises:
            InvalidError: The task has no tenant.
        """
        if self.tenant_library is None:
            raise InvalidError(f"task {self.task.id} ({self.task.kind}) has no tenant, and so no library")
        return self.tenant_library


Handler = Callable[[TaskContext, P], None]


@attrs.frozen(kw_only=True)
class RegisteredTask:
    """A type of task.

    Attributes:
        kind: Its name.
        task_type: The label in the database.
        payload: The class of its payload.
        handler: What runs it.
    """

    kind: str
    task_type: TaskType
    payload: type[Any]
    handler: Handler[Any]

    def encode(self, payload: object) -> str:
        """Return a payload as JSON.

        Raises:
            InvalidError: It holds something that JSON cannot say.
        """
        try:
            return json.dumps(_converter().unstructure(payload), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidError(f"the payload {payload!r:.200} cannot be written as JSON: {error}") from error

    def decode(self, payload: object) -> Any:
        """Return a payload of what was read from the database.

        Raises:
            DiscardTask: It does not fit the class; trying again would not help.
        """
        try:
            return _converter().structure(payload, self.payload)
        except Exception as error:
            from cattrs import transform_error

            reasons = "; ".join(transform_error(error, path="payload"))
            raise DiscardTask(f"the payload does not fit {self.payload.__name__}: {reasons}") from error


class TaskRegistry:
    """Task types by name and by payload class."""

    def __init__(self) -> None:
        self._by_kind: dict[str, RegisteredTask] = {}
        self._by_payload: dict[type[Any], RegisteredTask] = {}

    def register(
        self, kind: str, payload: type[P], handler: Handler[P], *, task_type: TaskType = TaskType.CUSTOM
    ) -> None:
        """Add a type.

        Raises:
            InvalidError: The name is taken or not a name, the class is not attrs', stands for another type or has
                fields that cannot be read from JSON, or the handler is not a function that can be called in a thread.
        """
        if not isinstance(payload, type) or not attrs.has(payload):
            raise InvalidError(f"the payload must be an attrs class, decorated with @attrs.frozen, not {payload!r}")
        if not callable(handler) or iscoroutinefunction(handler):
            raise InvalidError(f"the handler must be a function that is not async, not {handler!r}")
        if not re.fullmatch(r"[a-z][a-z0-9_.]{0,99}", kind):
            raise InvalidError(f"a kind has up to 100 small letters, digits, dots and underscores, not {kind!r}")
        if kind in self._by_kind or (task_type is TaskType.CUSTOM and kind in tuple(TaskType)):
            raise InvalidError(f"the kind {kind!r} is registered already")
        if payload in self._by_payload:
            raise InvalidError(f"{payload.__name__} is the payload of {self._by_payload[payload].kind!r} already")
        if task_type is TaskType.CUSTOM:
            _check_fields(payload)
        registered = RegisteredTask(kind=kind, task_type=task_type, payload=payload, handler=handler)
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


def _check_fields(payload: type[Any]) -> None:
    """Refuse a class that no payload could be read into, before each of its tasks fails for that."""
    try:
        _converter().get_structure_hook(payload)
    except Exception as error:
        raise InvalidError(f"the fields of {payload.__name__} cannot be read from JSON: {error}") from error


@cache
def _converter() -> Any:
    from cattrs.preconf.json import make_converter

    converter = make_converter()
    converter.register_structure_hook(UUID, lambda value, _: UUID(value))
    converter.register_unstructure_hook(UUID, str)
    return converter
