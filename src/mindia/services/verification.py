"""Rows against bytes, and bytes against rows: what `Maintenance.verify` does."""

from __future__ import annotations

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from mindia.db.database import Database
from mindia.db.session import ACROSS_TENANTS
from mindia.db.units import OwnTransaction
from mindia.domain.derivatives import Derivative
from mindia.domain.maintenance import Finding, Problem, ProblemCount, Repair, VerifyReport
from mindia.domain.tenants import Tenant, TenantStatus
from mindia.errors import InvalidError, NotFoundError, ObjectNotFoundError, StorageError, StorageUnavailableError
from mindia.repositories import derivatives, media, tenants, verification
from mindia.repositories.verification import NamedKey, StoredItem
from mindia.services._allowance import Allowance
from mindia.services._keys import derivative_id_in, id_in
from mindia.services._named import named
from mindia.services.repairing import Repairs
from mindia.services.verify_places import BEGINNING, DerivativesPlace, ItemsPlace, ObjectsPlace, place_of, token_of
from mindia.storage.base import Storage

if TYPE_CHECKING:
    from mindia.services.maintenance import Maintenance

_BATCH = 500
_CHUNK = 1 << 20
_MAX_FINDINGS = 1000

_log = logging.getLogger("mindia.maintenance")


@attrs.frozen
class _Looked:
    """What was seen of the bytes of an item."""

    problem: Problem | None
    detail: str
    hashed: int | None


