"""Copies the objects of a store to another one, while both are in use: what `Maintenance.copy_objects` does."""

from __future__ import annotations

import json
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from functools import partial
from itertools import islice
from threading import Event
from typing import BinaryIO, cast
from uuid import UUID

import attrs

from mindia.db.database import Database
from mindia.db.session import ACROSS_TENANTS
from mindia.db.units import OwnTransaction
from mindia.domain.maintenance import CopyProblem, CopyReport
from mindia.domain.tenants import Tenant, TenantStatus
from mindia.errors import InvalidError, NotFoundError, ObjectNotFoundError, StorageError, StorageUnavailableError
from mindia.repositories import tenants, verification
from mindia.repositories.verification import ItemBytes
from mindia.services._allowance import Allowance
from mindia.services._hashing import Hashing
from mindia.services._keys import derivative_id_in, id_in, type_of_derived
from mindia.services._named import shown
from mindia.services.verification import hash_of
from mindia.storage.base import Storage, StoredObject

_BATCH = 100
_MAX_PROBLEMS = 1000

_log = logging.getLogger("mindia.maintenance")


class _Outcome(Enum):
    COPIED = auto()
    THERE = auto()
    GONE = auto()


@attrs.frozen
class _Place:
    """Behind an object of a tenant."""

    tenant_id: UUID | None = None
    key: str = ""


class _Damaged(Exception):  # noqa: N818 - never leaves this module
    pass


