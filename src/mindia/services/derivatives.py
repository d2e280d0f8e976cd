"""Pictures that are made of items, each once: the part of `library.media` that makes, lists and renews them."""

from __future__ import annotations

import hashlib
import io
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.db.units import OpenTransaction
from mindia.domain.derivatives import Derivative, PurgeDerivatives, RegenerateDerivatives
from mindia.domain.media import Document, Image, Media, Video
from mindia.domain.operations import Operation, Thumbnail, Tiles
from mindia.domain.tasks import Task
from mindia.domain.transformations import ImageFormat, Quality, Transformation
from mindia.errors import DatabaseUnavailableError, InvalidError, MindiaError, NotFoundError, ObjectNotFoundError
from mindia.media.deriving import Made
from mindia.media.probe import Source
from mindia.repositories import derivatives as repository
from mindia.repositories import media as media_repository
from mindia.repositories.derivatives import NewDerivative
from mindia.services.derived_place import DerivedPlace
from mindia.services.presets import resolved, watermark_of
from mindia.services.task_queue import TaskQueue
from mindia.services.uploads import MediaUploads

_PAGE = 200
_FIRST = UUID(int=0)
_TINY = 16
_EARLY = 0.1
"""The part of a video after which it is shown, where nobody says: many begin with black."""

Progress = Callable[[float, str], object]


@attrs.frozen(kw_only=True)
class _Asked:
    """What is to be made.

    Attributes:
        item: Of what.
        transformation: How; settled.
        made: That, where it is there already.
    """

    item: Media
    transformation: Transformation
    made: Derivative | None


