"""Many items at once: what goes in, and what comes of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import BinaryIO, overload
from uuid import UUID

import attrs

from mindia.domain.media import Media, Metadata, Staged


@attrs.frozen
class MediaInput:
    """A source for `MediaStore.add_many`, with what `MediaStore.add` can be told of it.

    Attributes:
        source: A path, bytes, a binary file, an iterator of bytes, or what `stage` returned.
        filename: Its name; by default that of the path or file.
        content_type: What the client says it is.
        description: What a person says about it.
        metadata: The host's own values.
        expires_at: From when on it is not found any more.
        sanitize: Whether what the file tells beside its content is removed; None leaves it to `add_many`.
    """

    source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Iterator[bytes] | Staged
    filename: str | None = attrs.field(default=None, kw_only=True)
    content_type: str | None = attrs.field(default=None, kw_only=True)
    description: str = attrs.field(default="", kw_only=True)
    metadata: Metadata | None = attrs.field(default=None, kw_only=True)
    expires_at: datetime | None = attrs.field(default=None, kw_only=True)
    sanitize: bool | None = attrs.field(default=None, kw_only=True)


@attrs.frozen(kw_only=True)
class Progress:
    """How far many have come.

    Attributes:
        done: How many have ended, one way or the other.
        failed: How many of them have failed.
        total: How many there are, or None where that is not known beforehand.
    """

    done: int
    failed: int
    total: int | None


@attrs.frozen(kw_only=True)
class AddResult:
    """What came of one source: an item or an error.

    Attributes:
        position: Its place among the sources, from 0 on.
        media: The item, or None.
        error: Why there is none, or None.
    """

    position: int
    media: Media | None = None
    error: Exception | None = None


@attrs.frozen
class AddReport(Sequence[AddResult]):
    """What came of each source, in their order.

    Attributes:
        results: One for each source that was begun.
        cancelled: Whether sources may be left that were not begun.
    """

    results: tuple[AddResult, ...]
    cancelled: bool = False

    @property
    def added(self) -> tuple[Media, ...]:
        """The items."""
        return tuple(result.media for result in self.results if result.media is not None)

    @property
    def failed(self) -> tuple[AddResult, ...]:
        """Those with an error."""
        return tuple(result for result in self.results if result.error is not None)

    @overload
    def __getitem__(self, index: int) -> AddResult: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[AddResult, ...]: ...
    def __getitem__(self, index: int | slice) -> AddResult | tuple[AddResult, ...]:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[AddResult]:
        return iter(self.results)


@attrs.frozen(kw_only=True)
class DeleteResult:
    """What came of one item.

    Attributes:
        media_id: The item.
        error: Why it was not deleted, or None.
    """

    media_id: UUID
    error: Exception | None = None


@attrs.frozen
class DeleteReport(Sequence[DeleteResult]):
    """What came of each item, in their order.

    Attributes:
        results: One for each.
    """

    results: tuple[DeleteResult, ...]

    @property
    def deleted(self) -> tuple[UUID, ...]:
        """The ids of those that were deleted."""
        return tuple(result.media_id for result in self.results if result.error is None)

    @property
    def failed(self) -> tuple[DeleteResult, ...]:
        """Those with an error."""
        return tuple(result for result in self.results if result.error is not None)

    @overload
    def __getitem__(self, index: int) -> DeleteResult: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[DeleteResult, ...]: ...
    def __getitem__(self, index: int | slice) -> DeleteResult | tuple[DeleteResult, ...]:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[DeleteResult]:
        return iter(self.results)
