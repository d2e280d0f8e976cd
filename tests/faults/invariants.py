"""What must hold after any fault."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo
from tests.faults.harness import wait_until

from mindia import Library, LocalStorage, Media, Mindia, S3Storage, Tenant
from mindia.errors import MindiaError
from mindia.storage.base import Storage

_CHILD: LiteralString = "mindia-child"

# Each is a number of rows that belong together with others that are not there.
_TORN: dict[str, LiteralString] = {
    "items without search text": """
        select count(*) from mindia.media m
        where not exists (select from mindia.search_documents d where d.tenant_id = m.tenant_id and d.entity_id = m.id)
    """,
    "search texts without item": """
        select count(*) from mindia.search_documents d
        where not exists (select from mindia.media m where m.tenant_id = d.tenant_id and m.id = d.entity_id)
    """,
    "items neither embedded nor with a task that will": """
        select count(*) from mindia.media m
        where not exists (select from mindia.embeddings e where e.tenant_id = m.tenant_id and e.entity_id = m.id)
          and not exists (
              select from mindia.tasks t where t.tenant_id = m.tenant_id and t.kind = 'generate_embedding'
                 and t.status in ('pending', 'running') and t.payload ->> 'entity_id' = m.id::text
          )
    """,
    "items that are on record as staged or deleted too": """
        select count(*) from mindia.media m
        where exists (select from mindia.staged_objects s where s.tenant_id = m.tenant_id and s.id = m.id)
           or exists (select from mindia.deleted_objects d where d.tenant_id = m.tenant_id and d.id = m.id)
    """,
    "objects that are on record for removal although an item points at them": """
        select count(*) from mindia.deleted_objects d
        where exists (select from mindia.all_media m where m.tenant_id = d.tenant_id and m.s3_key = any(d.s3_keys))
    """,
    "objects that are on record as staged although an item points at them": """
        select count(*) from mindia.staged_objects s
        where exists (
            select from mindia.all_media m where m.tenant_id = s.tenant_id and m.s3_key = 'originals/' || s.id
        )
    """,
    "shared objects that another number of items points at than is on record": """
        select count(*) from mindia.shared_objects o
        where item_count <> (
            select count(*) from mindia.all_media m where m.tenant_id = o.tenant_id and m.s3_key = o.s3_key
        )
    """,
    "items that share an object of which that is not on record": """
        select count(*) from mindia.all_media m
        where m.is_shared and not exists (
            select from mindia.shared_objects o where o.tenant_id = m.tenant_id and o.s3_key = m.s3_key
        )
    """,
    "items that share an object and do not say so": """
        select count(*) from mindia.all_media m
        where not m.is_shared and exists (
            select from mindia.all_media o where o.tenant_id = m.tenant_id and o.s3_key = m.s3_key and o.id <> m.id
        )
    """,
    "pictures of bytes that no item has": """
        select count(*) from mindia.derivatives d
        where not exists (
            select from mindia.all_media m where m.tenant_id = d.tenant_id and m.s3_key = 'originals/' || d.source_id
        )
    """,
    "pictures that are on record as staged or deleted too": """
        select count(*) from mindia.derivatives d
        where exists (select from mindia.staged_objects s where s.tenant_id = d.tenant_id and s.id = d.id)
           or exists (
               select from mindia.deleted_objects o where o.tenant_id = d.tenant_id and d.s3_key = any(o.s3_keys)
           )
    """,
    "waiting tasks for items that are not there": """
        select count(*) from mindia.tasks t
        where t.kind = 'generate_embedding' and t.status = 'pending' and not exists (
            select from mindia.media m where m.tenant_id = t.tenant_id and m.id::text = t.payload ->> 'entity_id'
        )
    """,
}


def number(url: str, query: LiteralString, *parameters: object) -> Any:
    """Return the one value that a query selects."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


def all_media(library: Library) -> list[Media]:
    """Return all items of a library."""
    found: list[Media] = []
    after = None
    while True:
        page = library.media.find(limit=1000, after=after)
        found += page.items
        after = page.next
        if after is None:
            return found


def of_a_child(url: str) -> str:
    """Return a connection string for a child process, by which the server tells its connections from others."""
    return make_conninfo(url, application_name=_CHILD)


def wait_for_the_killed(url: str) -> None:
    """Wait until the server has ended what killed children had begun: it holds rows until then, and may yet commit."""
    wait_until(
        lambda: not number(url, f"select count(*) from pg_stat_activity where application_name = '{_CHILD}'"),
        what="the server has noticed that the children are gone",
    )


def check_every_row_has_its_bytes(library: Library) -> list[Media]:
    """Assert that every item reads back as what was handed in; return the items."""
    items = all_media(library)
    for item in items:
        try:
            content = library.media.read(item)
        except MindiaError as error:
            raise AssertionError(f"{item} is a row without bytes") from error
        assert hashlib.sha256(content).hexdigest() == item.sha256, f"{item} has other bytes than were handed in"
    return items


def check_every_picture_has_its_bytes(library: Library, items: list[Media]) -> set[str]:
    """Assert that all that was made of items reads back as it was made; return the keys."""
    keys = set()
    for made in (made for item in items for made in library.media.derivatives(item)):
        content = library.media.read(made)
        assert hashlib.sha256(content).hexdigest() == made.sha256, f"{made} has other bytes than were made"
        keys.add(made.s3_key)
    return keys


def check_nothing_is_torn(url: str) -> None:
    """Assert that what is written in one transaction is there as a whole."""
    torn = {what: count for what, query in _TORN.items() if (count := number(url, query))}
    assert not torn


def check_bytes_and_rows_agree(app: Mindia, tenant: Tenant, storage: Storage, url: str) -> list[Media]:
    """Assert that there are no rows without bytes and, once maintenance has run, no bytes without row.

    Nobody else may work on the tenant meanwhile. The storage must be the tenant's alone.
    """
    wait_for_the_killed(url)
    library = app.library(tenant)
    check_every_row_has_its_bytes(library)
    check_nothing_is_torn(url)

    app.maintenance.remove_deleted()
    app.maintenance.sweep_staged(older_than=timedelta())

    items = check_every_row_has_its_bytes(library)
    keys = {item.s3_key for item in items} | check_every_picture_has_its_bytes(library, items)
    assert {found.key for found in storage.list(tenant.s3_bucket)} == keys
    if isinstance(storage, LocalStorage):
        files = {file.relative_to(storage.root).as_posix() for file in storage.root.rglob("*") if file.is_file()}
        assert files == {f"{tenant.s3_bucket}/{key}" for key in keys}
    if isinstance(storage, S3Storage):
        place = storage._place(tenant.s3_bucket)
        answer = storage._connection.client().list_multipart_uploads(Bucket=place.bucket, Prefix=place.key)
        assert [upload["Key"] for upload in answer.get("Uploads", ())] == []
    assert number(url, "select count(*) from mindia.staged_objects") == 0
    assert number(url, "select count(*) from mindia.deleted_objects") == 0
    check_nothing_is_torn(url)
    return items