class Copying:
    """One run, from a place to the end or to its limit. See `Maintenance.copy_objects` for the arguments."""

    def __init__(
        self,
        database: Database,
        old: Storage,
        new: Storage,
        *,
        tenant: Tenant | UUID | None,
        after: str | None,
        limit: int | None,
        concurrency: int,
        dry_run: bool,
        progress: Callable[[CopyReport], object] | None,
        cancel: Event | None,
    ) -> None:
        for name, storage in (("old", old), ("new", new)):
            if not isinstance(storage, Storage):
                raise InvalidError(f"{name} must be a mindia Storage, not {type(storage).__name__}")
        if old is new:
            raise InvalidError("old and new are the same store")
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise InvalidError(f"limit must be at least 1, not {limit!r}")
        if not isinstance(concurrency, int) or not 1 <= concurrency <= 64:
            raise InvalidError(f"concurrency must be 1 to 64, not {concurrency!r}")
        self._unit = OwnTransaction(database, ACROSS_TENANTS)
        self._old, self._new = old, new
        self._only = tenant.id if isinstance(tenant, Tenant) else tenant
        self._place = _Place() if after is None else _place_of(after)
        self._allowance = Allowance(limit, cancel)
        self._concurrency = concurrency
        self._is_dry_run = dry_run
        self._progress = progress
        self._copied = self._bytes = self._there = self._failed = 0
        self._problems: list[CopyProblem] = []
        self._error: Exception | None = None
        self._is_done = False

    def run(self) -> CopyReport:
        """Copy all, or as much as the limit allows."""
        try:
            with ThreadPoolExecutor(self._concurrency, thread_name_prefix="mindia-copy") as pool:
                for tenant in self._tenants():
                    if self._place.tenant_id != tenant.id:
                        self._place = _Place(tenant.id)
                    if not self._copy_tenant(tenant, pool):
                        return self._report()
        except StorageUnavailableError as error:
            _log.warning("copying has stopped: %s", error)
            self._error = error
            return self._report()
        self._is_done = True
        return self._report()

    def _tenants(self) -> Iterator[Tenant]:
        begun = self._place.tenant_id
        first = self._only or begun
        if first is not None:
            tenant = self._unit.run(partial(tenants.get, tenant_id=first), single=True)
            if tenant is not None and tenant.status is not TenantStatus.DELETED:
                yield tenant
            elif self._only is not None:
                raise NotFoundError(f"there is no tenant {first}")
            if self._only is not None:
                return
        after = begun
        while page := self._unit.run(partial(tenants.page, after=after, limit=100), single=True):
            yield from page
            after = page[-1].id

    def _copy_tenant(self, tenant: Tenant, pool: ThreadPoolExecutor) -> bool:
        listing = self._old.list(tenant.s3_bucket, after=self._place.key)
        while (size := self._allowance.next(_BATCH)) > 0:
            batch = list(islice(listing, size))
            if not batch:
                self._settle(tenant)
                return True
            ids = {id_in(each.key) for each in batch}
            read = partial(
                verification.bytes_on_record,
                tenant_id=tenant.id,
                media_ids=list(filter(None, ids)),
                derivative_ids=list(filter(None, {derivative_id_in(each.key) for each in batch})),
            )
            known = {each.s3_key: each for each in self._unit.run(read, single=True)}
            outcomes = [pool.submit(self._copy, tenant, found, known.get(found.key)) for found in batch]
            for found, outcome in zip(batch, outcomes, strict=True):
                self._note(tenant, found, outcome.result)
            self._place = _Place(tenant.id, batch[-1].key)
            self._spend(len(batch))
        return False

    def _note(self, tenant: Tenant, found: StoredObject, result: Callable[[], _Outcome]) -> None:
        try:
            outcome = result()
        except StorageUnavailableError:
            raise
        except (StorageError, OSError, _Damaged) as error:
            _log.warning("%s/%s was not copied: %s", tenant.s3_bucket, found.key, error)
            self._failed += 1
            if len(self._problems) < _MAX_PROBLEMS:
                self._problems.append(
                    CopyProblem(tenant_id=tenant.id, s3_bucket=tenant.s3_bucket, s3_key=found.key, detail=str(error))
                )
            return
        if outcome is _Outcome.COPIED:
            self._copied += 1
            self._bytes += found.size
        self._there += outcome is _Outcome.THERE

    def _copy(self, tenant: Tenant, found: StoredObject, item: ItemBytes | None) -> _Outcome:
        """Copy an object and read it again, unless it is there, or has been deleted meanwhile."""
        bucket, key = tenant.s3_bucket, found.key
        if self._new.exists(bucket, key):
            return _Outcome.THERE
        if self._is_dry_run:
            return _Outcome.COPIED
        try:
            with self._old.open(bucket, key) as file:
                source = Hashing(file)
                self._new.put(
                    bucket,
                    key,
                    cast("BinaryIO", source),
                    content_type=type_of_derived(key) if item is None else item.content_type,
                )
            # Who deletes takes it from the old store first.
            is_wanted = self._old.exists(bucket, key)
        except ObjectNotFoundError:
            is_wanted = False
        if not is_wanted:
            self._new.delete(bucket, [key])
            return _Outcome.GONE
        if item is not None and item.sha256 is not None and source.hexdigest() != item.sha256:
            self._new.delete(bucket, [key])
            raise _Damaged(f"it has the hash {source.hexdigest()}, and {item.sha256} on record")
        try:
            written = hash_of(self._new, bucket, key)
        except ObjectNotFoundError:
            if not self._old.exists(bucket, key):
                return _Outcome.GONE
            raise
        if written.sha256 != source.hexdigest():
            self._new.delete(bucket, [key])
            raise _Damaged(f"the new store has the hash {written.sha256}, and {source.hexdigest()} was put there")
        return _Outcome.COPIED

    def _settle(self, tenant: Tenant) -> None:
        """Let the tenant's region be that of the new store, where it was that of the old one."""
        if not self._is_dry_run and tenant.s3_region == self._old.region != self._new.region:
            self._unit.run(
                partial(tenants.set_region, tenant_id=tenant.id, old=self._old.region, new=self._new.region),
                single=True,
            )

    def _spend(self, number: int) -> None:
        self._allowance.spend(number)
        if self._progress is not None:
            self._progress(self._report())

    def _report(self) -> CopyReport:
        return CopyReport(
            copied=self._copied,
            bytes_copied=self._bytes,
            already_there=self._there,
            failed=self._failed,
            problems=tuple(self._problems),
            is_dry_run=self._is_dry_run,
            next=None if self._is_done else _token_of(self._place),
            error=self._error,
        )


def _token_of(place: _Place) -> str:
    tenant = None if place.tenant_id is None else str(place.tenant_id)
    return urlsafe_b64encode(json.dumps([tenant, place.key]).encode()).decode().rstrip("=")


def _place_of(token: str) -> _Place:
    try:
        tenant, key = json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if isinstance(key, str):
            return _Place(None if tenant is None else UUID(tenant), key)
    except (ValueError, TypeError, AttributeError):
        pass
    raise InvalidError(f"after must be CopyReport.next of an earlier report, not {shown(token)}")
