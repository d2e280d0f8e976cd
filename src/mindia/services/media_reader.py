"""Finding and reading media: the half of `library.media` that changes nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, TypeVar, Unpack, overload
from uuid import UUID

from mindia._handles import Handle
from mindia._ids import uuid7
from mindia.db.session import Session
from mindia.domain.derivatives import Derivative
from mindia.domain.filters import Filters, MediaOrder
from mindia.domain.media import Audio, Disposition, Document, Image, Media, MediaPage, Video
from mindia.errors import InvalidError, MindiaError, NotFoundError, StorageError
from mindia.media.names import content_disposition
from mindia.repositories import derivatives as derivative_repository
from mindia.repositories import media as repository
from mindia.repositories import media_find
from mindia.services import signed_urls
from mindia.services._named import named, shown
from mindia.services.context import TenantContext
from mindia.services.previews import MediaPreviews
from mindia.services.selection import name_place, place_after, place_before, selection
from mindia.services.stored import StoredFile
from mindia.storage.base import DirectStorage

MAX_PAGE = 1000

_CHUNK = 1 << 20

M = TypeVar("M", Image, Video, Audio, Document)


class MediaReader(Handle):
    """Finds and reads the media of one tenant."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context

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
        found = context.as_viewer.run(lambda session: repository.get(session, context.tenant_id, media_id), single=True)
        if found is None or not isinstance(found, type or object):
            what = "media item" if type is None else type.__name__.lower()
            raise NotFoundError(f"there is no {what} {media_id}")
        return found

    def get_many(self, media_ids: Iterable[UUID]) -> list[Media]:
        """Return items in the order of their ids, without those that are not found.

        Args:
            media_ids: Any number of them; one that is given twice is returned once.
        """
        context = self._context
        ids = list(dict.fromkeys(media_ids))
        found: dict[UUID, Media] = {}
        for start in range(0, len(ids), MAX_PAGE):
            part = ids[start : start + MAX_PAGE]
            items = context.as_viewer.run(
                lambda session, part=part: repository.get_many(session, context.tenant_id, part),  # type: ignore[misc]  # mypy cannot type the default
                single=True,
            )
            found |= {item.id: item for item in items}
        return [found[media_id] for media_id in ids if media_id in found]

    def find(
        self,
        *,
        order: MediaOrder | str = MediaOrder.NEWEST,
        limit: int = 20,
        after: str | None = None,
        before: str | None = None,
        **filters: Unpack[Filters],
    ) -> MediaPage:
        """Return a page of the items that fit all filters.

        Items that are added or deleted meanwhile neither shift nor repeat the others. A place holds for the order that
        it was made in; the filters may change from page to page.

        Args:
            order: Newest first by default.
            limit: How many, 1 to 1000.
            after: `MediaPage.next` of the page before this one.
            before: `MediaPage.previous` of the page after this one.
            filters: See `mindia.domain.filters.Filters`.

        Raises:
            InvalidError: An argument is not allowed.
        """
        _check_length("limit", limit)
        if after is not None and before is not None:
            raise InvalidError("after and before name two places; a page has one: leave one of them out")
        wanted = named(order, MediaOrder, argument="order")
        place = None
        if after is not None:
            place = place_after(after, wanted)
        elif before is not None:
            place = place_before(before, wanted)
        found = self._page(selection(filters), wanted, place, limit + 1)
        has_more = len(found) > limit
        items = tuple(found[:limit] if before is None else found[:limit][::-1])
        if not items:
            return MediaPage(items).shown_with(MediaPreviews(self._context))
        page = MediaPage(
            items,
            next=name_place(items[-1], wanted) if before is not None or has_more else None,
            previous=name_place(items[0], wanted) if after is not None or (before is not None and has_more) else None,
        )
        return page.shown_with(MediaPreviews(self._context))

    def iterate(
        self, *, order: MediaOrder | str = MediaOrder.NEWEST, page_length: int = 500, **filters: Unpack[Filters]
    ) -> Iterator[Media]:
        """Yield all items that fit all filters, page by page; no connection is held in between.

        Args:
            order: Newest first by default.
            page_length: How many are read at once, 1 to 1000.
            filters: See `mindia.domain.filters.Filters`.

        Raises:
            InvalidError: An argument is not allowed.
        """
        _check_length("page_length", page_length)
        after: str | None = None
        while True:
            page = self.find(order=order, limit=page_length, after=after, **filters)
            yield from page
            after = page.next
            if after is None:
                return

    def count(self, **filters: Unpack[Filters]) -> int:
        """Return how many items fit all filters.

        Raises:
            InvalidError: A filter is not allowed.
        """
        context, wanted = self._context, selection(filters)
        return context.as_viewer.run(lambda session: media_find.count(session, context.tenant_id, wanted), single=True)

    def exists(self, **filters: Unpack[Filters]) -> bool:
        """Tell whether an item fits all filters.

        Raises:
            InvalidError: A filter is not allowed.
        """
        context, wanted = self._context, selection(filters)
        return context.as_viewer.run(lambda session: media_find.exists(session, context.tenant_id, wanted), single=True)

    def open(self, media: Media | Derivative | UUID) -> BinaryIO:
        """Open the bytes of an item for reading: seekable, buffered, and read only where they are asked for.

        The caller closes it.

        Args:
            media: The item or its id, or a picture that was made of one.

        Raises:
            NotFoundError: There is no such item.
            StorageError: The object store failed.
        """
        return self._open(self._stored(media).s3_key)

    def read(self, media: Media | Derivative | UUID, *, start: int = 0, length: int | None = None) -> bytes:
        """Return the bytes of an item.

        Args:
            media: The item or its id, or a picture that was made of one.
            start: From this byte on.
            length: At most so many; by default all to the end.

        Raises:
            NotFoundError: There is no such item.
            InvalidError: `start` or `length` is negative.
            StorageError: The object store failed.
        """
        if start < 0 or (length is not None and length < 0):
            raise InvalidError(f"start and length must not be negative: {start}, {length}")
        item = self._stored(media)
        # Files make room for as much as they are asked for.
        wanted = range(item.file_size)[start : None if length is None else start + length]
        with self._open(item.s3_key) as file, _readable(item):
            file.seek(wanted.start)
            return file.read(len(wanted))

    def save_to(self, media: Media | Derivative | UUID, path: str | os.PathLike[str]) -> Path:
        """Write the bytes of an item to a file, which is there as a whole or not at all, and return its path.

        Args:
            media: The item or its id, or a picture that was made of one.
            path: The file, in place of one that is there; or a folder, for a file with the name of the item.

        Raises:
            NotFoundError: There is no such item.
            InvalidError: The file cannot be written.
            StorageError: The object store failed, or its bytes are not those that were stored.
        """
        item = self._stored(media)
        target = Path(path)
        with _writable(target):
            if target.is_dir():
                target /= item.filename
        part = target.with_name(f".mindia-{uuid7()}")
        with self._open(item.s3_key) as source, _writable(target):
            try:
                with part.open("xb") as file:
                    _copy_checked(source, file, item, target)
                part.replace(target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return target

    def url(
        self,
        media: Media | Derivative | UUID,
        *,
        expires_in: timedelta = timedelta(hours=1),
        disposition: Disposition | str = Disposition.INLINE,
    ) -> str:
        """Return a URL that gives the bytes of an item to whoever has it, until it expires.

        On S3 it is an address of the store, which serves it itself, or its public one: see `S3Storage`. Otherwise
        `mindia.serving.MediaFiles` serves it, below `Settings.public_url`: with the type of the item, and nothing that
        a browser would run.

        Args:
            media: The item or its id, or a picture that was made of one.
            expires_in: How long it works, from a second to a year; on S3, to seven days.
            disposition: `inline` to be shown in a page, `attachment` to be saved.

        Raises:
            NotFoundError: There is no such item, or no such picture any more.
            InvalidError: An argument is not allowed, or `Settings.public_url` or `secret_key` is missing.
        """
        context, item = self._context, self._stored(media)
        wanted = signed_urls.checked(expires_in, disposition)
        if isinstance(context.storage, DirectStorage):
            url = context.storage.url(
                context.bucket(),
                item.s3_key,
                expires_in=expires_in,
                content_type=item.content_type,
                disposition=content_disposition(wanted, item.filename),
            )
            if url is not None:
                return url
        return signed_urls.sign(
            item.media, settings=context.settings, expires_in=expires_in, disposition=wanted, made=item
        )

    def _fresh(self, media: Media | UUID) -> Media:
        return self.get(media if isinstance(media, UUID) else media.id)

    def _stored(self, media: Media | Derivative | UUID) -> StoredFile:
        """Return where the bytes are, as it is now."""
        if not isinstance(media, Derivative):
            return StoredFile.of_item(self._fresh(media))
        if media.media_id is None or media.tenant_id != self._context.tenant_id:
            raise NotFoundError(f"there is no derivative {media.id}")
        return self._stored_derivative(media.media_id, media.operations)

    def _stored_derivative(self, media_id: UUID, operations: str) -> StoredFile:
        """Return where that is which operations have made of an item: also if it has been made anew."""
        context = self._context

        def work(session: Session) -> StoredFile | None:
            item = repository.get(session, context.tenant_id, media_id)
            made = None if item is None else derivative_repository.get(session, item, operations)
            return None if item is None or made is None else StoredFile.of_derivative(item, made)

        found = context.as_viewer.run(work)
        if found is None:
            raise NotFoundError(f"there is nothing that was made of media item {media_id} by {operations!r}")
        return found

    def _open(self, s3_key: str) -> BinaryIO:
        return self._context.storage.open(self._context.bucket(), s3_key)

    def _page(
        self, wanted: media_find.Selection, order: MediaOrder, place: media_find.Place | None, limit: int
    ) -> Sequence[Media]:
        context = self._context
        return context.as_viewer.run(
            lambda session: media_find.page(
                session, context.tenant_id, selection=wanted, order=order, place=place, limit=limit
            ),
            single=True,
        )


def _copy_checked(source: BinaryIO, file: BinaryIO, item: StoredFile, target: Path) -> None:
    digest = hashlib.sha256()
    while chunk := _read_chunk(source, item):
        digest.update(chunk)
        file.write(chunk)
    if digest.hexdigest() != item.sha256:
        raise StorageError(
            f"{str(target)!r} was not written: the stored bytes of {item.id} have the hash {digest.hexdigest()}, "
            f"not {item.sha256}"
        )


@contextmanager
def _writable(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # the latter where the path has a NUL character, or half a character
        if isinstance(error, MindiaError):
            raise
        raise InvalidError(f"{str(target)!r} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _read_chunk(source: BinaryIO, item: StoredFile) -> bytes:
    with _readable(item):
        return source.read(_CHUNK)


@contextmanager
def _readable(item: StoredFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, MindiaError):
            raise
        raise StorageError(f"the bytes of {item.id} cannot be read: {error.strerror or error}") from error


def _check_length(name: str, given: int) -> None:
    if not isinstance(given, int) or not 1 <= given <= MAX_PAGE:
        raise InvalidError(f"{name} must be 1 to {MAX_PAGE}, not {shown(given)}")
