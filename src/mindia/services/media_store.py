"""Media: `library.media`."""

from __future__ import annotations

import base64
import binascii
import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar, cast, overload
from uuid import UUID

from mindia._handles import Handle
from mindia._ids import uuid7
from mindia.db.session import Session
from mindia.describing.metadata import metadata_words
from mindia.domain.events import MediaEvent
from mindia.domain.media import Audio, Document, Image, Media, MediaKind, MediaPage, Metadata, Staged, Video
from mindia.errors import (
    DatabaseUnavailableError,
    InvalidError,
    MindiaError,
    NotFoundError,
    StagedObjectExpiredError,
)
from mindia.media.names import clean_filename, words_of
from mindia.media.spool import Spooled, spool
from mindia.repositories import media as repository
from mindia.repositories._text import storable
from mindia.services._keys import derived_prefix, original_key
from mindia.services._metadata import checked_metadata
from mindia.services.context import TenantContext

MAX_PAGE = 1000

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A path, bytes, or a file that is open for reading bytes."""

M = TypeVar("M", Image, Video, Audio, Document)

_log = logging.getLogger("mindia.media")


class MediaStore(Handle):
    """The media of one tenant. Thread-safe, unless it is that of a transaction."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context

    def stage(self, source: Source, *, filename: str | None = None, content_type: str | None = None) -> Staged:
        """Store and probe bytes without making an item of them yet.

        No database connection is held meanwhile. What is not added within `Settings.staging_grace` is removed.

        Args:
            source: A path, bytes, or a binary file, read from its position to its end.
            filename: Its name; by default that of the path or file.
            content_type: What the client says it is; must not contradict the bytes.

        Raises:
            MediaError: The bytes are not what can be taken in; its subclasses say why.
            TenantInactiveError: The tenant is suspended or deleted.
            StorageError: The object store failed.
        """
        context = self._context
        context.unit.run(lambda _: None)  # refuses an inactive tenant before the bytes are read
        with _opened(source) as file:
            original = filename or _name_of(source)
            name = clean_filename(original, fallback="unnamed")
            with spool(file, filename=name, settings=context.settings) as spooled:
                return self._store(spooled, storable(original)[:255], name, content_type)

    def _store(self, spooled: Spooled, original: str, name: str, declared: str | None) -> Staged:
        context = self._context
        probed = context.prober.probe(spooled.file, size=spooled.size, filename=name, declared=declared)
        bucket = context.bucket()
        key = context.leases.take(context.tenant_id, s3_bucket=bucket)
        staged = Staged(
            id=key,
            tenant_id=context.tenant_id,
            filename=name,
            original_filename=original or name,
            content_type=probed.content_type,
            file_size=spooled.size,
            sha256=spooled.sha256,
            facts=probed.facts,
        )
        spooled.file.seek(0)
        context.leases.put(context.storage, staged, spooled.file, s3_bucket=bucket)
        return staged

    def add(
        self,
        source: Source | Staged,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        description: str = "",
        metadata: Metadata | None = None,
        expires_at: datetime | None = None,
    ) -> Media:
        """Make an item: media row, search text, embedding task and webhook events, all or nothing.

        It is found by word as soon as this returns, and by vector once a worker has run.

        Args:
            source: A path, bytes, a binary file, or what `stage` returned.
            filename: Its name; by default that of the path or file. Not with what was staged.
            content_type: What the client says it is. Not with what was staged.
            description: What a person says about it; searched by word and vector.
            metadata: The host's own values: at most 50 keys of at most 64 characters, each value at most 512 bytes.
            expires_at: From when on it is not found any more; with time zone.

        Raises:
            MediaError: The bytes are not what can be taken in; its subclasses say why.
            InvalidError: Metadata or `expires_at` are not allowed.
            StagedObjectExpiredError: What was staged has been swept, or added already.
            TenantInactiveError: The tenant is suspended or deleted.
        """
        checked = checked_metadata(metadata)
        if expires_at is not None and expires_at.tzinfo is None:
            raise InvalidError(f"expires_at must have a time zone: {expires_at!r}")
        if isinstance(source, Staged):
            if filename is not None or content_type is not None:
                raise InvalidError("filename and content_type were settled by stage(); leave them out here")
            return self._add_staged(source, description, checked, expires_at)
        staged = self.stage(source, filename=filename, content_type=content_type)
        try:
            return self._add_staged(staged, description, checked, expires_at)
        except DatabaseUnavailableError:
            raise  # it may be committed all the same: the sweep will see
        except BaseException:
            self._discard(staged)
            raise

    def _add_staged(self, staged: Staged, description: str, metadata: Metadata, expires_at: datetime | None) -> Media:
        context = self._context
        if staged.tenant_id != context.tenant_id:
            raise NotFoundError(f"there is no staged object {staged.id}")
        words = metadata_words(metadata)
        new = repository.NewMedia(
            staged=staged,
            s3_key=original_key(staged.id),
            metadata=metadata,
            expires_at=expires_at,
            language=context.settings.language,
            title=words_of(staged.filename),
            description=storable(description),
            words=words,
            task_id=uuid7(),
            event=MediaEvent.of(staged, "uploaded", id=uuid7(), occurred_at=datetime.now(UTC)),
        )

        def work(session: Session) -> Media:
            added = repository.add(session, new)
            if added is None and session.repeated:
                added = repository.get(session, context.tenant_id, staged.id)
            if added is None:
                raise StagedObjectExpiredError(
                    f"the staged object {staged.id} ({staged.filename!r}) is not there any more: it was added already, "
                    "or not added within Settings.staging_grace: stage the bytes again. In a transaction of the "
                    "isolation level repeatable read or serializable, stage them before it begins"
                )
            return added

        return context.unit.run(work)

    @overload
    def get(self, media_id: UUID) -> Media: ...
    @overload
    def get(self, media_id: UUID, *, type: type[M]) -> M: ...
    def get(self, media_id: UUID, *, type: type[M] | None = None) -> Media | M:  # noqa: A002 - of the public interface
        """Return an item.

        Args:
            media_id: Its id.
            type: `Image`, `Video`, `Audio` or `Document`: an item of another kind is not found.

        Raises:
            NotFoundError: There is none, it has expired, is of another kind, or belongs to another tenant.
        """
        context = self._context
        found = context.unit.run(lambda session: repository.get(session, context.tenant_id, media_id))
        if found is None or not isinstance(found, type or object):
            what = "media item" if type is None else type.__name__.lower()
            raise NotFoundError(f"there is no {what} {media_id}")
        return found

    def find(self, *, kind: MediaKind | str | None = None, limit: int = 50, after: str | None = None) -> MediaPage:
        """Return a page of items, newest first.

        Args:
            kind: Only this kind.
            limit: How many, 1 to 1000.
            after: `MediaPage.next` of the page before.

        Raises:
            InvalidError: An argument is out of range.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidError(f"limit must be 1 to {MAX_PAGE}, not {limit}")
        place = None if after is None else _decode(after)
        wanted = None if kind is None else parse_kind(kind)
        context = self._context
        found = context.unit.run(
            lambda session: repository.page(session, context.tenant_id, kind=wanted, after=place, limit=limit + 1)
        )
        items = tuple(found[:limit])
        return MediaPage(items, _encode(items[-1]) if len(found) > limit else None)

    def open(self, media: Media | UUID) -> BinaryIO:
        """Open the bytes of an item for reading; seekable. The caller closes it.

        Raises:
            NotFoundError: There is no such item.
            StorageError: The object store failed.
        """
        item = self.get(media if isinstance(media, UUID) else media.id)
        return self._context.storage.open(self._context.bucket(), item.s3_key)

    def read(self, media: Media | UUID) -> bytes:
        """Return the bytes of an item.

        Raises:
            NotFoundError: There is no such item.
            StorageError: The object store failed.
        """
        with self.open(media) as file:
            return file.read()

    def delete(self, media: Media | UUID) -> None:
        """Delete an item with all that was made of it. Its bytes are removed by maintenance, soon after.

        Raises:
            NotFoundError: There is no such item.
        """
        context = self._context
        media_id = media if isinstance(media, UUID) else media.id
        event_id = uuid7()

        def work(session: Session) -> None:
            item = repository.get(session, context.tenant_id, media_id)
            deleted = item is not None and repository.delete(
                session,
                item,
                s3_keys=[item.s3_key],
                s3_prefixes=[derived_prefix(item.id)],
                event=MediaEvent.of(item, "deleted", id=event_id, occurred_at=datetime.now(UTC)),
            )
            if not deleted and not session.repeated:
                raise NotFoundError(f"there is no media item {media_id}")

        context.unit.run(work)

    def _discard(self, staged: Staged) -> None:
        """Remove what was staged for an item that did not come to be; what fails here is left to the sweep."""
        context = self._context
        try:
            context.leases.discard(context.storage, staged, s3_bucket=context.bucket())
        except MindiaError:
            _log.warning("staged object %s was not discarded; the sweep will remove it", staged.id, exc_info=True)


def parse_kind(kind: MediaKind | str) -> MediaKind:
    """Return the kind of that name.

    Raises:
        InvalidError: There is none.
    """
    try:
        return MediaKind(kind)
    except ValueError:
        raise InvalidError(f"kind must be one of {', '.join(MediaKind)}, not {kind!r}") from None


@contextmanager
def _opened(source: object) -> Iterator[BinaryIO]:
    match source:
        case str() | os.PathLike():
            path = Path(source)
            try:
                file = path.open("rb")
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise InvalidError(f"{str(source)!r} cannot be read: {reason}") from error
            with file:
                yield file
        case bytes() | bytearray() | memoryview():
            yield io.BytesIO(bytes(source))
        case io.TextIOBase():
            raise InvalidError(f"source must be open for reading bytes (mode 'rb'), not {type(source).__name__}")
        case _ if hasattr(source, "read"):
            yield cast("BinaryIO", source)
        case _:
            raise InvalidError(f"source must be a path, bytes or a binary file, not {type(source).__name__}")


def _name_of(source: Source) -> str:
    match source:
        case str() | os.PathLike():
            return Path(source).name
        case bytes() | bytearray() | memoryview():
            return ""
        case _:
            name = getattr(source, "name", "")
            return Path(name).name if isinstance(name, str) else ""


def _encode(media: Media) -> str:
    return base64.urlsafe_b64encode(f"{media.uploaded_at.isoformat()} {media.id}".encode()).decode()


def _decode(after: str) -> tuple[datetime, UUID]:
    try:
        uploaded_at, _, media_id = base64.urlsafe_b64decode(after).decode().partition(" ")
        place = datetime.fromisoformat(uploaded_at), UUID(media_id)
    except (ValueError, binascii.Error):
        raise InvalidError(f"after must be the `next` of a page, not {after[:80]!r}") from None
    if place[0].tzinfo is None:
        raise InvalidError(f"after must be the `next` of a page, not {after[:80]!r}")
    return place
