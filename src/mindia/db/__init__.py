"""Connections, transactions, migrations, and the embedded server."""

from mindia.errors import MissingExtraError

try:
    from psycopg import Error as DriverError
except ImportError as error:  # it says which libraries it tried, and not what to do
    raise MissingExtraError("PostgreSQL without a libpq on this system", extra="binary") from error

__all__ = ["DriverError"]
