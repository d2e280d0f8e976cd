"""Items of all kinds, and what others see of them in the tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from mindia import Library, LibraryTransaction, Media, Mindia
from mindia._ids import uuid7
from mindia.testing import samples

Host = psycopg.Connection[tuple[Any, ...]]
"""A connection of the host's own, which sees what is committed."""

TABLES = ("images", "videos", "audios", "documents", "search_documents", "tasks", "webhook_events", "deleted_objects")


def four_kinds(library: Library) -> list[Media]:
    """Add an item of each kind."""
    return [
        library.media.add(samples.image(), filename="a.jpg"),
        library.media.add(samples.video(seconds=0.2, audio_codec=None), filename="b.mp4"),
        library.media.add(samples.wav(seconds=0.1), filename="c.wav"),
        library.media.add(samples.pdf(), filename="d.pdf"),
    ]


def rows(host: Host, library: Library, *tables: str) -> dict[str, int]:
    """Return how many rows of the tenant there are, in the tables that have some."""
    found = {}
    with host.transaction():
        for table in tables or TABLES:
            query = sql.SQL("select count(*) from mindia.{} where tenant_id = {}")
            counted = host.execute(query.format(sql.Identifier(table), library.tenant_id)).fetchone()
            assert counted is not None
            found[table] = counted[0]
    return {table: number for table, number in found.items() if number}


def register(host: Host, library: Library, events: list[str], *, active: bool = True) -> UUID:
    """Write an endpoint of the tenant."""
    webhook_id = uuid7()
    with host.transaction():
        host.execute(
            "insert into mindia.webhooks (id, tenant_id, url, events, is_active) values (%s, %s, 'https://x', %s, %s)",
            (webhook_id, library.tenant_id, events, active),
        )
    return webhook_id


class _Undo(Exception):  # noqa: N818 - what it does
    pass


@contextmanager
def rolled_back(library: Library) -> Iterator[LibraryTransaction]:
    """Begin a transaction that is rolled back at its end."""
    with suppress(_Undo), library.transaction() as tx:
        yield tx
        raise _Undo


def sweep_all(app: Mindia) -> None:
    """Remove whatever nothing points at, however young it is."""
    app.maintenance.sweep_staged(older_than=timedelta())
    app.maintenance.remove_deleted()
