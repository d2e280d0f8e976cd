"""A table of the host's own beside Mindia's, and what others see of both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import psycopg
from psycopg import sql

from mindia import Tenant

_TABLES = ("images", "search_documents", "tasks", "webhook_events")


@attrs.frozen
class Observer:
    """Somebody with a connection of their own."""

    url: str
    tenant: Tenant

    def counts(self) -> dict[str, int]:
        """Return how many rows of each table are visible to others, without the tables that have none."""
        with psycopg.connect(self.url) as connection:
            counts = {"orders": _number(connection, sql.SQL("select count(*) from public.orders"))}
            for table in _TABLES:
                query = sql.SQL("select count(*) from mindia.{} where tenant_id = {}")
                counts[table] = _number(connection, query.format(sql.Identifier(table), self.tenant.id))
        return {table: count for table, count in counts.items() if count}


@contextmanager
def orders(url: str) -> Iterator[None]:
    """Make a table `public.orders` with a constraint that is checked at the commit."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table public.orders (id integer primary key, parent integer)")
        connection.execute(
            "alter table public.orders add constraint orders_parent_fkey foreign key (parent) references public.orders "
            "deferrable initially deferred"
        )
        connection.execute("grant all on public.orders to public")
        try:
            yield
        finally:
            connection.execute("drop table public.orders")


def _number(connection: psycopg.Connection[tuple[int]], query: sql.SQL | sql.Composed) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]
