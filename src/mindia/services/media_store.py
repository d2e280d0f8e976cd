"""Media: `library.media`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from threading import Event
from uuid import UUID

import attrs

from mindia import _trace_context
from mindia._ids import uuid7
from mindia.db.session import Session
from mindia.domain.bulk import AddReport, DeleteReport, DeleteResult, MediaInput, Progress
from mindia.domain.events import MediaEvent
from mindia.domain.media import Media, Metadata, OnDuplicate, Staged
from mindia.errors import DatabaseUnavailableError, InvalidError, NotFoundError
from mindia.media.names import clean_filename
from mindia.repositories import media as repository
from mindia.repositories import media_change
from mindia.services import adding, from_url, ingest
from mindia.services._bars import reporting
from mindia.services._metadata import check_key_count, checked_metadata
from mindia.services._named import named
from mindia.services.adding import Addition, checked_description, checked_expiry, texts_of
from mindia.services.deleting import delete_items
from mindia.services.ingest import as_handed_in
from mindia.services.media_reader import MAX_PAGE
from mindia.services.signed_urls import event_url
from mindia.services.sources import Source
from mindia.services.streaming import MediaStreams


class _Unchanged:
    """Stands for what is not given; None means something."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED = _Unchanged()


class MediaStore(MediaStreams):
    """The media of one tenant. Thread-safe, unless it is that of a transaction."""

    def stage(
        self,
        source: Source,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        sanitize: bool | None = None,
    ) -> Staged:
        """Store and probe bytes without making an item of them yet.

        No database connection is held meanwhile. What is not added within `Settings.staging_grace` is removed.

        Args:
            source: A path, bytes, a binary file, read from its position to its end, or an iterator of bytes. It is
                never held in memory as a whole, unless it is small.
            filename: Its name; by default that of the path or file.
            content_type: What the client says it is; must not contradict the bytes.
            sanitize: Whether what the file tells beside its content is removed before it is stored: see
                `Settings.sanitize`, which is the default.

        Raises:
            MediaError: The bytes are not what can be taken in; its subclasses say why.
            TenantInactiveError: The tenant is suspended or deleted.
            StorageError: The object store failed.
        """
        context = self._context
        context.as_member.run(lambda _: None, single=True)  # nothing later would refuse a tenant that is not served
        with ingest.received(context, source, filename=filename, content_type=content_type) as incoming:
            return ingest.stage(context, incoming, sanitize=self._sanitize(sanitize))

    def add(
        self,
        source: Source | Staged,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        description: str = "",
        metadata: Metadata | None = None,
        expires_at: datetime | None = None,
        on_duplicate: OnDuplicate | str = OnDuplicate.STORE,
        sanitize: bool | None = None,
    ) -> Media:
        """Make an item: media row, search text, embedding task and webhook events, all or nothing.

        It is found by word as soon as this returns, and by vector once a worker has run.

        Args:
            source: A path, bytes, a binary file, an iterator of bytes, or what `stage` returned.
            filename: Its name; by default that of the path or file. Not with what was staged.
            content_type: What the client says it is. Not with what was staged.
            description: What a person says about it, at most 64 KiB; searched by word and vector.
            metadata: The host's own values: at most 50 keys of at most 64 characters, each value at most 512 bytes.
            expires_at: From when on it is not found any more, and is removed soon after; with time zone.
            on_duplicate: What to do where the tenant has an item of the same bytes: `OnDuplicate`.
            sanitize: As for `stage`. Not with what was staged.

        Raises:
            MediaError: The bytes are not what can be taken in; its subclasses say why.
            InvalidError: Another argument is not allowed.
            DuplicateError: There is an item of the same bytes, and `on_duplicate` is `error`.
            StagedObjectExpiredError: What was staged has been swept, or added already.
            TenantInactiveError: The tenant is suspended or deleted.
        """
        addition = Addition.checked(
            description=description,
            metadata=metadata,
            expires_at=expires_at,
            on_duplicate=on_duplicate,
            initiated_by=self._context.initiator,
            settings=self._context.settings,
        )
        if isinstance(source, Staged):
            if filename is not None or content_type is not None or sanitize is not None:
                raise InvalidError("filename, content_type and sanitize were settled by stage(); leave them out here")
            return adding.add_staged(self._context, source, addition)
        return self._add_source(source, addition, filename, content_type, sanitize=self._sanitize(sanitize))

    def _add_source(
        self, source: Source, addition: Addition, filename: str | None, content_type: str | None, *, sanitize: bool
    ) -> Media:
        context = self._context
        with ingest.received(context, source, filename=filename, content_type=content_type) as incoming:
            if addition.on_duplicate is not OnDuplicate.STORE and not sanitize:
                # Before they are parsed and stored again; whether that is still so, the transaction looks.
                found = adding.add_duplicate(context, incoming, addition)
                if found is not None:
                    return found
            at_once = addition.on_duplicate is not OnDuplicate.STORE
            with ingest.staging(context, incoming, sanitize=sanitize, at_once=at_once) as begun:
                staged = begun.staged
                try:
                    added = adding.add_staged(context, staged, addition, settle=begun.settle)
                except DatabaseUnavailableError:
                    raise  # it may be committed all the same: the sweep will see
                except BaseException:
                    ingest.discard(context, staged)
                    raise
        if added.id != staged.id:
            ingest.discard(context, staged)
        return added

    def stage_from_url(
        self,
        url: str,
        *,
        filename: str | None = None,
        max_bytes: int | None = None,
        timeout: timedelta | None = None,
        sanitize: bool | None = None,
    ) -> Staged:
        """Store and probe what stands at a URL: `stage` for files that are elsewhere.

        It may be one that somebody else has written: nothing is connected to but public addresses and those of
        `Settings.fetch_allow_private`, and a redirect is held to the same. What the server says of the type does not
        count.

        Args:
            url: `http` or `https`.
            filename: Its name; by default as the server or the URL calls it, with an extension that fits the bytes.
            max_bytes: How many bytes it may have; at most as many as its kind may have, which is the default.
            timeout: How long it may take; `Settings.fetch_timeout` by default.
            sanitize: As for `stage`.

        Raises:
            InvalidError: It is no URL, or another argument is not allowed.
            ForbiddenAddressError: It leads where nothing may be fetched from.
            DownloadError: The server does not give a file; of its subclasses, `DownloadFailedError` may pass.
            MediaError: The bytes are not what can be taken in; its subclasses say why.
            TenantInactiveError: The tenant is suspended or deleted.
            StorageError: The object store failed.
        """
        self._context.as_member.run(lambda _: None, single=True)
        with from_url.opened(self._context, url, filename=filename, max_bytes=max_bytes, timeout=timeout) as found:
            return self.stage(found.file, filename=found.filename, sanitize=sanitize)

    def add_from_url(
        self,
        url: str,
        *,
        filename: str | None = None,
        max_bytes: int | None = None,
        timeout: timedelta | None = None,
        description: str = "",
        metadata: Metadata | None = None,
        expires_at: datetime | None = None,
        on_duplicate: OnDuplicate | str = OnDuplicate.STORE,
        sanitize: bool | None = None,
    ) -> Media:
        """Make an item of what stands at a URL: see `stage_from_url` and `add`.

        Args:
            url: As for `stage_from_url`.
            filename: As for `stage_from_url`.
            max_bytes: As for `stage_from_url`.
            timeout: As for `stage_from_url`.
            description: As for `add`.
            metadata: As for `add`.
            expires_at: As for `add`.
            on_duplicate: As for `add`.
            sanitize: As for `stage`.

        Raises:
            InvalidError: It is no URL, or another argument is not allowed.
            ForbiddenAddressError: It leads where nothing may be fetched from.
            DownloadError: The server does not give a file; of its subclasses, `DownloadFailedError` may pass.
            MediaError: The bytes are not what can be taken in; its subclasses say why.
            DuplicateError: There is an item of the same bytes, and `on_duplicate` is `error`.
            TenantInactiveError: The tenant is suspended or deleted.
            StorageError: The object store failed.
        """
        self._context.as_member.run(lambda _: None, single=True)
        with from_url.opened(self._context, url, filename=filename, max_bytes=max_bytes, timeout=timeout) as found:
            return self.add(
                found.file,
                filename=found.filename,
                description=description,
                metadata=metadata,
                expires_at=expires_at,
                on_duplicate=on_duplicate,
                sanitize=sanitize,
            )

    def add_many(
        self,
        sources: Iterable[Source | Staged | MediaInput],
        *,
        concurrency: int = 4,
        on_duplicate: OnDuplicate | str = OnDuplicate.STORE,
        sanitize: bool | None = None,
        progress: Callable[[Progress], object] | bool | None = None,
        cancel: Event | None = None,
    ) -> AddReport:
        """Make many items, each by itself: one that is refused is in nobody's way.

        Sources are read, parsed and stored by several threads at once; rows are written many to a transaction. In a
        transaction of the library's all rows are part of that.

        Args:
            sources: As for `add`, or `MediaInput` where there is more to say; taken from the iterable as needed.
            concurrency: How many are read, parsed and stored at once, 1 to 64.
            on_duplicate: As for `add`.
            sanitize: As for `add`, for those whose `MediaInput` says nothing.
            progress: Is called with how far it is after each item, in the thread of the caller. What it raises ends
                the work. True shows a bar (`pip install 'mindia[notebook]'`).
            cancel: Once it is set no further item is begun. Those that are under way are finished.

        Returns:
            For each source that was begun, in their order, the item or the error.

        Raises:
            InvalidError: An argument is not allowed.
            TenantInactiveError: The tenant is suspended or deleted.
            MissingExtraError: A bar is asked for, and tqdm is not installed.
        """
        from mindia.services.bulk import BulkAdd

        with reporting(progress, unit="item") as report:
            return BulkAdd(
                self._context,
                concurrency=concurrency,
                on_duplicate=named(on_duplicate, OnDuplicate, argument="on_duplicate"),
                sanitize=self._sanitize(sanitize),
                progress=report,
                cancel=cancel,
            ).run(sources)

    def update(
        self,
        media: Media | UUID,
        *,
        filename: str | _Unchanged = UNCHANGED,
        description: str | _Unchanged = UNCHANGED,
        metadata: Metadata | None = None,
        remove_metadata: Iterable[str] = (),
        replace_metadata: bool = False,
        expires_at: datetime | _Unchanged | None = UNCHANGED,
    ) -> Media:
        """Change what is said about an item, and return it as it is then. What is not given stays.

        Two that change the same item at the same time do so one after the other: no key is lost.

        Args:
            media: The item or its id.
            filename: Its new name; the extension must not contradict the bytes.
            description: What a person says about it.
            metadata: Values by key, which are added to the others or take their place.
            remove_metadata: Keys that are removed; one that is not there is fine.
            replace_metadata: Whether `metadata` takes the place of all that was there.
            expires_at: From when on it is not found any more; None for never.

        Raises:
            NotFoundError: There is no such item.
            InvalidError: An argument is not allowed, or there would be too many keys.
            TypeMismatchError: The extension contradicts the bytes.
        """
        context = self._context
        media_id = media if isinstance(media, UUID) else media.id
        added = checked_metadata(metadata)
        if isinstance(remove_metadata, str):
            raise InvalidError(f"remove_metadata must be keys, not a single text: [{remove_metadata!r}]")
        removed = set(remove_metadata)
        if not isinstance(filename, str | _Unchanged):
            raise InvalidError(f"filename must be a text, not {type(filename).__name__}")
        name = None if isinstance(filename, _Unchanged) else clean_filename(filename, fallback="unnamed")
        said = None if isinstance(description, _Unchanged) else checked_description(description)
        if not isinstance(expires_at, _Unchanged):
            checked_expiry(expires_at)
        task_id, event_id = uuid7(), uuid7()

        def changed_from(item: Media) -> Media:
            kept = {} if replace_metadata else item.metadata
            merged = {key: value for key, value in kept.items() if key not in removed} | dict(added)
            check_key_count(merged)
            if name is not None:
                adding.check_name(item, name)
            return attrs.evolve(
                item,
                filename=item.filename if name is None else name,
                description=item.description if said is None else said,
                metadata=merged,
                expires_at=item.expires_at if isinstance(expires_at, _Unchanged) else expires_at,
            )

        def work(session: Session) -> Media:
            item = repository.get(session, context.tenant_id, media_id)
            if item is not None:
                # As it is now that nobody else changes it.
                is_there = media_change.lock(session, item)
                item = repository.get(session, context.tenant_id, media_id) if is_there else None
            if item is None:
                raise NotFoundError(f"there is no media item {media_id}")
            changed = changed_from(item)
            same_metadata = _as_json(changed.metadata) == _as_json(item.metadata)  # where 1 is not true
            if changed == item and same_metadata:
                return item
            texts = texts_of(changed)
            updated_at = media_change.update(
                session,
                changed,
                texts=texts,
                texts_differ=not same_metadata or texts != texts_of(item),
                task_id=task_id,
                trace_context=_trace_context.current(),
                event=MediaEvent.of(
                    changed,
                    "updated",
                    id=event_id,
                    occurred_at=datetime.now(UTC),
                    initiated_by=context.initiator,
                    url=event_url(changed, settings=context.settings),
                ),
            )
            assert updated_at is not None, "a locked row is there"
            return attrs.evolve(changed, updated_at=updated_at)

        return context.as_member.run(work)

    def copy(
        self,
        media: Media | UUID,
        *,
        filename: str | None = None,
        description: str | None = None,
        metadata: Metadata | None = None,
        expires_at: datetime | None = None,
    ) -> Media:
        """Make another item of the same bytes, which both share: they stay until the last of them is deleted.

        Args:
            media: The item or its id.
            filename: Its name; that of the original by default.
            description: What a person says about it; that of the original by default.
            metadata: The host's own values; those of the original by default.
            expires_at: From when on it is not found any more; never by default.

        Raises:
            NotFoundError: There is no such item.
            InvalidError: An argument is not allowed.
            TypeMismatchError: The extension contradicts the bytes.
        """
        context = self._context
        media_id = media if isinstance(media, UUID) else media.id
        addition = Addition.checked(
            description=description or "",
            metadata=metadata,
            expires_at=expires_at,
            on_duplicate=OnDuplicate.LINK,
            initiated_by=context.initiator,
            settings=context.settings,
        )
        name = None if filename is None else clean_filename(filename, fallback="unnamed")

        def work(session: Session) -> Media:
            if session.repeated and (made := repository.get(session, context.tenant_id, addition.link_id)):
                return made
            original = repository.get(session, context.tenant_id, media_id)
            if original is not None and name is not None:
                adding.check_name(original, name)
            made = original and adding.link(
                session,
                original,
                attrs.evolve(
                    addition,
                    description=original.description if description is None else addition.description,
                    metadata=original.metadata if metadata is None else addition.metadata,
                ),
                filename=name or original.filename,
                original_filename=original.original_filename if filename is None else as_handed_in(filename),
            )
            if made is None:
                raise NotFoundError(f"there is no media item {media_id}")
            return made

        return context.as_member.run(work)

    def delete(self, media: Media | UUID) -> None:
        """Delete an item with all that was made of it. Its bytes are removed by maintenance, soon after.

        Raises:
            NotFoundError: There is no such item.
        """
        (result,) = self._delete([media if isinstance(media, UUID) else media.id]).values()
        if result.error is not None:
            raise result.error

    def delete_many(self, media: Iterable[Media | UUID]) -> DeleteReport:
        """Delete items, up to 1000 to a transaction. One that is not there is in nobody's way.

        Args:
            media: Items or their ids.

        Returns:
            For each in their order, whether it was deleted, or the error; the same for one that is named twice.
        """
        ids = [item if isinstance(item, UUID) else item.id for item in media]
        each = list(dict.fromkeys(ids))
        results: dict[UUID, DeleteResult] = {}
        for start in range(0, len(each), MAX_PAGE):
            results |= self._delete(each[start : start + MAX_PAGE])
        return DeleteReport(tuple(results[media_id] for media_id in ids))

    def _delete(self, ids: Sequence[UUID]) -> dict[UUID, DeleteResult]:
        context = self._context
        event_ids = {media_id: uuid7() for media_id in ids}

        def work(session: Session) -> set[UUID]:
            items = repository.get_many(session, context.tenant_id, sorted(event_ids))
            deleted = delete_items(
                session, context.tenant_id, items, event_ids=event_ids, initiated_by=context.initiator
            )
            return set(ids) if session.repeated else deleted  # the first try may have deleted them

        deleted = context.as_member.run(work)
        return {
            media_id: DeleteResult(
                media_id=media_id,
                error=None if media_id in deleted else NotFoundError(f"there is no media item {media_id}"),
            )
            for media_id in ids
        }


def _as_json(metadata: Metadata) -> str:
    return json.dumps(metadata, sort_keys=True)
