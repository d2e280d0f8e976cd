"""Our own cursor, which works the same on every connection, also on one that the host has configured."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor, adapters
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper, Loader
from psycopg.pq import Format
from psycopg.rows import args_row
from psycopg.types.json import set_json_dumps
from psycopg.types.string import StrDumper

T = TypeVar("T")

# The binary form counts microseconds from here: PostgreSQL's src/include/datatype/timestamp.h, POSTGRES_EPOCH_JDATE.
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECONDS = struct.Struct("!q").unpack
_DIMENSIONS = struct.Struct("!HH").pack


# Without the searches for white space and for the encoding, of which PostgreSQL's form of jsonb has none and one.
_decode_json = json.JSONDecoder().raw_decode


class _JsonbLoader(Loader):
    """Load jsonb, whatever loader a host has set; its binary form begins with a version number, 1."""

    format = Format.BINARY

    def load(self, data: Buffer) -> Any:
        return {} if data == b"\x01{}" else _decode_json(str(data, "utf-8"), 1)[0]


class _UtcLoader(Loader):
    """Load a timestamptz in UTC, whatever time zone the connection is set to."""

    format = Format.BINARY

    def load(self, data: Buffer) -> datetime:
        return _moment(bytes(data))


@lru_cache(maxsize=64)
def _moment(data: bytes) -> datetime:
    # Rows that were written together have the same one.
    return _POSTGRES_EPOCH + timedelta(0, 0, _MICROSECONDS(data)[0])


class BinaryVector:
    """A vector in the form that pgvector receives: as text, one takes longer than many a search.

    Args:
        numbers: Its coordinates, big-endian, in 4 bytes each.
    """

    def __init__(self, numbers: bytes) -> None:
        # The number of dimensions, and what is unused: pgvector's src/vector.c, vector_recv.
        self.data = _DIMENSIONS(len(numbers) // 4, 0) + numbers


class _VectorDumper(Dumper):
    """Dump a vector without a type, which is that of the cast that stands behind the parameter."""

    format = Format.BINARY

    def dump(self, obj: BinaryVector) -> bytes:
        return obj.data


_ADAPTERS = AdaptersMap(adapters)
set_json_dumps(json.dumps, _ADAPTERS)  # a host may have set others for the whole process
_ADAPTERS.register_loader("jsonb", _JsonbLoader)
_ADAPTERS.register_loader("timestamptz", _UtcLoader)
_ADAPTERS.register_dumper(BinaryVector, _VectorDumper)
_ADAPTERS.register_dumper(str, StrDumper)  # as text, where the default leaves the type to guess


class _OwnAdapters:
    @property
    def adapters(self) -> AdaptersMap:
        """The types as Mindia reads and writes them."""
        return _ADAPTERS


class OwnCursor(_OwnAdapters, Cursor[T]):
    """A cursor that takes neither the row factory nor the adapters of its connection.

    Hosts change both: Django, for one, loads jsonb as text. Results come in binary, so that `DateStyle`, `bytea_output`
    and the like of the session do not matter.
    """


def own_cursor(connection: Connection[Any], row: Callable[..., T]) -> OwnCursor[T]:
    """Return a cursor whose rows are `row(column, column, …)`."""
    cursor = OwnCursor(connection, row_factory=args_row(row))
    cursor.format = Format.BINARY
    return cursor


class OwnAsyncCursor(_OwnAdapters, AsyncCursor[T]):
    """The same on a connection of an event loop."""


def own_async_cursor(connection: AsyncConnection[Any], row: Callable[..., T]) -> OwnAsyncCursor[T]:
    """Return a cursor whose rows are `row(column, column, …)`."""
    cursor = OwnAsyncCursor(connection, row_factory=args_row(row))
    cursor.format = Format.BINARY
    return cursor
