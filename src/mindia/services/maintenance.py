"""Removes bytes that nothing points at: `app.maintenance`. Workers run it."""

from __future__ import annotations

import logging
from collections import defaultdict
from datetime import timedelta

from mindia._handles import Handle
from mindia.config import Settings
from mindia.db.database import Database
from mindia.errors import InvalidError, StorageError
from mindia.repositories import objects
from mindia.services._keys import original_key
from mindia.storage.base import Storage

_BATCH = 100

_log = logging.getLogger("mindia.maintenance")


class Maintenance(Handle):
    """Work that keeps the object store and the database of one mind. Thread-safe; two at once share the work."""

    def __init__(self, database: Database, storage: Storage, settings: Settings) -> None:
        self._database = database
        self._storage = storage
        self._settings = settings

    def sweep_staged(self, *, older_than: timedelta | None = None) -> int:
        """Remove the bytes of staged objects that no item was made of, and return how many objects that were.

        An object that an open transaction is adding is left alone, however old it is.

        Args:
            older_than: Instead of `Settings.staging_grace`.

        Raises:
            StorageError: The object store failed; what was not removed stays on record.
        """
        grace = self._settings.staging_grace if older_than is None else older_than
        if grace < timedelta():
            raise InvalidError(f"older_than must not be negative: {grace!r}")
        swept = 0
        while True:
            with self._database.transaction() as session:
                staged = objects.take_staged(session, older_than=grace, limit=_BATCH)
                keys = defaultdict(list)
                for taken in staged:
                    keys[taken.s3_bucket].append(original_key(taken.id))
                for bucket, stale in keys.items():
                    self._storage.delete(bucket, stale)
            swept += len(staged)
            if len(staged) < _BATCH:
                return swept

    def remove_deleted(self) -> int:
        """Remove the bytes of deleted items, and return how many items that were.

        Where the object store fails, the removal stays on record and is tried again later.
        """
        removed = 0
        while True:
            with self._database.transaction() as session:
                due = objects.lock_deleted(session, limit=_BATCH)
                for deleted in due:
                    try:
                        self._storage.delete(deleted.s3_bucket, deleted.s3_keys)
                        for prefix in deleted.s3_prefixes:
                            self._storage.delete_prefix(deleted.s3_bucket, prefix)
                    except StorageError as error:
                        _log.warning("the bytes of %s could not be removed: %s", deleted.id, error)
                        objects.postpone_deleted(session, deleted, error=str(error))
                    else:
                        objects.forget_deleted(session, deleted)
                        removed += 1
            if len(due) < _BATCH:
                return removed
