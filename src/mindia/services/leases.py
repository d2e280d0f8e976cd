"""Keys for bytes that are about to be stored, put on record before anything is written under them."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import RawIOBase
from itertools import islice
from typing import BinaryIO
from uuid import UUID

import attrs

from mindia._ids import uuid7, uuid7s
from mindia.config import Settings
from mindia.db.database import Database
from mindia.db.session import Scope, Session
from mindia.db.units import OwnTransaction
from mindia.domain.media import MediaKind
from mindia.errors import StagedObjectExpiredError, TenantInactiveError
from mindia.repositories import media, objects
from mindia.services._keys import original_key
from mindia.storage.base import BatchStorage, NewObject, Storage

_MAX_BLOCK = 64
_MAX_TENANTS = 1024


@attrs.frozen(kw_only=True)
class Slot:
    """A place for bytes.

    Attributes:
        tenant_id: Whose they will be.
        key: Names the object, and the item that is made of it.
        s3_bucket: The tenant's bucket.
    """

    tenant_id: UUID
    key: UUID
    s3_bucket: str


class StagingLeases:
    """Leases keys in blocks, so that one commit serves many objects.

    The first block of a tenant has one key, each further one twice as many, up to 64. A key is not used when its lease
    has become old: the sweep might come before the bytes. Thread-safe; a forked child leases keys of its own.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._grace_s = settings.staging_grace.total_seconds()
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._blocks: OrderedDict[UUID, _Block] = OrderedDict()

    def take(self, tenant_id: UUID, *, s3_bucket: str) -> Slot:
        """Return a place whose key is on record and belongs to the caller alone.

        Raises:
            TenantInactiveError: The tenant is deleted.
        """
        if self._process != os.getpid():
            self._start_afresh()
        with self._lock:
            block = self._blocks.setdefault(tenant_id, _Block())
            self._blocks.move_to_end(tenant_id)
            while len(self._blocks) > _MAX_TENANTS:
                self._blocks.popitem(last=False)
        with block.lock:
            if not block.keys or block.deadline.passed:
                block.size = min(2 * block.size or 1, _MAX_BLOCK)
                # From before the commit on, so that our clock never runs behind the lease.
                deadline = _Deadline.after(self._grace_s / 3)
                keys = [*islice(uuid7s(), block.size)][::-1]  # taken from the end: the oldest first
                self._record(tenant_id, keys, s3_bucket=s3_bucket)
                block.keys, block.deadline = keys, deadline
            return Slot(tenant_id=tenant_id, key=block.keys.pop(), s3_bucket=s3_bucket)

    def lease(self, tenant_id: UUID, keys: Sequence[UUID], *, s3_bucket: str) -> list[Slot]:
        """Return the places of keys that the caller has chosen, and which are nobody else's: they are on record then.

        They are to be used at once.

        Raises:
            TenantInactiveError: The tenant is deleted.
        """
        if keys:
            self._record(tenant_id, keys, s3_bucket=s3_bucket)
        return [Slot(tenant_id=tenant_id, key=key, s3_bucket=s3_bucket) for key in keys]

    def lease_derived(self, tenant_id: UUID, *, source_id: UUID, s3_bucket: str) -> UUID:
        """Return the id of something that is about to be made of bytes; its place is on record then.

        Raises:
            TenantInactiveError: The tenant is deleted.
        """
        key = uuid7()
        self._record(tenant_id, [key], s3_bucket=s3_bucket, source_id=source_id)
        return key

    def _record(self, tenant_id: UUID, keys: Sequence[UUID], *, s3_bucket: str, source_id: UUID | None = None) -> None:
        leased = self.aside(tenant_id).run(
            lambda session: objects.lease(session, tenant_id, list(keys), s3_bucket=s3_bucket, source_id=source_id),
            single=True,
        )
        if not leased:
            raise TenantInactiveError(f"tenant {tenant_id} is deleted")

    def put(
        self,
        storage: Storage,
        slot: Slot,
        source: BinaryIO,
        *,
        content_type: str,
        disposition: str | None = None,
        region: str | None = None,
    ) -> None:
        """Store staged bytes, renewing the lease of their key while a long upload goes on.

        Args:
            storage: Where.
            slot: Their place.
            source: The bytes.
            content_type: As for `Storage.put`.
            disposition: As for `Storage.put`.
            region: As for `Storage.put`.

        Raises:
            StagedObjectExpiredError: It was swept all the same; nothing stays in the store.
            StorageError: The object store failed.
        """
        key = original_key(slot.key)
        reader = _RenewingReader(source, self, slot)
        try:
            storage.put(
                slot.s3_bucket,
                key,
                reader,  # type: ignore[arg-type]  # it reads
                content_type=content_type,
                disposition=disposition,
                region=region,
            )
            reader.renew_if_due()
        except StagedObjectExpiredError:
            storage.delete(slot.s3_bucket, [key])
            raise

    @contextmanager
    def putting(
        self, storage: BatchStorage, slots: Sequence[Slot], objects: Sequence[NewObject], *, region: str | None = None
    ) -> Iterator[Callable[[], None]]:
        """Store several small ones, which are one tenant's, around a block, as `BatchStorage.putting` does.

        Args:
            storage: Where.
            slots: Their places.
            objects: The bytes, in the same order, under the keys of their places.
            region: As for `Storage.put`.

        Raises:
            StagedObjectExpiredError: One was swept meanwhile.
            StorageError: The object store failed.
        """
        bucket = slots[0].s3_bucket
        deadline = _Deadline.after(self.renew_after_s)
        with storage.putting(bucket, objects, region=region) as sync:
            for slot in slots if deadline.passed else ():
                self.renew(slot.tenant_id, slot.key)
            yield sync

    def renew(self, tenant_id: UUID, key: UUID) -> None:
        """Start the grace period of a key anew.

        Raises:
            StagedObjectExpiredError: It was swept, or the tenant was deleted.
        """
        if not self.aside(tenant_id).run(lambda session: objects.renew(session, tenant_id, key), single=True):
            raise StagedObjectExpiredError(
                f"the staged object {key} was swept while its bytes were being stored: the upload stood still for "
                "longer than Settings.staging_grace, or the tenant was deleted"
            )

    def discard(self, storage: Storage, slot: Slot, *, kind: MediaKind) -> None:
        """Remove staged bytes, unless an item has been made of them, or is being made at the moment."""
        s3_key = original_key(slot.key)

        def work(session: Session) -> None:
            if objects.take_one_staged(session, slot.tenant_id, slot.key) is None and (
                objects.is_staged(session, slot.tenant_id, slot.key)
                or media.is_stored(session, slot.tenant_id, kind, slot.key)
                or objects.is_shared(session, slot.tenant_id, s3_key)
            ):
                return
            # Also what was swept before it was stored: it is on no record, and no item points at it.
            storage.delete(slot.s3_bucket, [s3_key])

        self.aside(slot.tenant_id).run(work)

    def aside(self, tenant_id: UUID) -> OwnTransaction:
        """Return where statements run apart from a transaction that may be open: what they write is there at once."""
        # Also for a tenant that is not served: one that has been suspended meanwhile must not keep what was staged.
        return OwnTransaction(self._database, Scope(tenant_id=tenant_id, is_served=False), beside=True)

    @property
    def renew_after_s(self) -> float:
        """After how many seconds a lease is renewed."""
        return self._grace_s / 3


class _Block:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.keys: list[UUID] = []
        self.size = 0
        self.deadline = _Deadline.after(0)


@attrs.frozen
class _Deadline:
    """A moment by two clocks: the one stands still while a laptop sleeps, the other can be set back."""

    monotonic: float
    wall: float

    @classmethod
    def after(cls, seconds: float) -> _Deadline:
        return cls(time.monotonic() + seconds, time.time() + seconds)

    @property
    def passed(self) -> bool:
        return time.monotonic() > self.monotonic or time.time() > self.wall


class _RenewingReader(RawIOBase):
    def __init__(self, source: BinaryIO, leases: StagingLeases, slot: Slot) -> None:
        self._source = source
        self._leases = leases
        self._slot = slot
        self._deadline = _Deadline.after(leases.renew_after_s)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self.renew_if_due()
        return self._source.read(size)

    def renew_if_due(self) -> None:
        if self._deadline.passed:
            self._leases.renew(self._slot.tenant_id, self._slot.key)
            self._deadline = _Deadline.after(self._leases.renew_after_s)
