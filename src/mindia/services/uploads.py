"""Uploads that clients make by themselves: the part of `library.media` that begins and completes them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import BinaryIO
from uuid import UUID

import attrs

from mindia._ids import uuid7
from mindia.db.session import Session
from mindia.domain.media import MediaKind, Staged
from mindia.domain.uploads import Upload, UploadPart
from mindia.errors import (
    InvalidError,
    MediaError,
    MindiaError,
    NotFoundError,
    ObjectNotFoundError,
    TenantInactiveError,
    TooLargeError,
    UploadClosedError,
    UploadExpiredError,
    UploadIncompleteError,
)
from mindia.media import sniff
from mindia.media.names import clean_filename
from mindia.media.probe import max_bytes as limit_of
from mindia.repositories import uploads as repository
from mindia.repositories.uploads import UploadRow
from mindia.services import ingest, upload_urls
from mindia.services._keys import upload_key, upload_part_key
from mindia.services.media_reader import MediaReader
from mindia.services.upload_places import UploadPlace, limited, place_of
from mindia.services.upload_urls import UploadTicket
from mindia.storage.base import MAX_PARTS, MIN_PART_BYTES, DirectStorage

DEFAULT_PART_BYTES = 16 << 20
MAX_LIFETIME = timedelta(days=7)
"""As long as an object store signs for."""

_CHUNK = 1 << 18
_MAX_TYPE = 100

_log = logging.getLogger("mindia.media")


class MediaUploads(MediaReader):
    """Lets clients bring bytes to where they are kept, past the host."""

    def begin_upload(
        self,
        filename: str,
        *,
        content_type: str | None = None,
        max_bytes: int | None = None,
        file_size: int | None = None,
        part_bytes: int = DEFAULT_PART_BYTES,
        expires_in: timedelta = timedelta(hours=1),
    ) -> Upload:
        """Give a client a place to put a file: `complete_upload` makes of it what `stage` returns.

        It is a form for a browser; of a file that is larger than a part, and whose size is known, addresses for its
        parts, which can be put in any order, several at once, and again. An object store that signs addresses takes
        the bytes itself, `mindia.serving` otherwise. What is not completed is removed some time after it has expired.

        It is on record at once, also in a transaction that is not committed.

        Args:
            filename: Its name.
            content_type: What the client says it is; must not contradict the bytes.
            max_bytes: How many bytes it may have; at most as many as its kind may have, which is the default.
            file_size: How many it will have, where that is known; it must have as many then.
            part_bytes: How long parts are, 5 MiB at least.
            expires_in: How long bytes are taken, and the upload can be completed; up to 7 days.

        Raises:
            InvalidError: An argument is not allowed, or `Settings.public_url` or `secret_key` is missing where the host
                takes the bytes.
            UnsupportedTypeError: The declared type is none of the allowed ones.
            TypeMismatchError: The extension contradicts the declared type.
            TooLargeError: `file_size` is more than is allowed.
            TenantInactiveError: The tenant is suspended or deleted.
            StorageError: The object store failed.
        """
        context = self._context
        if not isinstance(filename, str):
            raise InvalidError(f"filename must be a text, not {type(filename).__name__}")
        if not isinstance(expires_in, timedelta) or not timedelta(seconds=1) <= expires_in <= MAX_LIFETIME:
            raise InvalidError(f"expires_in must be a timedelta of a second to 7 days, not {expires_in!r}")
        name = clean_filename(filename, fallback="unnamed")
        kind = _kind_of(name, content_type)
        if not isinstance(context.storage, DirectStorage):
            upload_urls.checked_root(context.settings)
        context.as_member.run(lambda _: None, single=True)
        settings = context.tenant().settings
        most = limit_of(kind, settings) if kind is not None else max(limit_of(each, settings) for each in MediaKind)
        limit = most if max_bytes is None else min(most, _checked_count("max_bytes", max_bytes))
        if file_size is not None and _checked_count("file_size", file_size) > limit:
            raise TooLargeError(f"{name!r} has {file_size} bytes; the limit is {limit}")
        row = context.leases.aside(context.tenant_id).run(
            partial(
                repository.begin,
                tenant_id=context.tenant_id,
                upload_id=uuid7(),
                s3_bucket=context.bucket(),
                filename=name,
                original_filename=ingest.as_handed_in(filename) or name,
                content_type=content_type,
                max_bytes=limit,
                file_size=file_size,
                part_size=_part_size(file_size, part_bytes),
                initiated_by=context.initiator,
                expires_at=datetime.now(UTC) + expires_in,
            ),
            single=True,
        )
        if row is None:
            raise TenantInactiveError(f"tenant {context.tenant_id} is deleted")
        region = context.tenant().s3_region
        multipart_id = self._place(row, region=region).begin()
        if multipart_id is not None:
            row = attrs.evolve(row, multipart_id=multipart_id)
            context.leases.aside(context.tenant_id).run(
                partial(
                    repository.set_multipart,
                    tenant_id=context.tenant_id,
                    upload_id=row.id,
                    multipart_id=multipart_id,
                ),
                single=True,
            )
        return self._shown(row, received={}, region=region)

    def get_upload(self, upload: Upload | UUID) -> Upload:
        """Return an upload as it is now: what has arrived, and addresses for what has not, for a client that goes on.

        Args:
            upload: The upload or its id.

        Raises:
            NotFoundError: There is none, or its time has been over for long.
            StorageError: The object store failed.
        """
        row = self._row(upload)
        return self._shown(row, received={} if row.closed_at is not None else self._place(row).received())

    def complete_upload(self, upload: Upload | UUID, *, sanitize: bool | None = None) -> Staged:
        """Make of what a client has uploaded what `stage` returns: type, size and sha256 are those of the bytes.

        An upload that cannot be taken in, as it is of another type or too large, is removed, and cannot be completed
        any more. One that has not arrived as a whole stays as it is.

        Args:
            upload: The upload or its id.
            sanitize: As for `stage`.

        Raises:
            NotFoundError: There is no such upload, or its time has been over for long.
            UploadIncompleteError: Not all of it is there.
            UploadClosedError: It was completed or aborted before.
            UploadExpiredError: Its time is over.
            MediaError: The bytes are not what can be taken in; its subclasses say why.
            TenantInactiveError: The tenant is suspended or deleted.
            StorageError: The object store failed.
        """
        context = self._context
        row = self._open_row(upload)
        place = self._place(row)
        try:
            with (
                place.opened() as file,
                limited(file, row) as source,
                ingest.received(
                    context, source, filename=row.original_filename, content_type=row.content_type
                ) as incoming,
            ):
                if incoming.spooled.size > row.max_bytes:
                    raise TooLargeError(
                        f"{row.filename!r} has {incoming.spooled.size} bytes; the upload may have {row.max_bytes}"
                    )
                staged = ingest.stage(context, incoming, sanitize=self._sanitize(sanitize))
        except MediaError:
            self._close(row, staged_id=None)
            self._remove(place, row)
            raise
        except (ObjectNotFoundError, UploadIncompleteError):
            self._open_row(row.id, role_is_known=True)  # whoever has ended it meanwhile has removed its bytes
            raise
        try:
            is_ours = self._close(row, staged_id=staged.id)
        except BaseException:
            ingest.discard(context, staged)
            raise
        if not is_ours:
            ingest.discard(context, staged)
            raise _closed(row)
        self._remove(place, row)
        return staged

    def abort_upload(self, upload: Upload | UUID) -> None:
        """End an upload and remove what has arrived of it; one that was aborted before is fine.

        Args:
            upload: The upload or its id.

        Raises:
            NotFoundError: There is none, or its time has been over for long.
            UploadClosedError: It was completed before.
        """
        row = self._row(upload)
        if row.staged_id is not None or not (row.closed_at or self._close(row, staged_id=None)):
            row = self._row(upload)
            if row.staged_id is not None:
                raise _closed(row)
        self._remove(self._place(row), row)

    def _receive(self, ticket: UploadTicket, source: BinaryIO, *, length: int | None) -> None:
        """Take bytes of an upload, for `mindia.serving`.

        Args:
            ticket: What the client may do.
            source: What it sends. What this raises passes through, and nothing is kept then.
            length: How many bytes it sends, where that is known.
        """
        context = self._context
        row = self._open_row(ticket.upload_id, role_is_known=True)
        settings = context.tenant().settings  # refuses a tenant that is not served
        key, exact = upload_key(row.id), row.file_size
        if ticket.part is not None or row.part_size is not None:
            parts = place_of(row, context.storage, settings).parts()
            part = next((each for each in parts if each.number == ticket.part), None)
            if part is None:
                raise InvalidError(f"the upload {row.id} has no part {ticket.part or 'that is the whole'}")
            key, exact = upload_part_key(row.id, part.number), part.size
        reader = _Received(source, row, exact=exact, most=exact or row.max_bytes)
        reader.check(length)
        context.storage.put(row.s3_bucket, key, reader, content_type="application/octet-stream")  # type: ignore[arg-type]  # it reads
        try:
            self._open_row(row.id, role_is_known=True)
        except MindiaError:
            # Ended meanwhile: nobody will come to look for these bytes.
            context.storage.delete(row.s3_bucket, [key])
            raise

    def _place(self, row: UploadRow, *, region: str | None = None) -> UploadPlace:
        return place_of(row, self._context.storage, self._context.settings, region=region)

    def _row(self, upload: Upload | UUID, *, role_is_known: bool = False) -> UploadRow:
        context = self._context
        upload_id = upload if isinstance(upload, UUID) else upload.id
        if not role_is_known:
            context.as_member.run(lambda _: None, single=True)
        # Apart from a transaction that may be open, as it was written.
        row = context.leases.aside(context.tenant_id).run(
            partial(repository.get, tenant_id=context.tenant_id, upload_id=upload_id), single=True
        )
        if row is None:
            raise NotFoundError(f"there is no upload {upload_id}")
        return row

    def _open_row(self, upload: Upload | UUID, *, role_is_known: bool = False) -> UploadRow:
        row = self._row(upload, role_is_known=role_is_known)
        if row.closed_at is not None:
            raise _closed(row)
        if row.expires_at <= datetime.now(UTC):
            raise UploadExpiredError(f"the upload {row.id} has expired at {row.expires_at}: begin another one")
        return row

    def _close(self, row: UploadRow, *, staged_id: UUID | None) -> bool:
        def work(session: Session) -> bool:
            is_closed = repository.close(session, row.tenant_id, row.id, staged_id=staged_id)
            return is_closed or (session.repeated and staged_id is None)

        return self._context.leases.aside(row.tenant_id).run(work, single=True)

    def _remove(self, place: UploadPlace, row: UploadRow) -> None:
        try:
            place.remove()
        except MindiaError:
            _log.warning("the bytes of upload %s were not removed; the sweep will do so", row.id, exc_info=True)

    def _shown(self, row: UploadRow, *, received: dict[int, int], region: str | None = None) -> Upload:
        place = self._place(row, region=region)
        is_open = row.closed_at is None and row.expires_at > datetime.now(UTC)
        parts = []
        for part in place.parts():
            is_received = received.get(part.number) == part.size
            url = place.part_url(part) if is_open and not is_received else None
            parts.append(UploadPart(
                number=part.number, start=part.start, size=part.size, url=url, is_received=is_received
            ))  # fmt: skip
        form = place.form() if is_open and not parts else None
        return Upload(
            id=row.id,
            tenant_id=row.tenant_id,
            filename=row.filename,
            content_type=row.content_type,
            max_bytes=row.max_bytes,
            file_size=row.file_size,
            url=None if form is None else form.url,
            fields={} if form is None else form.fields,
            parts=tuple(parts),
            expires_at=row.expires_at,
            received_bytes=sum(part.size for part in parts if part.is_received) if parts else received.get(0, 0),
            is_open=is_open,
            staged_id=row.staged_id,
        )

    def _sanitize(self, given: bool | None) -> bool:  # noqa: FBT001 - as it was given
        return self._context.settings.sanitize if given is None else given


class _Received:
    """Reads what a client sends: as much as was announced, or up to a limit, and before the time is over."""

    def __init__(self, source: BinaryIO, row: UploadRow, *, exact: int | None, most: int) -> None:
        self._source = source
        self._row = row
        self._exact = exact
        self._most = most
        self._count = 0

    def check(self, count: int | None, *, is_all: bool = True) -> None:
        """Raise where so many bytes are too many, or, if they are all, too few."""
        if count is None:
            return
        if count > self._most:
            raise TooLargeError(f"the upload {self._row.id} takes {self._most} bytes here, not {count}")
        if is_all and self._exact is not None and count != self._exact:
            raise UploadIncompleteError(f"the upload {self._row.id} takes {self._exact} bytes here, not {count}")

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        if self._row.expires_at <= datetime.now(UTC):
            raise UploadExpiredError(f"the upload {self._row.id} has expired while it was under way")
        content = self._source.read(size)
        self._count += len(content)
        self.check(self._count, is_all=not content)
        return content


def _closed(row: UploadRow) -> UploadClosedError:
    return UploadClosedError(f"the upload {row.id} ({row.filename!r}) was completed or aborted before")


def _kind_of(name: str, content_type: str | None) -> MediaKind | None:
    """Return the kind that a file is said to be of, if it is.

    Raises:
        UnsupportedTypeError: It is of none of the allowed types.
        TypeMismatchError: Name and type contradict each other.
    """
    if content_type is not None and (not isinstance(content_type, str) or len(content_type) > _MAX_TYPE):
        raise InvalidError(f"content_type must be a text of at most {_MAX_TYPE} characters, not {content_type!r:.120}")
    claimed = sniff.of_claims(name, content_type)
    return None if claimed is None else claimed.kind


def _checked_count(name: str, count: int) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count < 1 << 50:
        raise InvalidError(f"{name} must be at least 1, not {count!r}")
    return count


def _part_size(file_size: int | None, part_bytes: int) -> int | None:
    """Return how long parts are, or None where it comes in one piece."""
    if _checked_count("part_bytes", part_bytes) < MIN_PART_BYTES:
        raise InvalidError(f"part_bytes must be at least {MIN_PART_BYTES}, not {part_bytes}")
    if file_size is None or file_size <= part_bytes:
        return None
    return max(part_bytes, -(-file_size // MAX_PARTS))
