"""A tenant as a file: what `app.tenants.export` does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Self
from uuid import UUID

import attrs

from mindia._version import __version__
from mindia.config import Settings
from mindia.db.session import Scope, Session
from mindia.db.units import Unit
from mindia.domain.archives import ArchivedPreset, ArchivedTenant, ArchivedUser, ExportReport, Manifest
from mindia.domain.bulk import Progress
from mindia.domain.media import Media
from mindia.domain.tenants import Quota, Tenant, TenantStatus
from mindia.errors import NotFoundError, ObjectNotFoundError, TenantInactiveError
from mindia.repositories import quotas, tenant_transfer, tenants
from mindia.repositories.derivatives import source_of
from mindia.repositories.tenant_transfer import Archived
from mindia.services.archive_format import (
    DERIVATIVES,
    FORMAT,
    MANIFEST,
    MEDIA,
    PRESETS,
    USERS,
    VERSION,
    manifest_line,
    media_line,
    preset_line,
    user_line,
)
from mindia.services.archive_writer import ArchiveWriter, Lines, written_archive
from mindia.services.derived_export import DerivedExport, MadeRow
from mindia.storage.base import Storage

_PAGE = 50
"""Items that are held in memory at once: documents have much text."""
_USERS_PAGE = 500
_PRESETS_PAGE = 500


@attrs.frozen
class _Row:
    """An item of the snapshot, and its line."""

    media_id: UUID
    sha256: str
    file_size: int
    s3_key: str
    line: bytes = attrs.field(repr=False)

    @classmethod
    def of(cls, archived: Archived) -> Self:
        media = archived.media
        return cls(media.id, media.sha256, media.file_size, archived.s3_key, media_line(media))

    def line_on_disk(self) -> bytes:
        head = json.dumps([str(self.media_id), self.sha256, self.file_size, self.s3_key])
        return head.encode() + b"\t" + self.line

    @classmethod
    def read(cls, line_on_disk: bytes) -> Self:
        head, _, line = line_on_disk.partition(b"\t")  # JSON has none that is not escaped
        media_id, sha256, file_size, s3_key = json.loads(head)
        return cls(UUID(media_id), sha256, file_size, s3_key, line)


@attrs.frozen(kw_only=True)
class _Snapshot:
    """All rows as they are at one moment, on disk."""

    users: Lines
    presets: Lines
    media: Lines
    made: Lines


class TenantExport:
    """Reads the rows of a tenant in one transaction, and then its bytes without one.

    See `mindia.services.movable_tenants.MovableTenants.export` for the arguments.

    Args:
        unit: Whose transactions are bound to nothing yet.
        storage: Where the bytes are.
        settings: Where rows wait until they are written.
        derived: As for `export`.
        progress: As for `export`.
    """

    def __init__(
        self,
        unit: Unit,
        storage: Storage,
        settings: Settings,
        *,
        derived: bool,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self._unit = unit
        self._storage = storage
        self._settings = settings
        self._derived = derived
        self._progress = progress

    def run(self, tenant_id: UUID, path: str | os.PathLike[str]) -> ExportReport:
        """Write the archive."""
        self._unit.check()
        with (
            closing(Lines(self._settings)) as users,
            closing(Lines(self._settings)) as presets,
            closing(Lines(self._settings)) as rows,
            closing(Lines(self._settings)) as made_rows,
            closing(Lines(self._settings)) as media,
            closing(Lines(self._settings)) as made,
            written_archive(path) as archive,
        ):
            snapshot = _Snapshot(users=users, presets=presets, media=rows, made=made_rows)
            tenant, quota = self._unit.run(lambda session: _read(session, tenant_id, snapshot, derived=self._derived))
            derived = DerivedExport(archive, self._storage, tenant, self._settings, made)
            missing = self._write_objects(archive, tenant, snapshot, media, derived)
            archive.add_lines(USERS, users)
            archive.add_lines(MEDIA, media)
            archive.add_lines(PRESETS, presets)
            archive.add_lines(DERIVATIVES, made)
            manifest = Manifest(
                format=FORMAT,
                version=VERSION,
                mindia=__version__,
                tenant=ArchivedTenant(name=tenant.name, region=tenant.s3_region, limits=tenant.limits, quota=quota),
                user_count=users.count,
                media_count=media.count,
                preset_count=presets.count,
                derivative_count=made.count,
                object_count=archive.object_count,
                object_bytes=archive.object_bytes,
                users_sha256=users.sha256,
                media_sha256=media.sha256,
                presets_sha256=presets.sha256,
                derivatives_sha256=made.sha256,
            )
            archive.add(MANIFEST, manifest_line(manifest))
        return ExportReport(
            tenant_id=tenant_id,
            path=Path(path),
            user_count=manifest.user_count,
            media_count=manifest.media_count,
            preset_count=manifest.preset_count,
            derivative_count=manifest.derivative_count,
            object_count=manifest.object_count,
            object_bytes=manifest.object_bytes,
            missing=tuple(missing),
            missing_derivatives=tuple(derived.missing),
        )

    def _write_objects(
        self, archive: ArchiveWriter, tenant: Tenant, snapshot: _Snapshot, media: Lines, derived: DerivedExport
    ) -> list[UUID]:
        """Write the bytes of all items, with what was made of each, and the lines of those that have them.

        Returns:
            The others.
        """
        missing: list[UUID] = []
        all_made = map(MadeRow.read, snapshot.made)
        made = next(all_made, None)
        for done, row in enumerate(map(_Row.read, snapshot.media), start=1):
            is_there = archive.has(row.sha256) or self._write_object(archive, tenant, row)
            if is_there:
                media.add(row.line)
            else:
                missing.append(row.media_id)
            while made is not None and made.media_id == row.media_id:
                if is_there:
                    derived.write(made)
                made = next(all_made, None)
            if self._progress is not None:
                self._progress(Progress(done=done, failed=len(missing), total=snapshot.media.count))
        return missing

    def _write_object(self, archive: ArchiveWriter, tenant: Tenant, row: _Row) -> bool:
        try:
            source = self._storage.open(tenant.s3_bucket, row.s3_key)
        except ObjectNotFoundError:
            return False
        with source:
            archive.add_object(source, sha256=row.sha256, size=row.file_size, owner=f"media item {row.media_id}")
        return True


def _read(session: Session, tenant_id: UUID, snapshot: _Snapshot, *, derived: bool) -> tuple[Tenant, Quota]:
    """Read all rows as they are at this moment."""
    for lines in (snapshot.users, snapshot.presets, snapshot.media, snapshot.made):
        lines.clear()
    tenant_transfer.begin_snapshot(session)
    session = session.bound_to(Scope(tenant_id=tenant_id, is_served=False))
    tenant = tenants.get(session, tenant_id)
    if tenant is None:
        raise NotFoundError(f"there is no tenant {tenant_id}")
    if tenant.status is TenantStatus.DELETED:
        raise TenantInactiveError(f"tenant {tenant_id} is deleted: there may not be all of it any more")
    for user in _users(session, tenant_id):
        snapshot.users.add(user_line(user))
    for preset in _presets(session, tenant_id):
        snapshot.presets.add(preset_line(preset))
    seen: set[UUID] = set()
    for page in _media(session, tenant_id):
        archived = tenant_transfer.archived(session, tenant_id, page)
        for each in archived:
            snapshot.media.add(_Row.of(each).line_on_disk())
        if derived:
            _read_made(session, tenant_id, archived, page, snapshot.made, seen)
    return tenant, quotas.get(session, tenant_id) or Quota()


def _users(session: Session, tenant_id: UUID) -> Iterator[ArchivedUser]:
    after: UUID | None = None
    while page := tenant_transfer.users_page(session, tenant_id, after=after, limit=_USERS_PAGE):
        yield from page
        after = page[-1].id


def _presets(session: Session, tenant_id: UUID) -> Iterator[ArchivedPreset]:
    after: str | None = None
    while page := tenant_transfer.presets_page(session, tenant_id, after=after, limit=_PRESETS_PAGE):
        yield from page
        after = page[-1].name


def _media(session: Session, tenant_id: UUID) -> Iterator[Sequence[Media]]:
    after: Media | None = None
    while page := tenant_transfer.media_page(session, tenant_id, after=after, limit=_PAGE):
        yield page
        after = page[-1]


def _read_made(
    session: Session,
    tenant_id: UUID,
    archived: Sequence[Archived],
    page: Sequence[Media],
    lines: Lines,
    seen: set[UUID],
) -> None:
    """Read what was made of items: for those that share their bytes once, with the first of them."""
    for made in tenant_transfer.made_of(session, tenant_id, page):
        if made.source_id not in seen:
            lines.add(MadeRow.of(made).line_on_disk())
    shared = (source_of(item.s3_key) for item, each in zip(page, archived, strict=True) if each.media.shares_bytes)
    seen.update(filter(None, shared))
