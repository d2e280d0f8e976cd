"""Keys for bytes that are about to be stored, put on record before anything is written under them."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from io import RawIOBase
from typing import BinaryIO
from uuid import UUID

from mindia._ids import uuid7
from mindia.config import Settings
from mindia.db.database import Database
from mindia.domain.media import Staged
from mindia.errors import StagedObjectExpiredError
from mindia.repositories import objects
from mindia.services._keys import original_key
from mindia.storage.base import Storage

_MAX_BLOCK = 64
_MAX_TENANTS = 1024


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

    def take(self, tenant_id: UUID, *, s3_bucket: str) -> UUID:
        """Return a key that is on record and belongs to the caller alone."""
        if self._process != os.getpid():
            self._start_afresh()
        with self._lock:
            block = self._blocks.setdefault(tenant_id, _Block())
            self._blocks.move_to_end(tenant_id)
            while len(self._blocks) > _MAX_TENANTS:
                self._blocks.popitem(last=False)
        with block.lock:
            if not block.keys or time.monotonic() > block.good_until:
                block.size = min(2 * block.size or 1, _MAX_BLOCK)
                # From before the commit on, so that our clock never runs behind the lease.
                good_until = time.monotonic() + self._grace_s / 3
                keys = [uuid7() for _ in range(block.size)]
                with self._database.side_transaction() as session:
                    objects.lease(session, tenant_id, keys, s3_bucket=s3_bucket)
                block.keys, block.good_until = keys, good_until
            return block.keys.pop()

    def renewing(self, source: BinaryIO, tenant_id: UUID, key: UUID) -> BinaryIO:
        """Return a reader of `source` that renews the lease of a key while a long upload goes on."""
        return _RenewingReader(source, self, tenant_id, key)  # type: ignore[return-value]  # it reads, that is enough

    def renew(self, tenant_id: UUID, key: UUID) -> None:
        """Start the grace period of a key anew.

        Raises:
            StagedObjectExpiredError: It was swept.
        """
        with self._database.side_transaction() as session:
            if not objects.renew(session, tenant_id, key):
                raise StagedObjectExpiredError(
                    f"the staged object {key} was swept while its bytes were being stored: the upload stood still for "
                    "longer than Settings.staging_grace"
                )

    def discard(self, storage: Storage, staged: Staged) -> None:
        """Remove staged bytes, unless an item has been made of them."""
        with self._database.side_transaction() as session:
            taken = objects.take_one_staged(session, staged.tenant_id, staged.id)
            if taken is not None:
                storage.delete(taken.s3_bucket, [original_key(taken.id)])

    @property
    def renew_after_s(self) -> float:
        """After how many seconds a lease is renewed."""
        return self._grace_s / 3


class _Block:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.keys: list[UUID] = []
        self.size = 0
        self.good_until = 0.0


class _RenewingReader(RawIOBase):
    def __init__(self, source: BinaryIO, leases: StagingLeases, tenant_id: UUID, key: UUID) -> None:
        self._source = source
        self._leases = leases
        self._tenant_id = tenant_id
        self._key = key
        self._renew_at = time.monotonic() + leases.renew_after_s

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if time.monotonic() > self._renew_at:
            self._leases.renew(self._tenant_id, self._key)
            self._renew_at = time.monotonic() + self._leases.renew_after_s
        return self._source.read(size)
