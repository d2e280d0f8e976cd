"""Deleting tenants in tests: filling one first, and removing it whole."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.integration.media_rows import Host
from tests.integration.tenant_rows import a_row_of_every_table

from mindia import Library, MediaKind, Mindia, Tenant, TenantDeletionReport
from mindia._ids import uuid7
from mindia.domain.tasks import GenerateEmbedding
from mindia.storage.base import Storage
from mindia.testing.storage import listed, put, read

AT_ONCE = timedelta()
"""As grace for uploads, where nobody else uploads."""


def remove(app: Mindia, tenant: Tenant, **arguments: Any) -> TenantDeletionReport:
    """Remove deleted tenants, and return what came of one of them."""
    (report,) = [each for each in app.maintenance.remove_deleted_tenants(**arguments) if each.tenant_id == tenant.id]
    return report


def delete_whole(app: Mindia, tenant: Tenant) -> TenantDeletionReport:
    app.tenants.delete(tenant.id)
    return remove(app, tenant, staged_older_than=AT_ONCE)


def contents(storage: Storage, tenant: Tenant) -> dict[str, bytes]:
    return {key: read(storage, tenant.s3_bucket, key) for key in listed(storage, tenant.s3_bucket)}


def fill(host: Host, library: Library, storage: Storage, tenant: Tenant) -> None:
    """Write rows of every table, and objects of each sort."""
    a_row_of_every_table(host, library)
    task_id = library.tasks.enqueue(any_payload()).id
    other_id = library.tasks.enqueue(any_payload()).id
    host.execute(
        "insert into mindia.task_errors (tenant_id, task_id, attempt, error_type, error_message) "
        "values (%s, %s, 2, 'E', 'e')",
        (tenant.id, task_id),
    )
    host.execute(
        "insert into mindia.task_dependencies (tenant_id, task_id, depends_on_id) "
        "values (%(tenant)s, %(a)s, %(b)s), (%(tenant)s, %(b)s, %(a)s)",
        {"tenant": tenant.id, "a": task_id, "b": other_id},
    )
    put(storage, tenant.s3_bucket, f"derived/{task_id}/hls/720p/segment_000.ts", b"content")
    put(storage, tenant.s3_bucket, "left by an earlier version", b"content")


def any_payload() -> GenerateEmbedding:
    return GenerateEmbedding(entity_id=uuid7(), entity_type=MediaKind.IMAGE)
