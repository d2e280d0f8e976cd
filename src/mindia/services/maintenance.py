"""Removes bytes that nothing points at, and tenants that are deleted: `app.maintenance`. Workers run it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from mindia._handles import Handle
from mindia._ids import uuid7
from mindia.config import Settings
from mindia.db.database import Database
from mindia.db.session import ACROSS_TENANTS, OwnTransaction, Scope, Session
from mindia.errors import InvalidError, StorageError, TenantInactiveError
from mindia.repositories import login_failures, objects
from mindia.services._keys import original_key
from mindia.storage.base import Storage

if TYPE_CHECKING:
    from mindia.delivery.secrets import SecretBox
    from mindia.domain.tenant_deletion import TenantDeletionProgress, TenantDeletionReport
    from mindia.repositories.webhooks import Sealed

_BATCH = 100
_DELIVERIES = 1000
_MAX_EXPIRED = 10_000
"""At one go; the next one takes the rest."""

_log = logging.getLogger("mindia.maintenance")


class Maintenance(Handle):
    """Work that keeps the object store and the database of one mind. Thread-safe; two at once share the work."""

    def __init__(self, database: Database, storage: Storage, settings: Settings) -> None:
        self._database = database
        self._storage = storage
        self._settings = settings

    def sweep_staged(self, *, older_than: timedelta | None = None) -> int:
        """Remove the bytes of staged objects that no item was made of, and return how many objects that were.

        An object that an open transaction is adding is left alone, however old it is. Where the object store fails, the
        removal is put on record and `remove_deleted` tries it again later.

        Args:
            older_than: Instead of `Settings.staging_grace`. Below it, what other processes stage at the moment is
                swept, too; they get a `StagedObjectExpiredError`.

        Raises:
            InvalidError: `older_than` is negative.
        """
        grace = self._grace(older_than, argument="older_than")
        swept = 0
        while True:
            with self._database.transaction(ACROSS_TENANTS) as session:
                staged = objects.take_staged(session, older_than=grace, limit=_BATCH)
                by_bucket = defaultdict(list)
                for taken in staged:
                    by_bucket[taken.s3_bucket].append(taken)
                for bucket, stale in by_bucket.items():
                    error = self._remove(bucket, [original_key(taken.id) for taken in stale])
                    for taken in stale if error is not None else ():
                        objects.put_off_staged(session, taken, s3_key=original_key(taken.id), error=str(error))
                    swept += 0 if error is not None else len(stale)
            if len(staged) < _BATCH:
                return swept

    def remove_expired(self) -> int:
        """Delete the items that have expired, and return how many that were. They were not found before either.

        Those of a tenant that is suspended stay until it is reactivated.
        """
        from mindia.repositories import media_change  # costs more than the rest of this module

        removed = 0
        with self._database.transaction(ACROSS_TENANTS) as session:
            tenants = media_change.expired(session, limit=_MAX_EXPIRED)
        for tenant in tenants:
            for start in range(0, len(tenant.media_ids), _BATCH):
                removed += self._remove_expired(tenant.tenant_id, tenant.media_ids[start : start + _BATCH])
        return removed

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

    def remove_deleted(self) -> int:
        """Remove the bytes of deleted items, and return how many items that were.

        Where the object store fails, the removal stays on record and is tried again later.
        """
        removed = 0
        while True:
            with self._database.transaction(ACROSS_TENANTS) as session:
                due = objects.lock_deleted(session, limit=_BATCH)
                for deleted in due:
                    error = self._remove(deleted.s3_bucket, deleted.s3_keys, deleted.s3_prefixes)
                    if error is None:
                        objects.forget_deleted(session, deleted)
                        removed += 1
                    else:
                        objects.postpone_deleted(session, deleted, error=str(error))
            if len(due) < _BATCH:
                return removed

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
        removed = 0
        while True:
            gone = unit.run(
                lambda session: webhook_log.prune(
                    session, older_than=self._settings.webhook_retention, limit=_DELIVERIES
                )
            )
            removed += gone
            if gone < _DELIVERIES:
                return removed

    def renew_webhook_secrets(self) -> int:
        """Encrypt with `Settings.secret_key` what is encrypted with one of `Settings.previous_secret_keys`.

        Returns:
            How many endpoints had such secrets; 0 means that the previous keys are not needed for webhooks any more.
        """
        from mindia.delivery.secrets import SecretBox
        from mindia.repositories import webhooks

        self._database.check_open()
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