class MediaDerivatives(MediaUploads):
    """Makes pictures of the media of one tenant, each once, and keeps them as long as the original."""

    def derive(
        self,
        image: Image | UUID,
        *operations: Operation | Transformation,
        preset: str | None = None,
        format: ImageFormat | str | None = None,  # noqa: A002 - of the public interface
        quality: int | Quality | str | None = None,
        background: str | None = None,
        animated: bool | None = None,
    ) -> Derivative:
        """Return what operations make of an image. It is made and stored when it is asked for first, and found later.

        It is upright and in sRGB, and has nothing in it but pixels. Two that ask for the same at once get the same.
        In a transaction of the library's it is found by others when that is committed; one of the isolation level
        repeatable read or serializable finds what was made before it began, and can make nothing.

        Args:
            image: The image or its id.
            operations: What is done, one after the other: `Resize(width=800)`; or a `Transformation`.
            preset: The name of a preset, whose operations come first.
            format: `jpeg`, `png`, `webp` (by default), `avif` or `gif`.
            quality: 1 to 100, or `low`, `medium`, `high` (by default), `best`.
            background: What is under transparent parts, as `#ffffff`. Without it they stay transparent; in JPEG, which
                has no such parts, they become white.
            animated: Whether all pictures of an animated one are kept, in WebP and GIF; by default it is the first.

        Raises:
            NotFoundError: There is no such image, preset, or image for a watermark.
            InvalidError: An argument is not allowed, or there is nothing left after cropping.
            PermissionDeniedError: It is not there yet, and the user is a viewer: it takes a member to make it.
            MediaError: The image cannot be decoded, or not within `Settings.parser_timeout`, `parser_memory_bytes` and
                `max_derivative_pixels`.
            StagedObjectExpiredError: It took longer than `Settings.staging_grace`, or the transaction does not see what
                is staged meanwhile.
            StorageError: The object store failed, or the folder for temporary files did.
        """
        wanted = Transformation.of(
            *operations, preset=preset, format=format, quality=quality, background=background, animated=animated
        )
        return self._made(image if isinstance(image, UUID) else image.id, lambda item: _of_image(item, wanted))

    def thumbnail(
        self,
        media: Media | UUID,
        *,
        side: int = 320,
        at_s: float | None = None,
        page: int | None = None,
        format: ImageFormat | str = ImageFormat.WEBP,  # noqa: A002 - of the public interface
        quality: int | Quality | str | None = None,
        background: str | None = None,
    ) -> Derivative:
        """Return a small picture of an item of any kind, made and stored as by `derive`.

        Of an image it is the image, of a video a frame, of a document a page, and of a sound its waveform.

        Args:
            media: The item or its id.
            side: The longest side of the picture, in pixels.
            at_s: Of a video, the second that is shown: by default after a tenth of it; the last where it is shorter.
            page: Of a document, the page, from 1 on, which is the default.
            format: As for `derive`.
            quality: As for `derive`.
            background: As for `derive`.

        Raises:
            NotFoundError: There is no such item.
            InvalidError: An argument is not allowed, or not for that kind of item.
            PermissionDeniedError: It is not there yet, and the user is a viewer: it takes a member to make it.
            MediaError: The item cannot be decoded within the limits.
            MissingExtraError: What reads that kind of item is not installed.
            StorageError: The object store failed, or the folder for temporary files did.
        """

        def wanted(item: Media) -> Transformation:
            shown = _thumbnail_of(item, side=side, at_s=at_s, page=page)
            return Transformation.of(shown, format=format, quality=quality, background=background)

        return self._made(media if isinstance(media, UUID) else media.id, wanted)

    def placeholder(self, media: Media | UUID) -> str:
        """Return a `data:` URI of a few hundred characters, to be shown until the picture itself is there.

        It is a thumbnail of 16 pixels, and looks like a blurred picture where it is shown at the size of that. It goes
        into the page or the answer of an API, and needs no request and no script.

        Args:
            media: The item or its id.

        Raises:
            NotFoundError: There is no such item.
            PermissionDeniedError: It is not there yet, and the user is a viewer: it takes a member to make it.
            MediaError: The item cannot be decoded within the limits.
            MissingExtraError: What reads that kind of item is not installed.
            StorageError: The object store failed, or the folder for temporary files did.
        """
        tiny = self.thumbnail(media, side=_TINY, quality=Quality.LOW)
        return f"data:{tiny.content_type};base64,{b64encode(self.read(tiny)).decode()}"

    def derivatives(self, media: Media | UUID) -> Sequence[Derivative]:
        """Return all that was made of an item, the oldest first.

        Raises:
            NotFoundError: There is no such item.
        """
        context, media_id = self._context, media if isinstance(media, UUID) else media.id

        def work(session: Session) -> Sequence[Derivative]:
            item = _item(session, context.tenant_id, media_id)
            return tuple(repository.of_items(session, context.tenant_id, [item]))

        return context.as_viewer.run(work)

    def purge_derivatives(self, media: Media | UUID | None = None) -> Task:
        """Enqueue a task that removes the pictures that were made of an item, or of all items of the tenant.

        They are made again when they are asked for.

        Args:
            media: The item or its id; all by default.

        Returns:
            The task; while one waits or runs for the same, that one.

        Raises:
            NotFoundError: There is no such item.
        """
        media_id = self._named(media)
        return TaskQueue.of_tenant(self._context).enqueue(
            PurgeDerivatives(media_id=media_id), dedup_key=f"mindia.purge_derivatives {media_id or 'all'}"
        )

    def regenerate_derivatives(self, media: Media | UUID | None = None) -> Task:
        """Enqueue a task that makes the pictures anew that were made of an item, or of all items of the tenant.

        Each stays until the new one is there.

        Args:
            media: The item or its id; all by default.

        Returns:
            The task; while one waits or runs for the same, that one.

        Raises:
            NotFoundError: There is no such item.
        """
        media_id = self._named(media)
        return TaskQueue.of_tenant(self._context).enqueue(
            RegenerateDerivatives(media_id=media_id), dedup_key=f"mindia.regenerate_derivatives {media_id or 'all'}"
        )

    def _named(self, media: Media | UUID | None) -> UUID | None:
        return None if media is None else self._fresh(media).id

    def _made(self, media_id: UUID, wanted: Callable[[Media], Transformation]) -> Derivative:
        context = self._context

        def look(session: Session) -> _Asked:
            item = _item(session, context.tenant_id, media_id)
            settled = resolved(session, context.tenant_id, wanted(item)).settled()
            return _Asked(item=item, transformation=settled, made=_there(session, item, settled))

        asked = context.as_viewer.run(look)
        if asked.made is not None:
            return asked.made
        context.as_member.run(lambda _: None, single=True)  # refused before anything is read
        if isinstance(context.as_member, OpenTransaction):
            return self._make(asked)  # who holds locks must wait for nobody who may wait for them
        key = (context.tenant_id, repository.source_of(asked.item.s3_key), str(asked.transformation))
        patience_s = context.settings.parser_timeout.total_seconds()
        with context.flights.alone(key, patience_s=patience_s):
            asked = context.as_viewer.run(look)
            return self._make(asked) if asked.made is None else asked.made

    def _make(self, asked: _Asked, *, instead: bool = False) -> Derivative:
        context, item = self._context, asked.item
        try:
            picture = self._picture(asked)
        except ObjectNotFoundError:
            self._fresh(item)  # it may have been deleted meanwhile
            raise
        form = asked.transformation.format
        assert form is not None, "it is settled"
        place = DerivedPlace(context, item)
        try:
            key = place.put_picture(item, io.BytesIO(picture.content), form=form, size=len(picture.content))
            new = NewDerivative(
                id=place.id,
                media=item,
                operations=str(asked.transformation.ending(picture.end, is_exact=picture.is_exact)),
                s3_key=key,
                content_type=form.content_type,
                file_size=len(picture.content),
                sha256=hashlib.sha256(picture.content).hexdigest(),
                width=picture.width,
                height=picture.height,
            )
            made = self._recorded(new, instead_of=asked.made if instead else None)
        except DatabaseUnavailableError:
            raise  # it may be committed all the same: the sweep will see
        except BaseException:
            place.discard()
            raise
        if made is None or made.id != place.id:
            place.discard()
        if made is None:
            self._fresh(item)  # it may have been deleted meanwhile
            raise place.expired()
        return made

    def _recorded(self, new: NewDerivative, *, instead_of: Derivative | None) -> Derivative | None:
        def work(session: Session) -> Derivative | None:
            if instead_of is not None:
                made = repository.replace(session, new, instead_of=instead_of.operations)
                if made is None:
                    raise NotFoundError(f"there is no media item {new.media.id}")
                return made
            return repository.record(session, new) or repository.get(session, new.media, new.operations)

        return self._context.as_member.run(work)

    def _picture(self, asked: _Asked) -> Made:
        context, transformation = self._context, asked.transformation
        marks = [
            context.as_viewer.run(
                lambda session, image_id=image_id: watermark_of(session, context.tenant_id, image_id),  # type: ignore[misc]  # mypy cannot type the default
                single=True,
            )
            for image_id in transformation.watermarks
        ]
        with ExitStack() as stack:
            source, *watermarks = [
                Source(stack.enter_context(self._open(each.s3_key)), each.file_size) for each in (asked.item, *marks)
            ]
            return context.prober.derive(
                source,
                filename=asked.item.filename,
                transformation=transformation,
                watermarks=watermarks,
                settings=context.tenant().settings,
            )

    def _run_purge(self, payload: PurgeDerivatives, progress: Progress) -> dict[str, int]:
        """Do what `purge_derivatives` has enqueued."""
        context = self._context
        removed = 0
        for page in self._pages(payload.media_id):
            ids = [each.id for each in page]
            removed += len(
                context.as_member.run(
                    lambda session, ids=ids: repository.remove_by_id(session, context.tenant_id, ids),  # type: ignore[misc]  # mypy cannot type the default
                    single=True,
                )
            )
            progress(0.5, f"{removed} removed")
        return {"removed": removed}

    def _run_regenerate(self, payload: RegenerateDerivatives, progress: Progress, *, since: datetime) -> dict[str, int]:
        """Do what `regenerate_derivatives` has enqueued; what has been made since is as new."""
        made = failed = 0
        for page in self._pages(payload.media_id):
            for each in page:
                if each.created_at >= since:
                    continue
                try:
                    made += self._make_again(each)
                except MindiaError as error:
                    if error.retryable:
                        raise
                    failed += 1
                progress(0.5, f"{made} made, {failed} failed")
        return {"made": made, "failed": failed}

    def _make_again(self, old: Derivative) -> bool:
        context = self._context
        transformation = Transformation.parse(old.operations)

        def look(session: Session) -> Media | None:
            media_id = old.media_id or repository.item_of(session, context.tenant_id, old)
            return None if media_id is None else media_repository.get(session, context.tenant_id, media_id)

        item = context.as_viewer.run(look)
        if item is None:
            return False
        self._make(_Asked(item=item, transformation=transformation, made=old), instead=True)
        return True

    def _pages(self, media_id: UUID | None) -> Iterator[Sequence[Derivative]]:
        """Yield the pictures of an item or of all, page by page; those that are made meanwhile come last."""
        context = self._context
        if media_id is not None:
            yield [each for each in self.derivatives(media_id) if each.s3_prefix is None]
            return
        after = _FIRST
        while page := context.as_viewer.run(
            lambda session, after=after: repository.page(session, context.tenant_id, after=after, limit=_PAGE),  # type: ignore[misc]  # mypy cannot type the default
            single=True,
        ):
            after = page[-1].id
            yield [each for each in page if each.s3_prefix is None]


