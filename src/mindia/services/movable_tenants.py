"""Tenants of the application, which can be exported and imported: `app.tenants`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from mindia.config import Settings
from mindia.db.database import Database
from mindia.db.session import Scope
from mindia.db.units import OwnTransaction, Unit
from mindia.domain.tenants import MediaLimits, Tenant
from mindia.errors import InvalidError
from mindia.services._bars import reporting
from mindia.services.context import TenantContext
from mindia.services.known_tenants import KnownTenants, known_of
from mindia.services.tenants import NewTenant, Tenants
from mindia.storage.base import Storage

if TYPE_CHECKING:
    from mindia.domain.archives import ExportReport, ImportReport
    from mindia.domain.bulk import Progress


class MovableTenants(Tenants):
    """Makes and changes tenants, writes them into archives, and reads them from there. Thread-safe.

    Exporting and importing take many transactions of their own, so that there is neither in a transaction.
    """

    def __init__(
        self,
        unit: Unit,
        storage: Storage,
        known: KnownTenants,
        *,
        database: Database,
        settings: Settings,
        make_context: Callable[..., TenantContext],
    ) -> None:
        super().__init__(unit, storage, known)
        self._database = database
        self._settings = settings
        self._make_context = make_context

    def export(
        self,
        tenant_id: UUID,
        path: str | os.PathLike[str],
        *,
        derived: bool = True,
        progress: Callable[[Progress], object] | bool | None = None,
    ) -> ExportReport:
        """Write a tenant into an archive: users, presets, media and their bytes, as they are when this begins.

        Pictures that were made of items, and streams of videos, go with them.

        The archive is a ZIP file, which its owner alone may read: the hashes of passwords are in it. It is there as a
        whole at the end, in place of one that was there, or not at all. API keys, webhooks, tasks and vectors are not
        in it. See docs/export.md.

        Args:
            tenant_id: The tenant, active or suspended.
            path: The file.
            derived: Whether pictures that were made of items, and streams of videos, are in it. Without them it is
                smaller, and they are made again by the installation that imports it.
            progress: Is called with how far it is after each item, in the thread of the caller; those without bytes
                have failed. What it raises ends the export. True shows a bar (`pip install 'mindia[notebook]'`).

        Raises:
            NotFoundError: There is no such tenant.
            TenantInactiveError: It is deleted.
            InvalidError: The file cannot be written.
            StorageError: The object store failed, or bytes are not those that were added.
            MissingExtraError: A bar is asked for, and tqdm is not installed.
        """
        from mindia.services.tenant_export import TenantExport

        unit = OwnTransaction(self._database, None)
        with reporting(progress, unit="item") as report:
            export = TenantExport(unit, self._storage, self._settings, derived=derived, progress=report)
            return export.run(tenant_id, path)

    def import_archive(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        s3_bucket: str | None = None,
        s3_region: str | None = None,
        keep_ids: bool = True,
        limits: MediaLimits | None = None,
        max_items: int = 1_000_000,
        progress: Callable[[Progress], object] | bool | None = None,
    ) -> ImportReport:
        """Make a new tenant of an archive that `export` has written, here or in another installation.

        Nothing in the archive is trusted: bytes are taken in as those of `media.add` are, within the limits of this
        installation. The tenant is suspended until all of it is there. Where the import fails it is deleted; where the
        process is killed it stays suspended, under a name that tells so.

        Args:
            path: The archive.
            name: Of the new tenant; that in the archive by default.
            s3_bucket: As for `create`.
            s3_region: As for `create`.
            keep_ids: Whether users and media keep their ids, to which rows of the host's own may refer. Otherwise the
                report tells which id has become which.
            limits: Limits of media of the tenant's own. By default those in the archive, where they are below the ones
                of `Settings`: an archive raises no limit.
            max_items: How many items, users, presets, and pictures and streams there may be at most, of each. One takes
                about a kilobyte of memory meanwhile.
            progress: Is called with how far it is after each batch of items, and after each picture and stream that
                was made of them, in the thread of the caller. What it raises ends the import. True shows a bar.

        Raises:
            ArchiveError: The file is no archive, is damaged, or holds what is not allowed.
            MediaError: The bytes of an item are not what can be taken in.
            AlreadyExistsError: An id or the bucket is taken.
            InvalidError: The file cannot be read, or another argument is not allowed.
            TenantInactiveError: The tenant was deleted meanwhile.
            StorageError: The object store failed.
            MissingExtraError: A bar is asked for, and tqdm is not installed.
        """
        from mindia.services.archive_reader import opened_archive
        from mindia.services.tenant_import import TenantImport

        self._unit.check()
        if limits is not None and not isinstance(limits, MediaLimits):
            raise InvalidError(f"limits must be MediaLimits, not {type(limits).__name__}")
        if max_items < 1:
            raise InvalidError(f"max_items must be at least 1, not {max_items}")
        with opened_archive(path, max_items=max_items) as archive, reporting(progress, unit="item") as report:
            new = NewTenant.checked(
                archive.manifest.tenant.name if name is None else name,
                s3_bucket=s3_bucket,
                s3_region=s3_region or self._storage.region,
            )
            return TenantImport(
                archive,
                self._unit,
                self._context_of,
                self._settings,
                keep_ids=keep_ids,
                limits=limits,
                max_items=max_items,
                progress=report,
            ).run(new)

    def _context_of(self, tenant: Tenant) -> TenantContext:
        """Return the context of a tenant that is not served."""
        unit = OwnTransaction(self._database, Scope(tenant_id=tenant.id, is_served=False))
        known = known_of(tenant, self._settings, seen_at=time.monotonic())
        return self._make_context(
            tenant_id=tenant.id,
            tenant=lambda: known,
            bucket=lambda: known.s3_bucket,
            initiator=None,
            as_viewer=unit,
            as_member=unit,
            as_admin=unit,
        )
