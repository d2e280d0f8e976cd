"""An object store in memory, for tests and for media that need not outlive the process."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from mindia.errors import BucketNotEmptyError, InvalidError, ObjectNotFoundError
from mindia.storage.base import StoredObject, check_bucket, check_key, check_prefix


class MemoryStorage:
    """Objects in a dictionary."""

    region = "local"

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], bytes] = {}
        self._lock = threading.Lock()

    def put(
        self,
        bucket: str,
        key: str,
        source: BinaryIO,
        *,
        content_type: str,  # noqa: ARG002 - of the port, as the next two
        disposition: str | None = None,  # noqa: ARG002 - of the port; there is none here
        region: str | None = None,  # noqa: ARG002 - of the port; there is none here
    ) -> None:
        """Store an object."""
        _check(bucket, key)
        content = source.read()
        with self._lock:
            self._objects[bucket, key] = content

    def open(self, bucket: str, key: str) -> BinaryIO:
        """Open an object for reading."""
        return io.BytesIO(self._content(bucket, key))

    def size(self, bucket: str, key: str) -> int:
        """Return the size in bytes."""
        return len(self._content(bucket, key))

    def exists(self, bucket: str, key: str) -> bool:
        """Tell whether the object is there."""
        _check(bucket, key)
        return (bucket, key) in self._objects

    def copy(self, bucket: str, key: str, *, to_bucket: str, to_key: str, region: str | None = None) -> None:  # noqa: ARG002 - of the port
        """Copy an object."""
        _check(to_bucket, to_key)
        content = self._content(bucket, key)
        with self._lock:
            self._objects[to_bucket, to_key] = content

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete objects; a missing one is fine."""
        for key in keys:  # which may come from a listing of this very store: the lock is taken for each
            _check(bucket, key)
            with self._lock:
                self._objects.pop((bucket, key), None)

    def delete_prefix(self, bucket: str, prefix: str) -> None:
        """Delete all objects whose keys begin with `prefix`."""
        if not prefix:
            raise InvalidError("prefix must not be empty")
        self.delete(bucket, [found.key for found in self.list(bucket, prefix=prefix)])

    def delete_bucket(self, bucket: str) -> None:
        """Delete a bucket without objects; a missing one is fine."""
        check_bucket(bucket)
        with self._lock:
            if any(within == bucket for within, _ in self._objects):
                raise BucketNotEmptyError(f"the bucket {bucket!r} has objects: delete them first")

    def list(self, bucket: str, *, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with `prefix` and come after `after`."""
        check_bucket(bucket)
        check_prefix(prefix)
        with self._lock:
            objects = [(key, len(content)) for (within, key), content in self._objects.items() if within == bucket]
        for key, size in sorted(objects):
            if key.startswith(prefix) and key > after:
                yield StoredObject(key, size)

    def _content(self, bucket: str, key: str) -> bytes:
        _check(bucket, key)
        try:
            return self._objects[bucket, key]
        except KeyError:
            raise ObjectNotFoundError(f"there is no object {key!r} in bucket {bucket!r}") from None


def _check(bucket: str, key: str) -> None:
    check_bucket(bucket)
    check_key(key)
