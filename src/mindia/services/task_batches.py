"""Many tasks, a thousand at a time: the next ones are put into JSON while the database writes those before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from uuid import UUID

import attrs

from mindia._ids import uuid7s
from mindia.domain.tasks import TaskInput
from mindia.errors import InvalidError
from mindia.repositories._text import storable
from mindia.repositories.tasks import NewTasks
from mindia.worker.registry import RegisteredTask, TaskRegistry

_BATCH = 1000
_MAX_DEDUP_KEY = 255


@attrs.frozen(kw_only=True)
class EncodedTasks:
    """A batch of tasks, ready to be written.

    Attributes:
        new: What they have in common.
        ids: Of each.
        payloads: As JSON.
        keys: Of each, or None; nothing where none has one.
    """

    new: NewTasks
    ids: Sequence[UUID]
    payloads: Sequence[str]
    keys: list[str | None]


@attrs.frozen
class _Inputs:
    """What is to become a batch.

    Attributes:
        payloads: Of each task.
        keys: Of each, or None; nothing where none has one.
    """

    payloads: Sequence[object]
    keys: Sequence[str | None] = ()


def encoded(
    payloads: Iterable[object | TaskInput], registry: TaskRegistry, new_of: Callable[[RegisteredTask], NewTasks]
) -> Iterator[tuple[EncodedTasks, Callable[[], None] | None]]:
    """Yield batches, each with what is best done while it is being written: it encodes the next one, if there is one.

    Where one cannot be made, or the payloads end with an exception, those before come first. Payloads are asked for
    between two batches only, as they may come from the same database.

    Raises:
        InvalidError: A payload's class is not registered or not that of the others, or it cannot be kept.
    """
    batches = _batches(payloads)
    before: _Encoding | None = None
    while True:
        try:
            inputs = next(batches, None)
            if inputs is not None:
                registered = _registered_alike(registry, inputs.payloads)
                following = _Encoding(registered, new_of(registered), inputs)
        except Exception:
            if before is not None:
                yield before.result(), None
            raise
        if before is not None:
            yield before.result(), None if inputs is None else following.make
        if inputs is None:
            return
        before = following


class _Encoding:
    """A batch that is encoded once, at the latest when it is asked for."""

    def __init__(self, registered: RegisteredTask, new: NewTasks, inputs: _Inputs) -> None:
        self._encode = partial(_encode, registered, new, inputs)
        self._made: EncodedTasks | None = None
        self._error: Exception | None = None

    def make(self) -> None:
        """Encode it; what goes wrong is raised by `result`."""
        try:
            self._made = self._encode() if self._made is None else self._made
        except Exception as error:  # noqa: BLE001 - it is kept
            self._error = error

    def result(self) -> EncodedTasks:
        """Return it encoded."""
        if self._made is None and self._error is None:
            self.make()
        if self._error is not None:
            raise self._error
        assert self._made is not None, "one of the two is there"
        return self._made


def checked_key(dedup_key: str | None) -> str | None:
    """Return a key that can be kept.

    Raises:
        InvalidError: It cannot.
    """
    if dedup_key is None:
        return None
    if not isinstance(dedup_key, str) or not 1 <= len(dedup_key) <= _MAX_DEDUP_KEY or storable(dedup_key) != dedup_key:
        raise InvalidError(f"dedup_key has 1 to {_MAX_DEDUP_KEY} characters of Unicode, no NUL: {dedup_key!r:.80}")
    return dedup_key


def _registered_alike(registry: TaskRegistry, payloads: Sequence[object]) -> RegisteredTask:
    registered = registry.of_payload(payloads[0])
    for other in set(map(type, payloads)) - {registered.payload}:
        raise InvalidError(
            f"enqueue_many takes payloads of one class, not {registered.payload.__name__} and {other.__name__}: "
            "call it once for each"
        )
    return registered


def _encode(registered: RegisteredTask, new: NewTasks, inputs: _Inputs) -> EncodedTasks:
    return EncodedTasks(
        new=new,
        ids=[*islice(uuid7s(), len(inputs.payloads))],
        payloads=registered.encode_many(inputs.payloads),
        keys=[checked_key(key) for key in inputs.keys],
    )


def _batches(payloads: Iterable[object | TaskInput]) -> Iterator[_Inputs]:
    left = iter(payloads)
    while batch := [*islice(left, _BATCH)]:
        if any(issubclass(each, TaskInput) for each in set(map(type, batch))):
            inputs = [each if isinstance(each, TaskInput) else TaskInput(payload=each) for each in batch]
            yield _Inputs([each.payload for each in inputs], [each.dedup_key for each in inputs])
        else:
            yield _Inputs(batch)
