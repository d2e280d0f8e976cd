"""Removes deleted tenants, in small steps, until killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from datetime import timedelta

from tests.faults.child import ready, report

import mindia
from mindia import LocalStorage, Settings
from mindia.services import tenant_deletion

ROWS, OBJECTS = 6, 2
"""To a transaction, so that there are many moments to be killed at."""


def remove(url: str, objects: str, killed_by: str = "") -> None:
    """Report each batch.

    Args:
        url: The database.
        objects: The object store.
        killed_by: The call of the store after which this process kills itself; none by default.
    """
    tenant_deletion.ROWS, tenant_deletion.OBJECTS = ROWS, OBJECTS
    storage = _Deadly(objects, killed_by)
    with mindia.connect(url, storage=storage, settings=Settings(pool_timeout_s=5.0)) as app:
        ready()
        app.maintenance.remove_deleted_tenants(
            staged_older_than=timedelta(),
            progress=lambda done: report(f"{done.rows_removed} rows, {done.objects_removed} objects"),
        )
        report("ended")


class _Deadly(LocalStorage):
    def __init__(self, root: str, killed_by: str) -> None:
        super().__init__(root)
        self._killed_by = killed_by

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        super().delete(bucket, keys)
        self._kill("delete")

    def delete_bucket(self, bucket: str) -> None:
        super().delete_bucket(bucket)
        self._kill("delete_bucket")

    def _kill(self, what: str) -> None:
        if what == self._killed_by:
            os.kill(os.getpid(), signal.SIGKILL)
