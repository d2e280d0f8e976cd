"""What an archive has that was made of items becomes that of a tenant, so that nothing is made a second time."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import BinaryIO, cast
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.archives import ArchivedDerivative
from mindia.domain.media import Media, Video
from mindia.domain.transformations import Transformation
from mindia.errors import ArchiveError, DatabaseUnavailableError, InvalidError, MindiaError, TooLargeError
from mindia.media.hls import MASTER, PLAYLIST_TYPE
from mindia.media.hls_files import HEAD_BYTES, StreamFiles, check_segment, is_playlist
from mindia.media.probe import Unprobed
from mindia.media.spool import spool
from mindia.repositories import derivatives as repository
from mindia.repositories import media as media_repository
from mindia.repositories import videos
from mindia.repositories.derivatives import NewDerivative, source_of
from mindia.services import ingest
from mindia.services._hashing import Hashing
from mindia.services._keys import transcode_key, type_of_derived
from mindia.services.archive_reader import ArchiveReader
from mindia.services.archive_survey import Ids, derivatives_of
from mindia.services.context import TenantContext
from mindia.services.derived_place import DerivedPlace
from mindia.services.media_import import MediaImport

_CONCURRENCY = 3


class DerivedImport:
    """Adds what was made of items to a tenant that has the items.

    Args:
        archive: The archive.
        context: Of the tenant, which is suspended.
        ids: What has which id.
        media: What has added the items.
        progress: Is called after each.

    Attributes:
        added: How many have been added.
    """

    def __init__(
        self,
        archive: ArchiveReader,
        context: TenantContext,
        ids: Ids,
        media: MediaImport,
        *,
        progress: Callable[[], object],
    ) -> None:
        self._archive = archive
        self._context = context
        self._settings = context.tenant().settings
        self._ids = ids
        self._media = media
        self._progress = progress
        self.added = 0

    def run(self) -> None:
        """Add them."""
        running: set[Future[bool]] = set()
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="mindia-import") as threads:
            for where, made in derivatives_of(self._archive):
                if made.is_stream and self._context.scan is not None:
                    continue  # no segment is of a kind that could be shown to the hook
                item = self._item_of(made, where)
                if item is None:
                    continue
                if len(running) == _CONCURRENCY:
                    running = self._settled(running)
                # One after the other: so their ids are in their order.
                place = DerivedPlace(self._context, item)
                running.add(threads.submit(self._add, where, made, item, place))
            while running:
                running = self._settled(running)

    def _settled(self, running: set[Future[bool]]) -> set[Future[bool]]:
        """Wait for one of them at least, and return those that are left."""
        done, left = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            self.added += future.result()
            self._progress()
        return left

    def _item_of(self, made: ArchivedDerivative, where: str) -> Media | None:
        """Return an item with the bytes that something was made of, unless all have expired."""
        context = self._context
        holders = [self._ids.of_maker(made, where), self._media.sharing(made.media_id)]

        def look(session: Session) -> Media | None:
            for each in filter(None, holders):
                item = media_repository.get(session, context.tenant_id, each)
                if item is not None:
                    return item
            return None

        return context.as_viewer.run(look)

    def _add(self, where: str, made: ArchivedDerivative, item: Media, place: DerivedPlace) -> bool:
        try:
            new = (self._stream if made.is_stream else self._picture)(where, made, item, place)
            recorded = self._context.as_member.run(lambda session: self._record(session, new))
        except DatabaseUnavailableError:
            raise  # it may be committed all the same: the sweep will see
        except BaseException as error:
            place.discard()
            if isinstance(error, MindiaError):
                error.add_note(where)
            raise
        if recorded == place.id:
            return True
        # It was made of the same bytes before: items that had these twice, each with copies, all share one of them now.
        place.discard()
        if recorded is None and self._item_of(made, where) is not None:
            raise place.expired()
        return False

    def _record(self, session: Session, new: NewDerivative) -> UUID | None:
        """Write a row, and return the id of what is there; None where the item has expired, or the place was swept."""
        context = self._context
        made = repository.record(session, new) or repository.get(session, new.media, new.operations)
        if made is None or made.id != new.id:
            return None if made is None else made.id
        if new.s3_prefix is not None and isinstance(new.media, Video):
            videos.complete(session, new.media, hls_master_key=new.s3_key)
            source_id = source_of(new.media.s3_key)
            assert source_id is not None, "there was a place below it"
            videos.forget_task(session, context.tenant_id, transcode_key(source_id))
        return made.id

    def _picture(self, where: str, made: ArchivedDerivative, item: Media, place: DerivedPlace) -> NewDerivative:
        transformation = Transformation.parse(made.operations).with_watermarks(self._ids.media)
        form = transformation.format
        assert form is not None, "it is settled"
        # Not those of what is handed in: pictures may have become larger, and have a limit of their own.
        settings = attrs.evolve(
            self._settings,
            max_image_bytes=max(self._settings.max_image_bytes, made.file_size),
            max_image_pixels=max(self._settings.max_image_pixels, self._settings.max_derivative_pixels),
        )
        name = f"what was made of {item.filename!r}"
        with (
            self._archive.open_object(made.sha256) as source,
            spool(source, filename=name, settings=settings) as spooled,
        ):
            _check_hash(where, made, spooled.sha256)
            unprobed = Unprobed(file=spooled.file, size=spooled.size, filename="picture")
            probed = self._context.prober.probe(unprobed, settings=settings)
            if probed.content_type != form.content_type:
                raise ArchiveError(f"{where}: the bytes are {probed.content_type}, and not {form.content_type}")
            width, height = getattr(probed.facts, "width", 0), getattr(probed.facts, "height", 0)
            if width * height > settings.max_derivative_pixels:
                raise TooLargeError(
                    f"{name} has {width} x {height} pixels; the limit is {settings.max_derivative_pixels} "
                    "(Settings.max_derivative_pixels)"
                )
            ingest.scan(self._context, spooled, probed, filename=item.filename)
            spooled.file.seek(0)
            key = place.put_picture(item, spooled.file, form=form, size=spooled.size)
        return NewDerivative(
            id=place.id,
            media=item,
            operations=str(transformation),
            s3_key=key,
            content_type=form.content_type,
            file_size=spooled.size,
            sha256=spooled.sha256,
            width=width,
            height=height,
            created_at=made.created_at,
        )

    def _stream(self, where: str, made: ArchivedDerivative, item: Media, place: DerivedPlace) -> NewDerivative:
        """Store the files of a stream as they are read; what is wrong with them is known at the end."""
        stream = StreamFiles([file.name for file in made.files])
        with self._archive.open_object(made.sha256) as opened:
            source = Hashing(opened)
            try:
                for file in made.files:
                    part = _Part(source, file.size)
                    content_type = type_of_derived(file.name)
                    if is_playlist(file.name):
                        content = part.read(file.size)
                        stream.read(file.name, content)
                        place.put(file.name, io.BytesIO(content), content_type=content_type, size=file.size)
                    else:
                        place.put(file.name, cast("BinaryIO", part), content_type=content_type, size=file.size)
                        check_segment(file.name, part.head, file.size)
                stream.finish()
            except InvalidError as error:
                if isinstance(error, ArchiveError):
                    raise
                raise ArchiveError(f"{where}: {error}") from error
            source.read(1)  # to the end, where the checksum is looked at
            _check_hash(where, made, source.hexdigest())
        return NewDerivative(
            id=place.id,
            media=item,
            operations=made.operations,
            s3_key=f"{place.prefix}{MASTER}",
            s3_prefix=place.prefix,
            content_type=PLAYLIST_TYPE,
            file_size=made.file_size,
            file_count=len(made.files),
            width=made.width,
            height=made.height,
            created_at=made.created_at,
        )


class _Part(io.RawIOBase):
    """So many bytes of a file, from where it is."""

    def __init__(self, source: Hashing, size: int) -> None:
        self._source = source
        self._left = size
        self.head = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._source.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(content)
        self.head += content[: HEAD_BYTES - len(self.head)]
        return content


def _check_hash(where: str, made: ArchivedDerivative, sha256: str) -> None:
    if sha256 != made.sha256:
        raise ArchiveError(f"{where}: the object {made.sha256} has the hash {sha256}")
