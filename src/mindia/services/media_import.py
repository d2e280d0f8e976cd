"""The media of an archive become those of a tenant: staged as whatever is added, several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.db.units import Unit
from mindia.domain.archives import ArchivedMedia
from mindia.domain.bulk import Progress
from mindia.domain.media import DocumentFacts, Facts, ImageFacts, OnDuplicate, Staged
from mindia.domain.tenants import TenantStatus
from mindia.errors import (
    AlreadyExistsError,
    ArchiveError,
    ConflictError,
    DatabaseUnavailableError,
    MindiaError,
    TenantInactiveError,
)
from mindia.media.names import clean_filename
from mindia.media.spool import spool
from mindia.repositories import media as repository
from mindia.repositories import tenant_transfer, tenants
from mindia.repositories._details import columns_of
from mindia.services import adding, ingest
from mindia.services.adding import Addition
from mindia.services.archive_reader import ArchiveReader
from mindia.services.archive_survey import Ids, check_media_free, media_of
from mindia.services.context import TenantContext
from mindia.services.ingest import Received
from mindia.services.leases import Slot

_CONCURRENCY = 3
_BATCH = 32
_BATCH_BYTES = 256_000_000
"""Items that are staged, and then written in one transaction: so many that none waits long for the others."""


@attrs.frozen
class _Item:
    """An item of the archive, with the id that it will have.

    Attributes:
        where: Its line, for messages.
        media: The item.
        staged: Its bytes; None where they are not staged yet, or are those of another item.
    """

    where: str
    media: ArchivedMedia
    staged: Staged | None = None


class MediaImport:
    """Adds all media of an archive to a tenant.

    Args:
        archive: The archive.
        context: Of the tenant, which is suspended.
        unit: Whose transactions see the ids of all tenants.
        ids: What has which id.
        progress: Is called after each batch.

    Attributes:
        added: How many have been added.
        expired: Those that were left out, by their ids in the archive.
    """

    def __init__(
        self,
        archive: ArchiveReader,
        context: TenantContext,
        unit: Unit,
        ids: Ids,
        *,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self._archive = archive
        self._context = context
        self._settings = context.tenant().settings
        self._unit = unit
        self._ids = ids
        self._progress = progress
        self._sharing: dict[str, UUID] = {}
        self._shared: dict[UUID, str] = {}
        self.added = 0
        self.expired: list[UUID] = []

    def run(self) -> None:
        """Add them."""
        lines = media_of(self._archive)
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="mindia-import") as threads:
            for batch in _batches(lines):
                items = self._wanted(batch)
                while items:
                    items = self._add(items, threads)
                self.tell()

    def tell(self) -> None:
        """Tell how far it is."""
        if self._progress is not None:
            done = self.added + len(self.expired)
            self._progress(Progress(done=done, failed=0, total=self._archive.manifest.media_count))

    def sharing(self, media_id: UUID) -> UUID | None:
        """Return the item whose bytes others share that an item shared its own with; None where it did not.

        Args:
            media_id: Of that, in the archive. It may have expired.
        """
        return self._sharing.get(self._shared.get(media_id, ""))

    def _wanted(self, lines: Sequence[tuple[str, ArchivedMedia]]) -> list[_Item]:
        now = datetime.now(UTC)
        wanted: list[_Item] = []
        for where, media in lines:
            if media.shares_bytes:
                self._shared[media.id] = media.sha256
            if media.expires_at is not None and media.expires_at <= now:
                self.expired.append(media.id)
                continue
            filename = clean_filename(media.filename, fallback="unnamed")
            wanted.append(_Item(where, attrs.evolve(media, id=self._ids.of_media(media, where), filename=filename)))
        return wanted

    def _add(self, items: Sequence[_Item], threads: ThreadPoolExecutor) -> list[_Item]:
        """Add items, and return those that were to share the bytes of one that has expired meanwhile."""
        links = [item for item in items if self._shares_with_another(item.media)]
        staged = self._stage([item for item in items if item not in links], threads)
        try:
            gone = self._context.as_member.run(lambda session: self._write(session, staged, links))
        except DatabaseUnavailableError:
            raise  # they may be committed all the same: the sweep will see
        except BaseException as error:
            self._discard(staged)
            if isinstance(error, AlreadyExistsError):
                check_media_free(self._unit, [item.media.id for item in items])
            raise
        for item in gone:
            self._sharing.pop(item.media.sha256, None)
        self.added += len(items) - len(gone)
        return gone

    def _shares_with_another(self, media: ArchivedMedia) -> bool:
        """Tell whether an item shares the bytes of an earlier one; where there is none, later ones share its own."""
        return media.shares_bytes and self._sharing.setdefault(media.sha256, media.id) != media.id

    def _stage(self, items: Sequence[_Item], threads: ThreadPoolExecutor) -> list[_Item]:
        """Stage items in threads; where one is refused, all are discarded."""
        context = self._context
        keys = [item.media.id for item in items]
        slots = context.leases.lease(context.tenant_id, keys, s3_bucket=context.bucket())
        futures = [threads.submit(self._staged, item, slot) for item, slot in zip(items, slots, strict=True)]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.cancel()  # what has not begun by now is not wanted any more
        wait(futures)
        ended = [future for future in futures if not future.cancelled()]
        error = next((error for future in ended if (error := future.exception()) is not None), None)
        if error is not None:
            self._discard([future.result() for future in ended if future.exception() is None])
            raise error
        return [future.result() for future in futures]

    def _staged(self, item: _Item, slot: Slot) -> _Item:
        media, context = item.media, self._context
        try:
            with (
                self._archive.open_object(media.sha256) as source,
                spool(source, filename=media.filename, settings=self._settings) as spooled,
            ):
                if spooled.sha256 != media.sha256:
                    raise ArchiveError(f"{item.where}: the object {media.sha256} has the hash {spooled.sha256}")
                incoming = Received(
                    spooled=spooled,
                    filename=media.filename,
                    original_filename=media.original_filename,
                    declared=None,
                    settings=self._settings,
                )
                staged = ingest.stage(context, incoming, sanitize=False, slot=slot)
        except MindiaError as error:
            error.add_note(item.where)
            raise
        if (staged.kind, staged.content_type) != (media.kind, media.content_type):
            ingest.discard(context, staged)
            raise ArchiveError(
                f"{item.where}: the bytes of {media.filename!r} are of the {staged.kind} type {staged.content_type}, "
                f"and not of the {media.kind} type {media.content_type!r}"
            )
        return attrs.evolve(item, staged=attrs.evolve(staged, facts=self._facts(media.facts, measured=staged.facts)))

    def _facts(self, told: Facts, *, measured: Facts) -> Facts:
        """Return what is measured in the bytes, and what was told of them: they may have been removed since."""
        facts = attrs.evolve(told, **columns_of(measured))
        if isinstance(facts, ImageFacts) and not self._settings.keep_location:
            return attrs.evolve(facts, location=None)
        if isinstance(facts, DocumentFacts):
            return attrs.evolve(facts, text=facts.text[: self._settings.max_text_chars])
        return facts

    def _write(self, session: Session, items: Sequence[_Item], links: Sequence[_Item]) -> list[_Item]:
        """Write rows, and return the links whose original has expired."""
        context = self._context
        tenant = tenants.get(session, context.tenant_id)
        if tenant is None or tenant.status is TenantStatus.DELETED:
            raise TenantInactiveError(f"the tenant {context.tenant_id} was deleted while it was being imported")
        news = [
            adding.prepared(context, item.staged, _addition(item.media)) for item in items if item.staged is not None
        ]
        for added in adding.add_all(session, news):
            if isinstance(added, ConflictError):
                raise added
        gone = [item for item in links if not self._link(session, item)]
        written = [item.media for item in (*items, *links) if item not in gone]
        tenant_transfer.set_times(session, context.tenant_id, written)
        return gone

    def _link(self, session: Session, item: _Item) -> bool:
        media, tenant_id = item.media, self._context.tenant_id
        if session.repeated and repository.get(session, tenant_id, media.id):
            return True
        original = repository.get(session, tenant_id, self._sharing[media.sha256])
        if original is None:
            return False
        if (original.kind, original.content_type) != (media.kind, media.content_type):
            raise ArchiveError(f"{item.where}: the bytes are {original.content_type}, not {media.content_type!r}")
        try:
            adding.check_name(original, media.filename)
        except MindiaError as error:
            error.add_note(item.where)
            raise
        filenames = {"filename": media.filename, "original_filename": media.original_filename}
        return adding.link(session, original, _addition(media), **filenames) is not None

    def _discard(self, items: Sequence[_Item]) -> None:
        for item in items:
            if item.staged is not None:
                ingest.discard(self._context, item.staged)


def _batches(lines: Iterator[tuple[str, ArchivedMedia]]) -> Iterator[list[tuple[str, ArchivedMedia]]]:
    batch: list[tuple[str, ArchivedMedia]] = []
    size = 0
    for where, media in lines:
        size += media.file_size
        if batch and (len(batch) == _BATCH or size > _BATCH_BYTES):
            yield batch
            batch, size = [], media.file_size
        batch.append((where, media))
    if batch:
        yield batch


def _addition(media: ArchivedMedia) -> Addition:
    return Addition(
        description=media.description,
        metadata=media.metadata,
        expires_at=media.expires_at,
        on_duplicate=OnDuplicate.STORE,
        initiated_by=None,
        link_id=media.id,
    )
