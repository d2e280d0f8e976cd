"""Removes all that a deleted tenant has left: what `Maintenance.remove_deleted_tenants` does."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TypeVar

import attrs

from mindia.db.database import Database
from mindia.db.session import ACROSS_TENANTS, Session
from mindia.db.units import OwnTransaction
from mindia.domain.tenant_deletion import RemovedRows, TenantDeletionProgress, TenantDeletionReport
from mindia.errors import ConflictError, InvalidError, StorageError
from mindia.repositories import tenant_deletion as repository
from mindia.repositories.tenant_deletion import TABLES, DeletedTenant, Turn
from mindia.storage.base import Storage, StoredObject

ROWS = 1000
OBJECTS = 100
"""To a transaction, which nobody else who removes the tenant comes in between of."""

_log = logging.getLogger("mindia.maintenance")

T = TypeVar("T")
Progress = Callable[[TenantDeletionProgress], object]


class _StoreFailed(Exception):  # noqa: N818 - never leaves this module
    """Carries an error of the object store, of whatever class, past what is around."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class _Budget:
    """How many batches may still remove something; None for all that it takes."""

    def __init__(self, batches: int | None) -> None:
        if batches is not None and batches < 1:
            raise InvalidError(f"max_batches must be at least 1, not {batches}")
        self._left = batches

    @property
    def is_used_up(self) -> bool:
        return self._left == 0

    def spend(self) -> None:
        if self._left is not None:
            self._left -= 1


def remove_all(
    database: Database,
    storage: Storage,
    *,
    staged_older_than: timedelta,
    max_batches: int | None,
    progress: Progress | None,
) -> tuple[TenantDeletionReport, ...]:
    """Remove the tenants that are marked; see `Maintenance.remove_deleted_tenants`."""
    budget = _Budget(max_batches)
    unit = OwnTransaction(database, ACROSS_TENANTS)
    return tuple(
        _Removal(
            unit, storage, tenant, staged_older_than=staged_older_than, waits=max_batches is None, budget=budget,
            progress=progress,
        ).run()
        for tenant in unit.run(repository.marked, single=True)
    )  # fmt: skip