class Verification:
    """One run, from a place to the end or to its limit. See `Maintenance.verify` for the arguments."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        maintenance: Maintenance,
        *,
        tenant: Tenant | UUID | None,
        hash_fraction: float,
        repair: Iterable[Repair | str],
        after: str | None,
        limit: int | None,
        concurrency: int,
        progress: Callable[[VerifyReport], object] | None,
        cancel: Event | None,
    ) -> None:
        if not isinstance(hash_fraction, int | float) or not 0 <= hash_fraction <= 1:
            raise InvalidError(f"hash_fraction must be 0 to 1, not {hash_fraction!r}")
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise InvalidError(f"limit must be at least 1, not {limit!r}")
        if not isinstance(concurrency, int) or not 1 <= concurrency <= 64:
            raise InvalidError(f"concurrency must be 1 to 64, not {concurrency!r}")
        if isinstance(repair, str):
            raise InvalidError(f"repair must be several of Repair, not a single text: [{repair!r}]")
        self._unit = OwnTransaction(database, ACROSS_TENANTS)
        self._storage = storage
        self._only = tenant.id if isinstance(tenant, Tenant) else tenant
        self._hash_fraction = hash_fraction
        self._repairs = Repairs(
            database, storage, maintenance, {named(each, Repair, argument="repair") for each in repair}
        )
        self._place = place_of(after) if after is not None else BEGINNING
        # As a part of the place: a run that goes on elsewhere goes on with the same draw.
        self._salt = self._place.salt if after is not None else random.getrandbits(64)
        self._allowance = Allowance(limit, cancel)
        self._concurrency = concurrency
        self._progress = progress
        self._counts: Counter[str] = Counter()
        self._found: Counter[Problem] = Counter()
        self._repaired: Counter[Problem] = Counter()
        self._findings: list[Finding] = []
        self._error: Exception | None = None
        self._is_done = False

    def run(self) -> VerifyReport:
        """Look at all, or as much as the limit allows."""
        try:
            with ThreadPoolExecutor(self._concurrency, thread_name_prefix="mindia-verify") as pool:
                for tenant in self._tenants():
                    if not self._verify(tenant, pool):
                        return self._report()
        except StorageUnavailableError as error:
            _log.warning("verify has stopped: %s", error)
            self._error = error
            return self._report()
        self._is_done = True
        return self._report()

    def _tenants(self) -> Iterator[Tenant]:
        """Yield the tenants from the place on."""
        begun = self._place.tenant_id
        if self._only is not None or begun is not None:
            first = self._only or begun
            assert first is not None
            tenant = self._unit.run(lambda session: tenants.get(session, first), single=True)
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

    def _verify(self, tenant: Tenant, pool: ThreadPoolExecutor) -> bool:
        """Look at a tenant from the place on; False where the limit was reached before its end."""
        if self._place.tenant_id != tenant.id:
            self._place = attrs.evolve(BEGINNING, salt=self._salt, tenant_id=tenant.id)
        if isinstance(self._place, ItemsPlace):
            if not self._verify_items(tenant, self._place, pool):
                return False
            self._place = DerivativesPlace(salt=self._salt, tenant_id=tenant.id)
        if isinstance(self._place, DerivativesPlace):
            if not self._verify_derivatives(tenant, self._place, pool):
                return False
            self._place = ObjectsPlace(salt=self._salt, tenant_id=tenant.id)
        assert isinstance(self._place, ObjectsPlace)
        return self._verify_objects(tenant, self._place)

    def _verify_items(self, tenant: Tenant, place: ItemsPlace, pool: ThreadPoolExecutor) -> bool:
        while (size := self._allowance.next(_BATCH)) > 0:
            read = partial(
                verification.stored_items, tenant_id=tenant.id, after=(place.uploaded_at, place.media_id), limit=size
            )
            items = self._unit.run(read, single=True)
            if not items:
                return True
            # One after the other is noted, in their order, whichever comes first.
            for item, looked in zip(items, pool.map(partial(self._look_at, tenant), items), strict=True):
                self._counts["items"] += 1
                if looked.hashed is not None:
                    self._counts["hashed"] += 1
                    self._counts["bytes"] += looked.hashed
                if looked.problem is not None:
                    self._note_item(tenant, item, looked.problem, looked.detail)
            last = items[-1]
            place = self._place = attrs.evolve(place, uploaded_at=last.uploaded_at, media_id=last.id)
            self._spend(len(items))
        return False

    def _look_at(self, tenant: Tenant, item: StoredItem) -> _Looked:
        wants_hash = self._is_drawn(item.id)
        hashed: int | None = None
        try:
            if wants_hash:
                read = hash_of(self._storage, tenant.s3_bucket, item.s3_key)
                size, sha256, hashed = read.size, read.sha256, read.size
            else:
                size, sha256 = self._storage.size(tenant.s3_bucket, item.s3_key), item.sha256
        except ObjectNotFoundError:
            return _Looked(Problem.MISSING, f"{item.filename!r} has no bytes", None)
        except StorageUnavailableError:
            raise
        except (StorageError, OSError) as error:
            return _Looked(Problem.UNREADABLE, f"{item.filename!r} cannot be read: {error}", None)
        if size != item.file_size:
            detail = f"{item.filename!r} has {size} bytes in the store, and {item.file_size} on record"
            return _Looked(Problem.WRONG_SIZE, detail, hashed)
        if sha256 != item.sha256:
            detail = f"{item.filename!r} has the hash {sha256} in the store, and {item.sha256} on record"
            return _Looked(Problem.WRONG_HASH, detail, hashed)
        return _Looked(None, "", hashed)

    def _is_drawn(self, media_id: UUID) -> bool:
        if self._hash_fraction in (0, 1):
            return self._hash_fraction == 1
        drawn = hashlib.blake2b(media_id.bytes, key=self._salt.to_bytes(8, "big"), digest_size=8).digest()
        return int.from_bytes(drawn, "big") < self._hash_fraction * 2**64

    def _note_item(self, tenant: Tenant, item: StoredItem, problem: Problem, detail: str) -> None:
        is_there = partial(media.is_stored, tenant_id=tenant.id, kind=item.kind, media_id=item.id)
        if not self._unit.run(is_there, single=True):
            return  # it was deleted meanwhile
        self._note(
            Finding(
                problem=problem,
                tenant_id=tenant.id,
                media_id=item.id,
                s3_bucket=tenant.s3_bucket,
                s3_key=item.s3_key,
                detail=detail,
                repair=self._repairs.of_item(tenant, item, problem),
            )
        )

    def _verify_derivatives(self, tenant: Tenant, place: DerivativesPlace, pool: ThreadPoolExecutor) -> bool:
        while (size := self._allowance.next(_BATCH)) > 0:
            read = partial(derivatives.page, tenant_id=tenant.id, after=place.derivative_id, limit=size)
            page = self._unit.run(read, single=True)
            if not page:
                return True
            for derivative, looked in zip(page, pool.map(partial(self._look_at_derivative, tenant), page), strict=True):
                self._counts["derivatives"] += 1
                if looked.problem is not None:
                    self._note_derivative(tenant, derivative, looked.problem, looked.detail)
            place = self._place = attrs.evolve(place, derivative_id=page[-1].id)
            self._spend(len(page))
        return False

    def _look_at_derivative(self, tenant: Tenant, derivative: Derivative) -> _Looked:
        name = f"{derivative.s3_key} ({derivative.operations})"
        bucket, count = tenant.s3_bucket, 1
        try:
            size = self._storage.size(bucket, derivative.s3_key)
            if derivative.s3_prefix is not None:
                sizes = [each.size for each in self._storage.list(bucket, prefix=derivative.s3_prefix)]
                size, count = sum(sizes), len(sizes)
            if derivative.sha256 is not None and self._is_drawn(derivative.id):
                read = hash_of(self._storage, bucket, derivative.s3_key)
                if read.sha256 != derivative.sha256:
                    return _Looked(Problem.WRONG_HASH, f"{name} has the hash {read.sha256}", None)
        except ObjectNotFoundError:
            return _Looked(Problem.MISSING, f"{name} has no bytes", None)
        except StorageUnavailableError:
            raise
        except (StorageError, OSError) as error:
            return _Looked(Problem.UNREADABLE, f"{name} cannot be read: {error}", None)
        if (size, count) != (derivative.file_size, derivative.file_count):
            detail = (
                f"{name} has {size} bytes in {count} objects, and {derivative.file_size} in {derivative.file_count} "
                "on record"
            )
            return _Looked(Problem.WRONG_SIZE, detail, None)
        return _Looked(None, "", None)

    def _note_derivative(self, tenant: Tenant, derivative: Derivative, problem: Problem, detail: str) -> None:
        is_there = partial(derivatives.is_there, tenant_id=tenant.id, derivative_id=derivative.id)
        if not self._unit.run(is_there, single=True):
            return  # it was removed meanwhile
        self._note(
            Finding(
                problem=problem,
                tenant_id=tenant.id,
                media_id=None,
                s3_bucket=tenant.s3_bucket,
                s3_key=derivative.s3_key,
                detail=detail,
                repair=self._repairs.of_derivative(tenant, derivative, problem),
            )
        )

    def _verify_objects(self, tenant: Tenant, place: ObjectsPlace) -> bool:
        listing = self._storage.list(tenant.s3_bucket, after=place.key)
        while (size := self._allowance.next(_BATCH)) > 0:
            batch = list(islice(listing, size))
            if not batch:
                return True
            ours = [
                NamedKey(each.key, found, derivative_id_in(each.key))
                for each in batch
                if (found := id_in(each.key)) is not None
            ]
            self._counts["objects"] += len(ours)
            self._counts["foreign"] += len(batch) - len(ours)
            recorded = self._unit.run(partial(verification.recorded, tenant_id=tenant.id, keys=ours), single=True)
            self._note_orphans(tenant, [each for each in ours if each.key not in recorded])
            place = self._place = attrs.evolve(place, key=batch[-1].key)
            self._spend(len(batch))
        return False

    def _note_orphans(self, tenant: Tenant, suspects: Sequence[NamedKey]) -> None:
        # What was on record when it was listed has gone from the store before it went off the record.
        orphans = [each for each in suspects if self._storage.exists(tenant.s3_bucket, each.key)]
        repair = self._repairs.of_orphans(tenant, orphans) if orphans else None
        for orphan in orphans:
            self._note(
                Finding(
                    problem=Problem.ORPHAN,
                    tenant_id=tenant.id,
                    media_id=None,
                    s3_bucket=tenant.s3_bucket,
                    s3_key=orphan.key,
                    detail=f"{orphan.key} is on no record",
                    repair=repair,
                )
            )

    def _note(self, finding: Finding) -> None:
        self._found[finding.problem] += 1
        self._repaired[finding.problem] += finding.repair is not None
        if len(self._findings) < _MAX_FINDINGS:
            self._findings.append(finding)
        _log.warning("tenant %s: %s (%s)", finding.tenant_id, finding.detail, finding.problem)

    def _spend(self, number: int) -> None:
        self._allowance.spend(number)
        if self._progress is not None:
            self._progress(self._report())

    def _report(self) -> VerifyReport:
        return VerifyReport(
            items_checked=self._counts["items"],
            items_hashed=self._counts["hashed"],
            bytes_hashed=self._counts["bytes"],
            derivatives_checked=self._counts["derivatives"],
            objects_checked=self._counts["objects"],
            objects_foreign=self._counts["foreign"],
            counts=tuple(
                ProblemCount(problem=problem, found=count, repaired=self._repaired[problem])
                for problem, count in sorted(self._found.items())
            ),
            findings=tuple(self._findings),
            next=None if self._is_done else token_of(attrs.evolve(self._place, salt=self._salt)),
            error=self._error,
        )


@attrs.frozen
class Hashed:
    """How many bytes an object has, and their hash."""

    size: int
    sha256: str


def hash_of(storage: Storage, bucket: str, key: str) -> Hashed:
    """Return the size and the sha256 of an object, read from its beginning to its end."""
    digest = hashlib.sha256()
    size = 0
    with storage.open(bucket, key) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Hashed(size, digest.hexdigest())
