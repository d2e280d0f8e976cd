"""Removes bytes that nothing points at, and tenants that are deleted: `app.maintenance`. Workers run it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from threading import Event
from typing import TYPE_CHECKING
from uuid import UUID

from mindia._handles import Handle
from mindia._ids import uuid7
from mindia.config import Settings
from mindia.db.database import Database
from mindia.db.session import ACROSS_TENANTS, Scope, Session
from mindia.db.units import OwnTransaction
from mindia.domain.maintenance import FoundObject, MaintenanceReport, Repair
from mindia.errors import InvalidError, StorageError, TenantInactiveError
from mindia.repositories import login_failures, objects, uploads
from mindia.services._findings import Tally
from mindia.services._keys import derivative_prefix, original_key, upload_prefix
from mindia.services.vector_indexes import IndexChanges, IndexStrategy, OwnIndexes, keep_indexes
from mindia.storage.base import Storage

if TYPE_CHECKING:
    from mindia.delivery.secrets import SecretBox
    from mindia.domain.maintenance import CopyReport, VerifyReport
    from mindia.domain.tenant_deletion import TenantDeletionProgress, TenantDeletionReport
    from mindia.domain.tenants import Tenant
    from mindia.repositories.webhooks import Sealed

Progress = Callable[[MaintenanceReport], object]

_BATCH = 100
_DELIVERIES = 1000
_REQUESTS = 5_000
_VECTORS = 1_000
_NOT_SEARCHED = timedelta(minutes=1)
"""By then nobody searches a space any more that was replaced."""
_MAX_EXPIRED = 10_000
"""At one go; the next one takes the rest."""

_log = logging.getLogger("mindia.maintenance")


class Maintenance(Handle):
    """Work that keeps the object store and the database of one mind. Thread-safe; two at once share the work."""

    def __init__(self, database: Database, storage: Storage, settings: Settings) -> None:
        self._database = database
        self._storage = storage
        self._settings = settings
        self._index_strategy: IndexStrategy = OwnIndexes()

    def sweep_staged(
        self, *, older_than: timedelta | None = None, dry_run: bool = False, progress: Progress | None = None
    ) -> MaintenanceReport:
        """Remove the bytes of staged objects that no item was made of.

        An object that an open transaction is adding is left alone, however old it is. Where the object store fails, the
        removal is put on record and `remove_deleted` tries it again later.

        Args:
            older_than: Instead of `Settings.staging_grace`. Below it, what other processes stage at the moment is
                swept, too; they get a `StagedObjectExpiredError`.
            dry_run: Whether it only looks. What open transactions are adding is found, too, then.
            progress: Is called with how far it is, after each batch. What it raises ends the work.

        Raises:
            InvalidError: `older_than` is negative.
        """
        grace = self._grace(older_than, argument="older_than")
        tally = Tally(progress, is_dry_run=dry_run)
        if dry_run:
            with self._database.transaction(ACROSS_TENANTS) as session:
                staged = objects.look_at_staged(session, older_than=grace, limit=tally.room)
                tally.found(_of_staged(staged), count=objects.count_staged(session, older_than=grace))
            return tally.report()
        while True:
            with self._database.transaction(ACROSS_TENANTS) as session:
                staged = objects.take_staged(session, older_than=grace, limit=_BATCH)
                tally.found(_of_staged(staged))
                by_bucket = defaultdict(list)
                for taken in staged:
                    by_bucket[taken.s3_bucket].append(taken)
                for bucket, stale in by_bucket.items():
                    keys, prefixes = _keys_of_staged(stale), _prefixes_of_staged(stale)
                    error = self._remove(bucket, keys, prefixes)
                    for taken in stale if error is not None else ():
                        objects.put_off_staged(
                            session,
                            taken,
                            s3_keys=_keys_of_staged([taken]),
                            s3_prefixes=_prefixes_of_staged([taken]),
                            error=str(error),
                        )
                    tally.ended(len(stale), error)
            tally.tell()
            if len(staged) < _BATCH:
                return tally.report()

    def _settle_videos(self) -> int:
        from mindia.services.transcoding import settle  # costs more than the rest of this module

        return settle(self._database, self._settings)

    def remove_expired(self, *, dry_run: bool = False, progress: Progress | None = None) -> MaintenanceReport:
        """Delete the items that have expired. They were not found before either.

        Those of a tenant that is suspended stay until it is reactivated. At one go it takes up to 10,000.

        Args:
            dry_run: Whether it only looks.
            progress: As for `sweep_staged`.
        """
        from mindia.repositories import media_change  # costs more than the rest of this module

        tally = Tally(progress, is_dry_run=dry_run)
        with self._database.transaction(ACROSS_TENANTS) as session:
            tenants = media_change.expired(session, limit=tally.room if dry_run else _MAX_EXPIRED)
            if dry_run:
                each = [found for tenant in tenants for found in _of_items(tenant.tenant_id, tenant.media_ids)]
                tally.found(each, count=media_change.count_expired(session))
                return tally.report()
        for tenant in tenants:
            for start in range(0, len(tenant.media_ids), _BATCH):
                ids = tenant.media_ids[start : start + _BATCH]
                tally.found(_of_items(tenant.tenant_id, ids))
                tally.ended(self._remove_expired(tenant.tenant_id, ids), None)
                tally.tell()
        return tally.report()

    def _remove_expired(self, tenant_id: UUID, media_ids: Sequence[UUID]) -> int:
        from mindia.repositories import media
        from mindia.services.deleting import delete_items

        event_ids = {media_id: uuid7() for media_id in media_ids}

        def work(session: Session) -> int:
            items = media.get_expired(session, tenant_id, media_ids)
            return len(
                delete_items(session, tenant_id, items, event_ids=event_ids, initiated_by=None, only_expired=True)
            )

        try:
            return OwnTransaction(self._database, Scope(tenant_id=tenant_id)).run(work)
        except TenantInactiveError:
            return 0

    def remove_deleted(self, *, dry_run: bool = False, progress: Progress | None = None) -> MaintenanceReport:
        """Remove the bytes of deleted items.

        Where the object store fails, the removal stays on record and is tried again later.

        Args:
            dry_run: Whether it only looks.
            progress: As for `sweep_staged`.
        """
        tally = Tally(progress, is_dry_run=dry_run)
        if dry_run:
            with self._database.transaction(ACROSS_TENANTS) as session:
                due = objects.look_at_due(session, limit=tally.room)
                tally.found(_of_deleted(due), count=objects.count_due(session))
            return tally.report()
        while True:
            with self._database.transaction(ACROSS_TENANTS) as session:
                due = objects.lock_deleted(session, limit=_BATCH)
                tally.found(_of_deleted(due))
                for deleted in due:
                    error = self._remove(deleted.s3_bucket, deleted.s3_keys, deleted.s3_prefixes)
                    if error is None:
                        objects.forget_deleted(session, deleted)
                    else:
                        objects.postpone_deleted(session, deleted, error=str(error))
                    tally.ended(1, error)
            tally.tell()
            if len(due) < _BATCH:
                return tally.report()

    def remove_uploads(
        self, *, older_than: timedelta | None = None, dry_run: bool = False, progress: Progress | None = None
    ) -> MaintenanceReport:
        """Remove what is left of uploads by clients (`library.media.begin_upload`) whose time is over.

        Args:
            older_than: Instead of `Settings.staging_grace`: so long after it has expired an upload is kept, for what
                was on its way by then.
            dry_run: Whether it only looks.
            progress: As for `sweep_staged`.

        Returns:
            Completed and aborted ones are counted, too: their records are kept until then.

        Raises:
            InvalidError: `older_than` is negative.
        """
        grace = self._grace(older_than, argument="older_than")
        tally = Tally(progress, is_dry_run=dry_run)
        if dry_run:
            with self._database.transaction(ACROSS_TENANTS) as session:
                old = uploads.look_at_abandoned(session, older_than=grace, limit=tally.room)
                tally.found(_of_uploads(old), count=uploads.count_abandoned(session, older_than=grace))
            return tally.report()
        while True:
            with self._database.transaction(ACROSS_TENANTS) as session:
                old = uploads.lock_abandoned(session, older_than=grace, limit=_BATCH)
                tally.found(_of_uploads(old))
                for upload in old:
                    error = self._remove(upload.s3_bucket, [], [upload_prefix(upload.id)])
                    if error is None:
                        uploads.forget(session, upload)
                    else:
                        uploads.postpone(session, upload, older_than=grace)
                    tally.ended(1, error)
            tally.tell()
            if len(old) < _BATCH:
                return tally.report()

    def verify(
        self,
        *,
        tenant: Tenant | UUID | None = None,
        hash_fraction: float = 1.0,
        repair: Iterable[Repair | str] = (),
        after: str | None = None,
        limit: int | None = None,
        concurrency: int = 4,
        progress: Callable[[VerifyReport], object] | None = None,
        cancel: Event | None = None,
    ) -> VerifyReport:
        """Hold rows against bytes, and bytes against rows.

        Of each item it is looked whether its bytes are there and as many as they should be, and of a part of the items,
        or all, whether they have the sha256 that was stored. Of each object in the tenants' buckets it is looked
        whether it is on any record. It works while the library is in use, in bounded memory.

        Args:
            tenant: Only this tenant; by default all that are not deleted, one after the other.
            hash_fraction: Of how many items all bytes are read, 0 to 1. Which, is drawn anew for each run.
            repair: What is done about what is found: `Repair`. By default nothing.
            after: `VerifyReport.next` of an earlier report, also of one that `progress` was given: it goes on there,
                with the same `tenant` and `hash_fraction`.
            limit: How many items and objects are looked at, at most; by default all.
            concurrency: How many items are looked at at once, 1 to 64.
            progress: Is called with how far it is, after each batch. What it raises ends the work.
            cancel: Once it is set no further batch is begun.

        Returns:
            What was found. Where the object store cannot be reached, it has the error, and where to go on.

        Raises:
            InvalidError: An argument is not allowed.
        """
        from mindia.services.verification import Verification

        return Verification(
            self._database,
            self._storage,
            self,
            tenant=tenant,
            hash_fraction=hash_fraction,
            repair=repair,
            after=after,
            limit=limit,
            concurrency=concurrency,
            progress=progress,
            cancel=cancel,
        ).run()

    def copy_objects(
        self,
        old: Storage,
        new: Storage,
        *,
        tenant: Tenant | UUID | None = None,
        after: str | None = None,
        limit: int | None = None,
        concurrency: int = 4,
        dry_run: bool = False,
        progress: Callable[[CopyReport], object] | None = None,
        cancel: Event | None = None,
    ) -> CopyReport:
        """Copy the objects of a store to another one, while the library is in use: see `MovingStorage`.

        Each is read again from the new store, and its hash compared with that of the item. What the new store has
        already is left as it is there; what is deleted meanwhile is deleted from both.

        Args:
            old: Where the objects are.
            new: Where they are to be.
            tenant: Only this tenant; by default all that are not deleted, one after the other.
            after: `CopyReport.next` of an earlier report, also of one that `progress` was given: it goes on there.
            limit: How many objects are looked at, at most; by default all.
            concurrency: How many are copied at once, 1 to 64.
            dry_run: Whether it only looks.
            progress: Is called with how far it is, after each batch. What it raises ends the work.
            cancel: Once it is set no further batch is begun.

        Returns:
            What was copied. Where a store cannot be reached, it has the error, and where to go on.

        Raises:
            InvalidError: An argument is not allowed.
            NotFoundError: There is no such tenant.
        """
        from mindia.services.copying import Copying

        return Copying(
            self._database,
            old,
            new,
            tenant=tenant,
            after=after,
            limit=limit,
            concurrency=concurrency,
            dry_run=dry_run,
            progress=progress,
            cancel=cancel,
        ).run()

    def remove_login_failures(self) -> int:
        """Forget failed log-ins that are held against nobody any more, and return how many addresses had some."""
        return OwnTransaction(self._database, ACROSS_TENANTS).run(login_failures.remove_expired, single=True)

    def remove_old_deliveries(self) -> int:
        """Delete what was delivered to webhooks, or given up on, before `Settings.webhook_retention`.

        Its attempts go with it, and so does what has waited as long for endpoints that are not active.

        Returns:
            How many deliveries that were.
        """
        from mindia.repositories import webhook_log

        unit = OwnTransaction(self._database, ACROSS_TENANTS)
        unit.run(webhook_log.prune_leases)
        return unit.exhaust(
            lambda session: webhook_log.prune(session, older_than=self._settings.webhook_retention, limit=_DELIVERIES),
            batch=_DELIVERIES,
        )

    def remove_old_requests(self) -> int:
        """Delete requests from the log that are older than `Settings.request_log_retention`, and return how many."""
        from mindia.repositories import request_log

        return OwnTransaction(self._database, ACROSS_TENANTS).exhaust(
            lambda session: request_log.prune(
                session, older_than=self._settings.request_log_retention, limit=_REQUESTS
            ),
            batch=_REQUESTS,
        )

    def renew_webhook_secrets(self) -> int:
        """Encrypt with `Settings.secret_key` what is encrypted with one of `Settings.previous_secret_keys`.

        Returns:
            How many endpoints had such secrets; 0 means that the previous keys are not needed for webhooks any more.
        """
        from mindia.delivery.secrets import SecretBox
        from mindia.repositories import webhooks

        self._database.facts().role.check_across_tenants()  # also where there is nothing to do
        box = SecretBox(self._settings)
        if not self._settings.previous_secret_keys or (prefix := box.prefix) is None:
            return 0
        unit = OwnTransaction(self._database, ACROSS_TENANTS)
        renewed, after = 0, None
        while True:
            page = unit.run(
                lambda session, after=after: webhooks.sealed_otherwise(  # type: ignore[misc]  # mypy cannot type the default
                    session, prefix=prefix, after=after, limit=_BATCH
                ),
                single=True,
            )
            for old in page:
                renewed += self._renew(unit, box, old)
            if len(page) < _BATCH:
                return renewed
            after = page[-1].webhook_id

    def _renew(self, unit: OwnTransaction, box: SecretBox, old: Sealed) -> bool:
        from mindia.repositories import webhooks

        names = {"tenant_id": old.tenant_id, "webhook_id": old.webhook_id}
        try:
            sealed, previous = (
                None if each is None else box.seal(box.open(each, **names), **names)
                for each in (old.sealed, old.previous)
            )
        except InvalidError as error:
            _log.warning("a signing secret is left as it is: %s", error)
            return False
        assert sealed is not None, "each endpoint has one"
        return unit.run(lambda session: webhooks.reseal(session, old, sealed=sealed, previous=previous), single=True)

    def remove_retired_spaces(self, *, older_than: timedelta = _NOT_SEARCHED) -> int:
        """Remove the vectors that `library.index.reindex()` has replaced, and return how many those were.

        Args:
            older_than: Those that were replaced later are left: a search may be at work on them.

        Raises:
            InvalidError: It is negative.
        """
        from mindia.repositories import spaces

        if older_than < timedelta():
            raise InvalidError(f"older_than must not be negative: {older_than!r}")
        unit = OwnTransaction(self._database, ACROSS_TENANTS)
        retired = unit.run(lambda session: spaces.retired(session, older_than=older_than, limit=_BATCH), single=True)
        return sum(unit.exhaust(partial(_prune_space, key=key), batch=_VECTORS) for key in retired)

    def remove_deleted_tenants(
        self,
        *,
        staged_older_than: timedelta | None = None,
        max_batches: int | None = None,
        progress: Callable[[TenantDeletionProgress], object] | None = None,
    ) -> tuple[TenantDeletionReport, ...]:
        """Remove all that tenants have that are deleted, and then the tenants themselves.

        It works in small transactions: cut short by whatever, the next call goes on. What another process is still
        uploading is waited for by leaving the tenant as it is, for a later call: the report says until when. Where the
        object store fails, the report has its error, and the next call tries again.

        Args:
            staged_older_than: Instead of `Settings.staging_grace`: younger uploads are left. Below it, one that another
                process has under way may leave bytes behind, if that process is killed.
            max_batches: After so many batches of rows or objects it ends; and what another call is at work on is left
                to that one. Without it there is no end before all is done, and others are waited for.
            progress: Is called after each batch with what has been removed of its tenant so far. What it raises ends
                the work.

        Returns:
            For each tenant that is deleted and was not removed before, what was removed and what is left.

        Raises:
            InvalidError: `staged_older_than` is negative, or `max_batches` is less than 1.
        """
        from mindia.services.tenant_deletion import remove_all

        return remove_all(
            self._database,
            self._storage,
            staged_older_than=self._grace(staged_older_than, argument="staged_older_than"),
            max_batches=max_batches,
            progress=progress,
        )

    def index_vectors(self) -> IndexChanges:
        """Make the indexes that the vectors of large tenants are to have, and drop those that are not wanted any more.

        Searches and additions go on meanwhile, and what is found is right all the time. Minutes may pass. Where another
        process is at it, nothing is done.

        Raises:
            RoleError: The role at hand does not own the tables: see `owner` of `mindia.connect`.
        """
        return keep_indexes(self._database, self._index_strategy)

    def _grace(self, given: timedelta | None, *, argument: str) -> timedelta:
        grace = self._settings.staging_grace if given is None else given
        if grace < timedelta():
            raise InvalidError(f"{argument} must not be negative: {grace!r}")
        return grace

    def _remove(self, bucket: str, keys: Sequence[str], prefixes: Sequence[str] = ()) -> Exception | None:
        """Remove bytes and return why that failed, if it did: what fails must not be in the way of the rest."""
        try:
            self._storage.delete(bucket, keys)
            for prefix in prefixes:
                self._storage.delete_prefix(bucket, prefix)
        except StorageError as error:
            _log.warning("bytes in bucket %s could not be removed: %s", bucket, error)
            return error
        except Exception as error:  # noqa: BLE001 - logged and put on record with the removal
            _log.exception("bytes in bucket %s could not be removed", bucket)
            return error
        return None


def _of_staged(staged: Sequence[objects.StagedObject]) -> list[FoundObject]:
    return [_found(each, next(iter(_keys_of_staged([each]) + _prefixes_of_staged([each])))) for each in staged]


def _keys_of_staged(staged: Sequence[objects.StagedObject]) -> list[str]:
    return [original_key(each.id) for each in staged if each.source_id is None]


def _prefixes_of_staged(staged: Sequence[objects.StagedObject]) -> list[str]:
    return [derivative_prefix(each.source_id, each.id) for each in staged if each.source_id is not None]


def _of_deleted(deleted: Sequence[objects.DeletedObject]) -> list[FoundObject]:
    return [_found(each, next(iter(each.s3_keys + each.s3_prefixes), None)) for each in deleted]


def _of_uploads(old: Sequence[uploads.UploadRow]) -> list[FoundObject]:
    return [_found(each, upload_prefix(each.id)) for each in old]


def _of_items(tenant_id: UUID, media_ids: Sequence[UUID]) -> list[FoundObject]:
    return [FoundObject(tenant_id=tenant_id, id=media_id, s3_bucket=None, s3_key=None) for media_id in media_ids]


def _found(each: objects.StagedObject | objects.DeletedObject | uploads.UploadRow, key: str | None) -> FoundObject:
    return FoundObject(tenant_id=each.tenant_id, id=each.id, s3_bucket=each.s3_bucket, s3_key=key)


def _prune_space(session: Session, *, key: tuple[UUID, int]) -> int:
    from mindia.repositories import spaces

    return spaces.prune(session, *key, limit=_VECTORS)
