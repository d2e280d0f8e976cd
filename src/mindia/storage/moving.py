"""Two object stores as one, while objects are copied from the one to the other."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, BinaryIO, TypeVar, cast

from mindia.errors import ObjectNotFoundError
from mindia.storage.base import DirectStorage, Storage, StoredObject, UploadedPart, UploadForm

T = TypeVar("T")

_COPIED_TYPE = "application/octet-stream"


class MovingStorage:
    """Writes to a new store, and reads from an old one what is not in the new one yet.

    While every process of an application has this as its storage, `app.maintenance.copy_objects(old, new)` copies what
    is in the old one. Then the new one alone takes its place. Signs addresses where the new one does.

    Args:
        old: Where the objects are.
        new: Where they are to be.
    """

    def __new__(cls, old: Storage, new: Storage) -> MovingStorage:  # noqa: ARG004, D102 - by what the new one can do
        kind = _DirectMovingStorage if cls is MovingStorage and isinstance(new, DirectStorage) else cls
        return object.__new__(kind)

    def __init__(self, old: Storage, new: Storage) -> None:
        self.old = old
        self.new = new

    def __repr__(self) -> str:
        return f"MovingStorage({self.old!r}, {self.new!r})"

    @property
    def region(self) -> str:
        """The region that new buckets are in."""
        return self.new.region

    def put(
        self,
        bucket: str,
        key: str,
        source: BinaryIO,
        *,
        content_type: str,
        disposition: str | None = None,
        region: str | None = None,
    ) -> None:
        """Store an object in the new store."""
        self.new.put(
            bucket, key, source, content_type=content_type, disposition=disposition, region=self._region(region)
        )

    def open(self, bucket: str, key: str) -> BinaryIO:
        """Open an object for reading."""
        return self._either(lambda storage: storage.open(bucket, key))

    def size(self, bucket: str, key: str) -> int:
        """Return the size in bytes."""
        return self._either(lambda storage: storage.size(bucket, key))

    def exists(self, bucket: str, key: str) -> bool:
        """Tell whether the object is there."""
        return self.new.exists(bucket, key) or self.old.exists(bucket, key)

    def copy(self, bucket: str, key: str, *, to_bucket: str, to_key: str, region: str | None = None) -> None:
        """Copy an object, from whichever store has it to the new one."""
        try:
            self.new.copy(bucket, key, to_bucket=to_bucket, to_key=to_key, region=self._region(region))
        except ObjectNotFoundError:
            with self.old.open(bucket, key) as source:
                self.put(to_bucket, to_key, source, content_type=_COPIED_TYPE, region=region)

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete objects; a missing one is fine."""
        # From the old store first: who copies one puts it into the new store, and looks then whether the old one still
        # has it.
        each = list(keys)
        self.old.delete(bucket, each)
        self.new.delete(bucket, each)

    def delete_prefix(self, bucket: str, prefix: str) -> None:
        """Delete all objects whose keys begin with `prefix`."""
        self.old.delete_prefix(bucket, prefix)
        self.new.delete_prefix(bucket, prefix)

    def delete_bucket(self, bucket: str) -> None:
        """Delete a bucket without objects; a missing one is fine."""
        self.old.delete_bucket(bucket)
        self.new.delete_bucket(bucket)

    def list(self, bucket: str, *, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        """Yield the objects of both stores, each once."""
        old, new = (storage.list(bucket, prefix=prefix, after=after) for storage in (self.old, self.new))
        last = None
        # Of two with the same key, that of the first iterable comes first.
        for found in heapq.merge(new, old, key=lambda each: each.key):
            if found.key != last:
                last = found.key
                yield found

    def _either(self, call: Callable[[Storage], T]) -> T:
        try:
            return call(self.new)
        except ObjectNotFoundError:
            pass
        try:
            return call(self.old)
        except ObjectNotFoundError:
            # It may have been written between the two.
            return call(self.new)

    def _region(self, region: str | None) -> str | None:
        """Return the region of a bucket that is made anew; that of a bucket of the old store is none of the new one."""
        return None if region == self.old.region else region


class _DirectMovingStorage(MovingStorage):
    """The same, where the new store signs addresses."""

    @property
    def _direct(self) -> DirectStorage:
        return cast("DirectStorage", self.new)

    def url(self, bucket: str, key: str, **arguments: Any) -> str | None:
        """Return an address of an object at the store that has it; None where the host is to serve it."""
        if self.new.exists(bucket, key):
            return self._direct.url(bucket, key, **arguments)
        return self.old.url(bucket, key, **arguments) if isinstance(self.old, DirectStorage) else None

    def upload_form(
        self,
        bucket: str,
        key: str,
        *,
        content_type: str,
        max_bytes: int,
        expires_in: timedelta,
        region: str | None = None,
    ) -> UploadForm:
        """Return what a browser needs to store an object in the new store."""
        return self._direct.upload_form(
            bucket,
            key,
            content_type=content_type,
            max_bytes=max_bytes,
            expires_in=expires_in,
            region=self._region(region),
        )

    def begin_parts(self, bucket: str, key: str, *, content_type: str, region: str | None = None) -> str:
        """Begin an upload in parts to the new store."""
        return self._direct.begin_parts(bucket, key, content_type=content_type, region=self._region(region))

    def part_url(self, bucket: str, key: str, *, upload_id: str, number: int, size: int, expires_in: timedelta) -> str:
        """Return an address of the new store for a part."""
        return self._direct.part_url(bucket, key, upload_id=upload_id, number=number, size=size, expires_in=expires_in)

    def uploaded_parts(self, bucket: str, key: str, *, upload_id: str) -> Sequence[UploadedPart]:
        """Return the parts that the new store has."""
        return self._direct.uploaded_parts(bucket, key, upload_id=upload_id)

    def complete_parts(self, bucket: str, key: str, *, upload_id: str, parts: Sequence[UploadedPart]) -> None:
        """Make the object of its parts."""
        self._direct.complete_parts(bucket, key, upload_id=upload_id, parts=parts)

    def abort_parts(self, bucket: str, key: str, *, upload_id: str) -> None:
        """Remove an upload with its parts."""
        self._direct.abort_parts(bucket, key, upload_id=upload_id)