class _Removal:
    """Removes one tenant, batch by batch: rows, then objects, then the bucket and the tenant itself.

    The tenant's row is locked by each batch, so that two that remove the same tenant take turns, and goes last: until
    then it is the record of what is to be done, and keeps the bucket's name from others.

    Args:
        unit: Where statements run: each batch in a transaction of its own.
        storage: Where the bytes are.
        tenant: The tenant.
        staged_older_than: Keys on record that are younger stay: bytes may still be put under them.
        waits: Whether it waits for another one that is at work on the tenant, or leaves the tenant to it.
        budget: How much may be done.
        progress: Is called after each batch.
    """

    def __init__(
        self,
        unit: OwnTransaction,
        storage: Storage,
        tenant: DeletedTenant,
        *,
        staged_older_than: timedelta,
        waits: bool,
        budget: _Budget,
        progress: Progress | None,
    ) -> None:
        self._unit = unit
        self._storage = storage
        self._tenant = tenant
        self._staged_older_than = staged_older_than
        self._waits = waits
        self._budget = budget
        self._progress = progress
        self._rows: Counter[str] = Counter()
        self._objects = self._bytes = 0
        self._is_gone = False

    def run(self) -> TenantDeletionReport:
        error: Exception | None = None
        try:
            if self._remove_rows() and self._empty_bucket():
                self._finish()
        except _StoreFailed as failed:
            error = failed.error
            _log.warning(
                "the bucket %s of a deleted tenant cannot be removed yet: %s",
                self._tenant.s3_bucket,
                error,
                exc_info=None if isinstance(error, StorageError) else error,
            )
        report = self._unit.run(partial(self._report, error=error))
        if report.is_complete:
            _log.info("tenant %s is removed", self._tenant.id)
        return report

    def _remove_rows(self) -> bool:
        """Empty the tables, as far as no open transaction holds their rows; False where that was not all."""
        tables: Sequence[str] = TABLES
        while tables and not self._budget.is_used_up:
            try:
                removed = self._in_turn(partial(self._remove_batch, tables))
            except ConflictError:
                return False  # somebody has just added what refers to a row: the next call takes that first
            if removed is None:
                return False
            count = sum(removed.values())
            tables = tables[len(removed) - 1 :] if count == ROWS else ()
            if count:
                self._rows += Counter(removed)
                self._batch_is_done()
        return not tables

    def _remove_batch(self, tables: Sequence[str], session: Session) -> dict[str, int]:
        """Remove rows from one table after the other, and return how many from each that had its turn."""
        removed: dict[str, int] = {}
        for table in tables:
            removed[table] = repository.remove_rows(
                session,
                self._tenant.id,
                table,
                limit=ROWS - sum(removed.values()),
                staged_older_than=self._staged_older_than,
            )
            if sum(removed.values()) == ROWS:
                break
        return removed

    def _empty_bucket(self) -> bool:
        """Remove the objects that there are; False where that was not all."""
        listing = self._in_store(lambda: self._storage.list(self._tenant.s3_bucket))
        found: list[StoredObject] = []
        while not self._budget.is_used_up:
            if self._in_turn(partial(self._remove_objects, listing, found)) is None:
                return False
            if not found:
                return True
            self._objects += len(found)
            self._bytes += sum(each.size for each in found)
            found.clear()
            self._batch_is_done()
        return False

    def _remove_objects(self, listing: Iterator[StoredObject], found: list[StoredObject], session: Session) -> bool:
        """Remove the next objects of a listing, which are put into `found`."""
        self._in_store(lambda: found.extend(islice(listing, OBJECTS - len(found))))
        # Fails where the connection was lost meanwhile: another one may have come to the end of the tenant, and a new
        # tenant have taken the bucket's name, whose objects these would be.
        repository.take_turn(session, self._tenant.id, wait=True)
        self._in_store(lambda: self._storage.delete(self._tenant.s3_bucket, [each.key for each in found]))
        return True

    def _finish(self) -> None:
        """Remove the bucket and the tenant, if nothing else is left and nothing can come."""

        def work(session: Session) -> bool:
            tenant_id = self._tenant.id
            if not repository.keep_all_out(session, tenant_id) or repository.tables_left(session, tenant_id):
                return False
            self._in_store(lambda: self._storage.delete_bucket(self._tenant.s3_bucket))
            repository.forget(session, tenant_id)
            return True

        if self._in_turn(work):
            self._rows["tenants"] += 1
            self._is_gone = True

    def _in_turn(self, work: Callable[[Session], T]) -> T | None:
        """Run work on the tenant; None where another one is at it, or has come to its end."""

        def locked(session: Session) -> T | None:
            turn = repository.take_turn(session, self._tenant.id, wait=self._waits)
            self._is_gone = turn is Turn.GONE
            return work(session) if turn is Turn.OURS else None

        return self._unit.run(locked)

    def _in_store(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            raise _StoreFailed(error) from error

    def _batch_is_done(self) -> None:
        self._budget.spend()
        if self._progress is not None:
            self._progress(self._so_far())

    def _so_far(self) -> TenantDeletionProgress:
        return TenantDeletionProgress(
            tenant_id=self._tenant.id,
            rows=tuple(RemovedRows(table, count) for table, count in self._rows.items()),
            objects_removed=self._objects,
            bytes_removed=self._bytes,
        )

    def _report(self, session: Session, *, error: Exception | None) -> TenantDeletionReport:
        tenant_id = self._tenant.id
        uploads = repository.uploads_left(session, tenant_id, staged_older_than=self._staged_older_than)
        return TenantDeletionReport(
            **attrs.asdict(self._so_far(), recurse=False),
            is_complete=self._is_gone,
            tables_left=tuple(repository.tables_left(session, tenant_id)),
            uploads_left=uploads.count,
            waits_until=uploads.until,
            indexes_left=tuple(repository.indexes(session, tenant_id)),
            error=error,
        )
