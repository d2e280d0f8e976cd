"""What was made of items, for an archive: as far as it is there as it was made, since it can be made again."""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import suppress
from datetime import datetime
from typing import BinaryIO, Self, cast
from uuid import UUID

import attrs

from mindia.config import Settings
from mindia.domain.archives import ArchivedDerivative, ArchivedFile, MissingDerivative
from mindia.domain.derivatives import Derivative
from mindia.domain.tenants import Tenant
from mindia.errors import InvalidError, ObjectNotFoundError
from mindia.media.hls_files import HEAD_BYTES, MAX_PLAYLIST_BYTES, StreamFiles, check_segment, is_playlist
from mindia.media.spool import disk_errors
from mindia.services.archive_format import MAX_LINE_BYTES, derivative_line
from mindia.services.archive_writer import ArchiveWriter, Lines, read_chunk
from mindia.storage.base import Storage


@attrs.frozen(kw_only=True)
class MadeRow:
    """Something of the snapshot that was made of an item. See `Derivative`."""

    media_id: UUID
    operations: str
    s3_key: str
    s3_prefix: str | None
    file_size: int
    file_count: int
    sha256: str | None
    width: int | None
    height: int | None
    created_at: datetime

    @classmethod
    def of(cls, made: Derivative) -> Self:
        """Return that of a row."""
        return cls(**{name: getattr(made, name) for name in attrs.fields_dict(cls)})

    def line_on_disk(self) -> bytes:
        """Return it as a line."""
        values = attrs.asdict(self) | {"media_id": str(self.media_id), "created_at": self.created_at.isoformat()}
        return json.dumps(values).encode() + b"\n"

    @classmethod
    def read(cls, line_on_disk: bytes) -> Self:
        """Return what is on a line."""
        values = json.loads(line_on_disk)
        return cls(
            **values
            | {"media_id": UUID(values["media_id"]), "created_at": datetime.fromisoformat(values["created_at"])}
        )


class DerivedExport:
    """Writes what was made of items into an archive.

    What is missing in the store, or is not what was put there, is left out.

    Attributes:
        missing: What was left out until now.

    Args:
        archive: The archive.
        storage: Where the bytes are.
        tenant: Whose they are.
        settings: Where bytes wait until they are known to be all there: in the archive nothing can be taken back.
        lines: Of what has been written.
    """

    def __init__(
        self, archive: ArchiveWriter, storage: Storage, tenant: Tenant, settings: Settings, lines: Lines
    ) -> None:
        self._archive = archive
        self._storage = storage
        self._bucket = tenant.s3_bucket
        self._folder = None if settings.spool_folder is None else str(settings.spool_folder)
        self._lines = lines
        self.missing: list[MissingDerivative] = []

    def write(self, row: MadeRow) -> None:
        """Write something that was made, or note that it is missing.

        Raises:
            StorageError: The store failed.
        """
        with disk_errors(self._folder):
            file = cast("BinaryIO", tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - closed below
        try:
            spooled = _Spooled(file, self._folder)
            try:
                made, line = self._read(row, spooled)
            except (ObjectNotFoundError, InvalidError, ValueError) as error:
                # Missing, changed, or so that a field does not take it: it is made again when it is asked for.
                self.missing.append(
                    MissingDerivative(media_id=row.media_id, operations=row.operations, reason=str(error))
                )
                return
            if not self._archive.has(made.sha256):
                self._archive.add_object(
                    spooled.from_start(), sha256=made.sha256, size=made.file_size, owner=_owner(row)
                )
            self._lines.add(line)
        finally:
            with suppress(OSError):  # what could not be written before cannot be written now
                file.close()

    def _read(self, row: MadeRow, spooled: _Spooled) -> tuple[ArchivedDerivative, bytes]:
        files = self._stream(row, row.s3_prefix, spooled) if row.s3_prefix else self._picture(row, spooled)
        made = ArchivedDerivative(
            media_id=row.media_id,
            operations=row.operations,
            file_size=spooled.size,
            sha256=spooled.digest.hexdigest(),
            files=files,
            width=row.width,
            height=row.height,
            created_at=row.created_at,
        )
        line = derivative_line(made)
        if len(line) > MAX_LINE_BYTES:
            raise InvalidError(f"{row.s3_prefix or row.s3_key} has too many files for a line of an archive")
        return made, line

    def _picture(self, row: MadeRow, spooled: _Spooled) -> tuple[ArchivedFile, ...]:
        self._copy(row.s3_key, spooled, limit=row.file_size, owner=_owner(row))
        if spooled.size != row.file_size or spooled.digest.hexdigest() != row.sha256:
            raise InvalidError(f"{row.s3_key} is not what was made")
        return ()

    def _stream(self, row: MadeRow, prefix: str, spooled: _Spooled) -> tuple[ArchivedFile, ...]:
        files: list[ArchivedFile] = []
        for found in self._storage.list(self._bucket, prefix=prefix):
            files.append(ArchivedFile(name=found.key.removeprefix(prefix), size=found.size))
            if len(files) > row.file_count:
                break
        if (len(files), sum(file.size for file in files)) != (row.file_count, row.file_size):
            raise InvalidError(f"{prefix} has not the files that were made")
        stream = StreamFiles([file.name for file in files])
        for file in files:
            before = spooled.size
            head = self._copy(prefix + file.name, spooled, limit=file.size, owner=_owner(row))
            if spooled.size - before != file.size:
                raise InvalidError(f"{prefix}{file.name} is not what was made")
            if not is_playlist(file.name):
                check_segment(file.name, head, file.size)
                continue
            if file.size > MAX_PLAYLIST_BYTES:
                raise InvalidError(f"{prefix}{file.name} is longer than a playlist may be")
            stream.read(file.name, spooled.read_again(before))
        stream.finish()
        return tuple(files)

    def _copy(self, key: str, spooled: _Spooled, *, limit: int, owner: str) -> bytes:
        """Copy an object to the disk, as much of it as is wanted and not much more; return how it begins."""
        end = spooled.size + limit
        head = b""
        with self._storage.open(self._bucket, key) as source:
            while spooled.size <= end and (chunk := read_chunk(source, owner)):
                head = head or chunk[:HEAD_BYTES]
                spooled.write(chunk)
        return head


class _Spooled:
    def __init__(self, file: BinaryIO, folder: str | None) -> None:
        self._file = file
        self._folder = folder
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        with disk_errors(self._folder):
            self._file.write(chunk)
        self.digest.update(chunk)
        self.size += len(chunk)

    def read_again(self, begin: int) -> bytes:
        """Return what was written from a place on; what comes next is written behind it."""
        with disk_errors(self._folder):
            self._file.seek(begin)
            return self._file.read()

    def from_start(self) -> BinaryIO:
        with disk_errors(self._folder):
            self._file.seek(0)
        return self._file


def _owner(row: MadeRow) -> str:
    return f"what was made of media item {row.media_id}"
