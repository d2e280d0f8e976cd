"""What `Maintenance.verify` does about what it finds."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from mindia._ids import uuid7
from mindia.db.database import Database
from mindia.db.session import ACROSS_TENANTS, Scope, Session
from mindia.db.units import OwnTransaction
from mindia.domain.derivatives import Derivative
from mindia.domain.maintenance import Problem, Repair
from mindia.domain.media import Media
from mindia.domain.tenants import Tenant
from mindia.errors import ObjectNotFoundError, StorageError, StorageUnavailableError, TenantInactiveError
from mindia.repositories import derivatives, media, media_change, objects, verification
from mindia.repositories.verification import NamedKey, StoredItem
from mindia.services._keys import original_key
from mindia.services.deleting import delete_items
from mindia.storage.base import Storage

if TYPE_CHECKING:
    from mindia.services.maintenance import Maintenance

_log = logging.getLogger("mindia.maintenance")


class Repairs:
    """Those that were asked for.

    Args:
        database: Where the rows are.
        storage: Where the bytes are.
        maintenance: Removes what is put on record for it.
        wanted: What may be done.
    """

    def __init__(
        self, database: Database, storage: Storage, maintenance: Maintenance, wanted: Collection[Repair]
    ) -> None:
        self._database = database
        self._unit = OwnTransaction(database, ACROSS_TENANTS)
        self._storage = storage
        self._maintenance = maintenance
        self._wanted = wanted

    def of_item(self, tenant: Tenant, item: StoredItem, problem: Problem) -> Repair | None:
        """Do what is wanted about an item whose bytes are missing or wrong; return what was done."""
        if Repair.RESTORE in self._wanted and self._restore(tenant, item):
            return Repair.RESTORE
        if Repair.DELETE_ITEMS in self._wanted and problem is not Problem.UNREADABLE and self._delete(tenant, item):
            return Repair.DELETE_ITEMS
        return None

    def of_orphans(self, tenant: Tenant, orphans: Sequence[NamedKey]) -> Repair | None:
        """Remove bytes that are on no record, if that is wanted; return what was done.

        They are put on record first, so that nobody comes to use their keys meanwhile, and then swept like what else
        was left behind: where the object store fails over it, that is tried again.
        """
        if Repair.REMOVE_ORPHANS not in self._wanted:
            return None
        originals = [each.id for each in orphans if each.key == original_key(each.id)]
        others = [each.key for each in orphans if each.key != original_key(each.id)]

        def work(session: Session) -> None:
            objects.give_up(session, tenant.id, originals, s3_bucket=tenant.s3_bucket)
            if others:
                objects.delete_later(session, tenant.id, uuid7(), others, s3_bucket=tenant.s3_bucket)

        self._unit.run(work)
        self._maintenance.sweep_staged()
        self._maintenance.remove_deleted()
        return Repair.REMOVE_ORPHANS

    def of_derivative(self, tenant: Tenant, derivative: Derivative, problem: Problem) -> Repair | None:
        """Remove what was made of an item and is damaged, if that is wanted; return what was done."""
        if Repair.REMOVE_DERIVATIVES not in self._wanted or problem is Problem.UNREADABLE:
            return None
        self._unit.run(lambda session: derivatives.remove_by_id(session, tenant.id, [derivative.id]), single=True)
        return Repair.REMOVE_DERIVATIVES

    def _restore(self, tenant: Tenant, item: StoredItem) -> bool:
        """Copy the bytes from where else the tenant has them; the item cannot be deleted meanwhile."""
        from mindia.services.verification import Hashed, hash_of

        def work(session: Session) -> bool:
            found = media.get(session, tenant.id, item.id)
            if found is None or not media_change.lock(session, found):
                return False
            for key in verification.twins(session, tenant.id, sha256=item.sha256, s3_key=item.s3_key):
                try:
                    if hash_of(self._storage, tenant.s3_bucket, key) != Hashed(item.file_size, item.sha256):
                        continue
                    self._storage.copy(tenant.s3_bucket, key, to_bucket=tenant.s3_bucket, to_key=item.s3_key)
                except StorageUnavailableError:
                    raise
                except (ObjectNotFoundError, StorageError, OSError) as error:
                    _log.warning("%s cannot be restored from %s: %s", item.s3_key, key, error)
                else:
                    return True
            return False

        return self._unit.run(work)

    def _delete(self, tenant: Tenant, item: StoredItem) -> bool:
        event_id = uuid7()

        def work(session: Session) -> bool:
            found: list[Media] = media.get_many(session, tenant.id, [item.id])
            deleted = delete_items(session, tenant.id, found, event_ids={item.id: event_id}, initiated_by=None)
            return bool(deleted) or session.repeated

        try:
            return OwnTransaction(self._database, Scope(tenant_id=tenant.id)).run(work)
        except TenantInactiveError:
            return False
