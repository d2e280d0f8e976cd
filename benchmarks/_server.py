"""The server that benchmarks run on: the embedded one, in a temporary folder, as `mindia.local` starts it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import mindia
from mindia.db.embedded import EmbeddedServer


@attrs.frozen
class Server:
    """A server that runs.

    Attributes:
        folder: A temporary folder, on the disk that the server's data is on.
        url: Connection string of a database with Mindia's tables.
    """

    folder: Path
    url: str

    def make_database(self, name: str) -> str:
        """Make an empty database and return its address as a URI."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        parts = conninfo_to_dict(self.url)
        return f"postgresql://{parts['user']}@/{name}?host={parts['host']}"

    def setting(self, name: str) -> str:
        """Return a setting of the server."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute("select current_setting(%s)", [name]).fetchone()
        assert row is not None
        return str(row[0])


@contextmanager
def server() -> Iterator[Server]:
    """Start a server; it is stopped, and its data removed, at the end."""
    with tempfile.TemporaryDirectory(prefix="mindia-bench-") as name:
        embedded = EmbeddedServer(Path(name))
        try:
            running = Server(Path(name), make_conninfo(embedded.start()))
            with mindia.connect(running.url, storage=mindia.MemoryStorage()) as app:
                app.migrate()
            if running.setting("fsync") != "on":
                raise SystemExit("fsync is off: what is committed would not be on the disk")
            yield running
        finally:
            embedded.close()
