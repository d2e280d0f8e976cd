"""What must hold of rows, objects and the counts of those who share them, for one tenant."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.integration.media_rows import Host, sweep_all
from tests.integration.processes import wait_until

from mindia import Library, LocalStorage, Media, Mindia, Settings
from mindia._ids import uuid7
from mindia.testing import samples
from mindia.testing.storage import listed

QUICK = Settings(isolate_parsers=False, transcode_on_add=False)
"""For tests that add many files of which it is known what they are."""


def counted(host: Host, library: Library) -> dict[str, int]:
    """Return by key how many items share an object, as it is on record."""
    with host.transaction():
        return dict(
            host.execute(
                "select s3_key, item_count from mindia.shared_objects where tenant_id = %s", (library.tenant_id,)
            ).fetchall()
        )


def check_counts(host: Host, library: Library) -> None:
    """Assert that as many items share each object as is on record, and that all who share it say so."""
    with host.transaction():
        found = host.execute(
            """select s3_key, count(*), bool_or(is_shared), bool_and(is_shared) from mindia.all_media
            where tenant_id = %s group by s3_key""",
            (library.tenant_id,),
        ).fetchall()
    assert all(any_says == all_say for _, _, any_says, all_say in found)
    assert all(says or number == 1 for _, number, says, _ in found)
    assert counted(host, library) == {key: number for key, number, says, _ in found if says}


def check_every_item_reads(library: Library) -> list[Media]:
    """Assert that every item has the bytes that it was made of, and return the items."""
    items = list(library.media.iterate())
    for item in items:
        content = library.media.read(item)
        assert (len(content), hashlib.sha256(content).hexdigest()) == (item.file_size, item.sha256), item
    return items


def check_bytes(app: Mindia, library: Library, storage: LocalStorage, host: Host) -> list[Media]:
    """Assert that items and objects agree before maintenance and after it, and return the items."""
    check_counts(host, library)
    check_every_item_reads(library)
    app.maintenance.remove_expired()
    sweep_all(app)
    check_counts(host, library)
    items = check_every_item_reads(library)
    assert set(listed(storage, app.tenants.get(library.tenant_id).s3_bucket)) == {item.s3_key for item in items}
    return items


def told(host: Host, library: Library) -> list[tuple[str, str]]:
    """Return type and item of each event that endpoints of the tenant are told, in the order of their making."""
    with host.transaction():
        rows: list[tuple[Any, ...]] = host.execute(
            "select event_type, payload -> 'data' ->> 'media_id' from mindia.webhook_events where tenant_id = %s "
            "order by id",
            (library.tenant_id,),
        ).fetchall()
    return [(event_type, media_id) for event_type, media_id in rows]


def wait_for_a_lock(host: Host) -> None:
    """Wait until a statement of somebody's waits for a lock in this database."""

    def is_waited_for() -> bool:
        with host.transaction():
            found = host.execute(
                "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            ).fetchall()
        return bool(found)

    wait_until(is_waited_for)


def multiplied(host: Host, item: Media, number: int) -> list[UUID]:
    """Write further images like one, each with a search text and with a key of its own, but without bytes."""
    ids = [uuid7() for _ in range(number)]
    with host.transaction():
        host.execute(
            """insert into mindia.images (id, tenant_id, filename, original_filename, s3_key, s3_url, content_type,
                file_size, sha256, width, height, expires_at)
            select made.id, m.tenant_id, m.filename, m.original_filename, 'originals/' || made.id, m.s3_url,
                m.content_type, m.file_size, m.sha256, m.width, m.height, m.expires_at
            from mindia.images m, unnest(%s::uuid[]) as made (id) where m.id = %s""",
            (ids, item.id),
        )
        host.execute(
            """insert into mindia.search_documents (tenant_id, entity_id, entity_type, title, tsv)
            select d.tenant_id, made.id, d.entity_type, d.title, d.tsv
            from mindia.search_documents d, unnest(%s::uuid[]) as made (id) where d.entity_id = %s""",
            (ids, item.id),
        )
    return ids


def write_wav(path: Path, size: int) -> Path:
    """Write a tone of at least so many bytes."""
    second = samples.wav(seconds=1.0, sample_rate=48_000, channels=8)
    header, sound = bytearray(second[:44]), second[44:]
    times = -(-size // len(sound))
    header[4:8] = (36 + times * len(sound)).to_bytes(4, "little")
    header[40:44] = (times * len(sound)).to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(header)
        for _ in range(times):
            file.write(sound)
    return path
