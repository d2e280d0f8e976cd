"""Where clients put the bytes of an upload: at the object store itself, or at the host where that has no addresses."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, cast

import attrs

from mindia.config import Settings
from mindia.domain.uploads import UploadPart
from mindia.errors import ObjectNotFoundError, UploadIncompleteError
from mindia.media import sniff
from mindia.media.names import extension_of
from mindia.repositories.uploads import UploadRow
from mindia.services import upload_urls
from mindia.services._keys import upload_key, upload_part_key, upload_prefix
from mindia.storage.base import DirectStorage, Storage, UploadedPart

_UNKNOWN = "application/octet-stream"
_LEAST_LIFETIME = timedelta(seconds=1)


@attrs.frozen
class Form:
    """Where a form goes, with which fields."""

    url: str
    fields: Mapping[str, str]


class UploadPlace(ABC):
    """Where the bytes of one upload come."""

    def __init__(self, row: UploadRow) -> None:
        self._row = row

    def begin(self) -> str | None:
        """Make it ready for parts; return what the object store calls the upload, if it does."""
        return None

    @abstractmethod
    def form(self) -> Form:
        """Return where an upload in one piece goes."""

    @abstractmethod
    def part_url(self, part: UploadPart) -> str:
        """Return where a part goes."""

    @abstractmethod
    def received(self) -> dict[int, int]:
        """Return how many bytes have come of each part, 0 standing for an upload in one piece."""

    @abstractmethod
    def opened(self) -> closing[BinaryIO]:
        """Open all bytes that have come, which are whole.

        Raises:
            UploadIncompleteError: They are not.
        """

    @abstractmethod
    def remove(self) -> None:
        """Remove all that has come."""

    def parts(self) -> Iterator[UploadPart]:
        """Yield the parts as they are cut."""
        row = self._row
        if row.part_size is None or row.file_size is None:
            return
        for number, start in enumerate(range(0, row.file_size, row.part_size), start=1):
            size = min(row.part_size, row.file_size - start)
            yield UploadPart(number=number, start=start, size=size, url=None, is_received=False)

    def _require_all_parts(self) -> None:
        received = self.received()
        missing = [part.number for part in self.parts() if received.get(part.number) != part.size]
        if missing:
            shown = ", ".join(map(str, missing[:20])) + (", …" if len(missing) > 20 else "")
            raise UploadIncompleteError(f"of the upload {self._row.id} parts are missing: {shown}")

    def _incomplete(self) -> UploadIncompleteError:
        return UploadIncompleteError(f"of the upload {self._row.id} nothing has arrived, or not to its end")


class PlaceAtHost(UploadPlace):
    """At `mindia.serving`, which keeps each part as an object of its own."""

    def __init__(self, row: UploadRow, storage: Storage, settings: Settings) -> None:
        super().__init__(row)
        self._storage = storage
        self._settings = settings

    def form(self) -> Form:
        """Return the address at the host; it needs no fields."""
        return Form(self._url(None), {})

    def part_url(self, part: UploadPart) -> str:
        """Return the address at the host."""
        return self._url(part.number)

    def _url(self, part: int | None) -> str:
        row = self._row
        return upload_urls.sign(row.tenant_id, row.id, part=part, expires_at=row.expires_at, settings=self._settings)

    def received(self) -> dict[int, int]:
        """Look at the objects."""
        row = self._row
        sizes = {each.key: each.size for each in self._storage.list(row.s3_bucket, prefix=upload_prefix(row.id))}
        keys = {0: upload_key(row.id)} | {part.number: upload_part_key(row.id, part.number) for part in self.parts()}
        return {number: sizes[key] for number, key in keys.items() if key in sizes}

    def opened(self) -> closing[BinaryIO]:
        """Open the parts, one behind the other."""
        row = self._row
        keys = [upload_key(row.id)]
        if row.part_size is not None:
            self._require_all_parts()
            keys = [upload_part_key(row.id, part.number) for part in self.parts()]
        try:
            return closing(cast("BinaryIO", _Chained(self._storage, row.s3_bucket, keys)))
        except ObjectNotFoundError:
            raise self._incomplete() from None

    def remove(self) -> None:
        """Delete the objects."""
        self._storage.delete_prefix(self._row.s3_bucket, upload_prefix(self._row.id))


class PlaceAtStore(UploadPlace):
    """At the object store, at addresses that it has signed."""

    def __init__(self, row: UploadRow, storage: DirectStorage, *, region: str | None) -> None:
        super().__init__(row)
        self._storage = storage
        self._region = region
        self._key = upload_key(row.id)

    def begin(self) -> str | None:
        """Begin an upload in parts."""
        row = self._row
        if row.part_size is None:
            return None
        return self._storage.begin_parts(row.s3_bucket, self._key, content_type=_type_of(row), region=self._region)

    def form(self) -> Form:
        """Return the address with the fields that it takes."""
        row = self._row
        form = self._storage.upload_form(
            row.s3_bucket,
            self._key,
            content_type=_type_of(row),
            max_bytes=row.file_size or row.max_bytes,
            expires_in=_left(row),
            region=self._region,
        )
        return Form(form.url, dict(form.fields))

    def part_url(self, part: UploadPart) -> str:
        """Return the address that takes so many bytes."""
        row = self._row
        return self._storage.part_url(
            row.s3_bucket,
            self._key,
            upload_id=self._multipart_id,
            number=part.number,
            size=part.size,
            expires_in=_left(row),
        )

    @property
    def _multipart_id(self) -> str:
        if self._row.multipart_id is None:  # the process died between the two: nobody was told of the upload
            raise self._incomplete()
        return self._row.multipart_id

    def received(self) -> dict[int, int]:
        """Ask the store."""
        row = self._row
        if row.part_size is None:
            try:
                return {0: self._storage.size(row.s3_bucket, self._key)}
            except ObjectNotFoundError:
                return {}
        return {part.number: part.size for part in self._uploaded()}

    def _uploaded(self) -> Sequence[UploadedPart]:
        row = self._row
        try:
            return self._storage.uploaded_parts(row.s3_bucket, self._key, upload_id=self._multipart_id)
        except ObjectNotFoundError:
            return ()

    def opened(self) -> closing[BinaryIO]:
        """Open the object, which is made of its parts before, where it comes in parts."""
        row = self._row
        if row.part_size is not None and not self._storage.exists(row.s3_bucket, self._key):
            self._require_all_parts()
            wanted = {part.number for part in self.parts()}
            with suppress(ObjectNotFoundError):  # another call has made the object of them at the same time
                self._storage.complete_parts(
                    row.s3_bucket,
                    self._key,
                    upload_id=self._multipart_id,
                    parts=[part for part in self._uploaded() if part.number in wanted],
                )
        try:
            return closing(self._storage.open(row.s3_bucket, self._key))
        except ObjectNotFoundError:
            raise self._incomplete() from None

    def remove(self) -> None:
        """Delete the object, and parts that it was not made of."""
        self._storage.delete(self._row.s3_bucket, [self._key])


@contextmanager
def limited(file: BinaryIO, row: UploadRow) -> Iterator[BinaryIO]:
    """Let a file be read that has as many bytes as were announced.

    Raises:
        UploadIncompleteError: It has not.
    """
    yield cast("BinaryIO", _Counted(file, row))


class _Counted:
    def __init__(self, file: BinaryIO, row: UploadRow) -> None:
        self._file = file
        self._row = row
        self._count = 0

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._count += len(content)
        announced = self._row.file_size
        if announced is not None and (self._count > announced or (not content and self._count < announced)):
            raise UploadIncompleteError(
                f"the upload {self._row.id} has {self._count} bytes{' or more' * bool(content)}; "
                f"{announced} were announced"
            )
        return content


class _Chained(io.RawIOBase):
    """Objects, one behind the other."""

    def __init__(self, storage: Storage, bucket: str, keys: Sequence[str]) -> None:
        self._opened = (storage.open(bucket, key) for key in keys)
        self._file: BinaryIO | None = next(self._opened)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while self._file is not None:
            if content := self._file.read(size):
                return content
            self._file.close()
            self._file = next(self._opened, None)
        return b""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


def place_of(row: UploadRow, storage: Storage, settings: Settings, *, region: str | None = None) -> UploadPlace:
    """Return where the bytes of an upload come."""
    if isinstance(storage, DirectStorage):
        return PlaceAtStore(row, storage, region=region)
    return PlaceAtHost(row, storage, settings)


def _type_of(row: UploadRow) -> str:
    """Return a type that a browser may be told of bytes that nobody has looked at: an allowed one, or none."""
    plain = (row.content_type or "").partition(";")[0].strip().lower()
    extension = extension_of(row.filename)
    return next(
        (
            kind.content_type
            for kind in sniff.ALLOWED
            if plain in (kind.content_type, *kind.aliases) or (not plain and extension in kind.extensions)
        ),
        _UNKNOWN,
    )


def _left(row: UploadRow) -> timedelta:
    return max(row.expires_at - datetime.now(UTC), _LEAST_LIFETIME)
