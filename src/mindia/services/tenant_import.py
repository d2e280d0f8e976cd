"""A tenant of a file: what `app.tenants.import_archive` does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from itertools import islice
from uuid import UUID

import attrs

from mindia.config import Settings
from mindia.db.session import Session
from mindia.db.units import Unit
from mindia.domain.archives import ImportReport, Manifest
from mindia.domain.bulk import Progress
from mindia.domain.tenants import MediaLimits, Quota, Tenant, TenantStatus
from mindia.errors import AlreadyExistsError, ArchiveError, MindiaError, TenantInactiveError
from mindia.repositories import quotas, tenant_deletion, tenant_transfer, tenants
from mindia.services.archive_format import PRESETS, USERS
from mindia.services.archive_reader import ArchiveReader
from mindia.services.archive_survey import Ids, check_users_free, presets_of, survey, users_of
from mindia.services.context import TenantContext
from mindia.services.derived_import import DerivedImport
from mindia.services.media_import import MediaImport
from mindia.services.tenants import NewTenant

_USERS_BATCH = 500
_PRESETS_BATCH = 500
_UNFINISHED = " (import not complete)"

_log = logging.getLogger("mindia.tenants")


class TenantImport:
    """Makes a tenant of an archive: suspended until all of it is there, and deleted where that fails.

    See `mindia.services.movable_tenants.MovableTenants.import_archive` for the arguments.

    Args:
        archive: The archive.
        unit: Whose transactions go across tenants.
        context_of: Returns the context of a tenant that is not served.
        settings: Those of the installation.
        keep_ids: As for `import_archive`.
        limits: As for `import_archive`.
        max_items: As for `import_archive`.
        progress: As for `import_archive`.
    """

    def __init__(
        self,
        archive: ArchiveReader,
        unit: Unit,
        context_of: Callable[[Tenant], TenantContext],
        settings: Settings,
        *,
        keep_ids: bool,
        limits: MediaLimits | None,
        max_items: int,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self._archive = archive
        self._unit = unit
        self._context_of = context_of
        self._settings = settings
        self._keep_ids = keep_ids
        self._limits = limits
        self._max_items = max_items
        self._progress = progress

    def run(self, new: NewTenant) -> ImportReport:
        """Import it."""
        ids = survey(self._archive, self._unit, self._settings, keep_ids=self._keep_ids, max_items=self._max_items)
        manifest = self._archive.manifest
        try:
            context = self._context_of(self._make_suspended(new, manifest))
            self._add_users(context, ids)
            self._add_presets(context, ids)
            media = MediaImport(self._archive, context, self._unit, ids, progress=self._progress)
            media.run()
            derived = DerivedImport(self._archive, context, ids, media, progress=media.tell)
            derived.run()
            tenant = self._complete(new, manifest.tenant.quota)
        except BaseException:
            self._give_up(new.id)
            raise
        return ImportReport(
            tenant=tenant,
            user_count=manifest.user_count,
            media_count=media.added,
            preset_count=manifest.preset_count,
            derivative_count=derived.added,
            expired=tuple(media.expired),
            media_ids={} if self._keep_ids else ids.media,
            user_ids={} if self._keep_ids else ids.users,
        )

    def _make_suspended(self, new: NewTenant, manifest: Manifest) -> Tenant:
        unfinished = attrs.evolve(new, name=new.name[: 255 - len(_UNFINISHED)] + _UNFINISHED)
        limits = self._limits
        if limits is None:
            limits = _stricter(manifest.tenant.limits, self._settings)

        def work(session: Session) -> Tenant:
            unfinished.write(session)
            tenants.set_limits(session, new.id, limits)
            return _there(tenants.set_status(session, new.id, TenantStatus.SUSPENDED), new.id)

        return self._unit.run(work)

    def _add_users(self, context: TenantContext, ids: Ids) -> None:
        users = (
            attrs.evolve(user, id=ids.of_user(user, where)) for where, user in users_of(self._archive, self._settings)
        )
        while batch := list(islice(users, _USERS_BATCH)):
            try:
                context.as_admin.run(partial(tenant_transfer.add_users, tenant_id=context.tenant_id, users=batch))
            except AlreadyExistsError as error:
                check_users_free(self._unit, [user.id for user in batch])
                raise ArchiveError(f"{USERS}: {error}") from error

    def _add_presets(self, context: TenantContext, ids: Ids) -> None:
        presets = (
            attrs.evolve(preset, transformation=preset.transformation.with_watermarks(ids.media))
            for _, preset in presets_of(self._archive)
        )
        while batch := list(islice(presets, _PRESETS_BATCH)):
            try:
                context.as_admin.run(partial(tenant_transfer.add_presets, tenant_id=context.tenant_id, presets=batch))
            except AlreadyExistsError as error:
                raise ArchiveError(f"{PRESETS}: {error}") from error

    def _complete(self, new: NewTenant, quota: Quota) -> Tenant:
        def work(session: Session) -> Tenant:
            quotas.put(session, new.id, quota)
            tenants.rename(session, new.id, new.name)
            return _there(tenants.set_status(session, new.id, TenantStatus.ACTIVE), new.id)

        return self._unit.run(work)

    def _give_up(self, tenant_id: UUID) -> None:
        try:
            self._unit.run(lambda session: tenant_deletion.mark(session, tenant_id), single=True)
        except MindiaError:
            _log.warning(
                "tenant %s, which was not imported, is still there, suspended: app.tenants.delete() removes it",
                tenant_id,
                exc_info=True,
            )


def _stricter(wanted: MediaLimits, settings: Settings) -> MediaLimits:
    """Return the limits that are below those of the installation: an archive raises none."""
    return MediaLimits(
        **{
            name: limit
            for name, limit in attrs.asdict(wanted).items()
            if limit is not None and limit < getattr(settings, name)
        }
    )


def _there(tenant: Tenant | None, tenant_id: UUID) -> Tenant:
    if tenant is None:
        raise TenantInactiveError(f"the tenant {tenant_id} was deleted while it was being imported")
    return tenant
