"""Deleting a tenant: what has been removed of it, and what is left."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import attrs


@attrs.frozen
class RemovedRows:
    """How many rows of a tenant have been removed from a table.

    Attributes:
        table: The table, in the schema `mindia`.
        count: How many.
    """

    table: str
    count: int


@attrs.frozen(kw_only=True)
class TenantDeletionProgress:
    """What a call has removed so far of a tenant that is deleted.

    Attributes:
        tenant_id: The tenant.
        rows: For each table that had some. What hangs on rows by a reference alone (errors and dependencies of tasks)
            goes with them and is not counted.
        objects_removed: How many objects of its bucket.
        bytes_removed: Their sizes together.
    """

    tenant_id: UUID
    rows: tuple[RemovedRows, ...] = ()
    objects_removed: int = 0
    bytes_removed: int = 0

    @property
    def rows_removed(self) -> int:
        """How many rows of all tables."""
        return sum(each.count for each in self.rows)


@attrs.frozen(kw_only=True)
class TenantDeletionReport(TenantDeletionProgress):
    """What a call has removed of a tenant that is deleted, and what it had to leave to a later one.

    Attributes:
        is_complete: Whether nothing of the tenant is left. The name of its bucket is free again then. Where it is not
            and nothing below says why, an open transaction holds rows of the tenant, or another call is at work on it.
        tables_left: Tables that have rows of it.
        uploads_left: How many keys are on record that bytes may still be put under.
        waits_until: When the last of these keys has lost its time of grace, in UTC; None where there are none. Where
            that has passed, an open transaction makes an item of one.
        indexes_left: Indexes for this tenant alone. They have no rows by now; it takes the owner of the tables to drop
            them.
        error: Why the object store has kept something, or None; logged, too.
    """

    is_complete: bool
    tables_left: tuple[str, ...] = ()
    uploads_left: int = 0
    waits_until: datetime | None = None
    indexes_left: tuple[str, ...] = ()
    error: Exception | None = None
