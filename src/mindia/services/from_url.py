"""Bytes that stand at a URL, as a source like others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import BinaryIO, cast

import attrs

from mindia.domain.media import MediaKind
from mindia.errors import InvalidError, TypeMismatchError
from mindia.media import sniff
from mindia.media.names import clean_filename
from mindia.media.probe import max_bytes as limit_of
from mindia.services.context import TenantContext


@attrs.frozen
class Found:
    """What stands at a URL, and how it is called."""

    file: BinaryIO
    filename: str


@contextmanager
def opened(
    context: TenantContext, url: str, *, filename: str | None, max_bytes: int | None, timeout: timedelta | None
) -> Iterator[Found]:
    """Open what stands at a URL; see `MediaStore.stage_from_url`."""
    from mindia.delivery.addresses import Guard
    from mindia.delivery.fetching import FetchLimits, fetched

    settings = context.tenant().settings
    if max_bytes is not None and (not isinstance(max_bytes, int) or max_bytes < 1):
        raise InvalidError(f"max_bytes must be at least 1, not {max_bytes!r}")
    if timeout is not None and (not isinstance(timeout, timedelta) or timeout <= timedelta()):
        raise InvalidError(f"timeout must be a timedelta that is longer than nothing, not {timeout!r}")
    most = max(limit_of(kind, settings) for kind in MediaKind)
    limits = FetchLimits(
        max_bytes=most if max_bytes is None else min(most, max_bytes),
        timeout_s=(timeout or settings.fetch_timeout).total_seconds(),
    )
    guard = Guard(allow_private=settings.fetch_allow_private)
    with fetched(url, guard=guard, limits=limits) as found:
        head = b""
        while len(head) < sniff.HEAD_BYTES and (content := found.file.read(sniff.HEAD_BYTES - len(head))):
            head += content
        file = cast("BinaryIO", _Headed(head, found.file))
        yield Found(file, filename or _fitting(found.filename, head))


class _Headed:
    """Reads what has been read already, and then the rest."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int) -> bytes:
        if not self._head:
            return self._rest.read(size)
        given, self._head = self._head[:size], self._head[size:]
        return given


def _fitting(name: str, head: bytes) -> str:
    """Return a name with an extension that fits the bytes: at URLs, it often does not."""
    plain = clean_filename(name, fallback="unnamed")
    found = sniff.sniff(head)
    if found is None:
        return plain
    try:
        sniff.check_name(found, filename=plain, declared=None)
    except TypeMismatchError:
        return f"{plain.rpartition('.')[0]}.{found.extensions[0]}"
    return plain