def _item(session: Session, tenant_id: UUID, media_id: UUID) -> Media:
    item = media_repository.get(session, tenant_id, media_id)
    if item is None:
        raise NotFoundError(f"there is no media item {media_id}")
    return item


def _there(session: Session, item: Media, settled: Transformation) -> Derivative | None:
    """Return what was made before; of tiles the record says more than was asked for: what was found then."""
    if settled.tiles is None:
        return repository.get(session, item, str(settled))
    made = repository.of_items(session, item.tenant_id, [item])
    tiles = [each for each in made if each.operations.startswith(f"{Tiles.name}_")]
    return next((each for each in tiles if Transformation.parse(each.operations).ending(None) == settled), None)


def _of_image(item: Media, wanted: Transformation) -> Transformation:
    if not isinstance(item, Image):
        raise InvalidError(
            f"{item.filename!r} is no image but of the kind {item.kind}: thumbnail() makes a picture of it"
        )
    return wanted


def _thumbnail_of(item: Media, *, side: int, at_s: float | None, page: int | None) -> Thumbnail:
    if at_s is not None and not isinstance(item, Video):
        raise InvalidError(f"at_s is for videos, and {item.filename!r} is of the kind {item.kind}: leave it out")
    if page is not None and not isinstance(item, Document):
        raise InvalidError(f"page is for documents, and {item.filename!r} is of the kind {item.kind}: leave it out")
    at = 0.0
    if isinstance(item, Video):
        duration = item.duration or 0.0
        at = duration * _EARLY if at_s is None else min(at_s, duration)
    return Thumbnail(side, at=at, page=1 if page is None else page)
