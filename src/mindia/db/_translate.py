"""From the driver's exceptions to ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as pg

from mindia import errors

# Raised by mindia.set_tenant(), set_initiator() and use_quota().
_NO_TENANT, _INACTIVE_TENANT, _DENIED, _QUOTA = "MI001", "MI002", "MI003", "MI004"

# No state at all (the socket broke), class 08 (connection exception), 57P01 to 57P05 (shutdown, crash, idle time-out).
_LOST = re.compile(r"$|08|57P0")

_TAKEN = {
    "tenants_pkey": "this tenant exists already",
    "tenants_s3_bucket_key": "another tenant uses this bucket",
    "users_tenant_email_key": "another user of the tenant has this e-mail address",
    "presets_pkey": "there is a preset of this name already",
    "api_keys_prefix_key": "another API key begins like this one",
}


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the driver raises as one of ours, with the cause kept."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error


def translate(error: psycopg.Error) -> errors.MindiaError:
    """Return the error of ours that says the same."""
    from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

    message = (error.diag.message_primary or str(error)).strip()
    match error:
        case _ if error.sqlstate == _NO_TENANT:
            return errors.NotFoundError(message)
        case _ if error.sqlstate == _INACTIVE_TENANT:
            return errors.TenantInactiveError(f"{message}; app.tenants.reactivate() admits it again if it is suspended")
        case _ if error.sqlstate == _DENIED:
            return errors.PermissionDeniedError(message)
        case _ if error.sqlstate == _QUOTA:
            return errors.QuotaExceededError(f"{message}; app.tenants.set_quota() raises it")
        case pg.UniqueViolation():
            name = _constraint(error)
            return errors.AlreadyExistsError(_TAKEN.get(name, f"{name or 'a unique value'} is taken: {message}"))
        case pg.ForeignKeyViolation():
            return errors.ConflictError(f"what the call refers to is not there, or is still referred to: {message}")
        case pg.SerializationFailure() | pg.DeadlockDetected():
            return errors.TransactionConflictError(f"{message}; run the transaction again")
        case pg.InsufficientPrivilege():
            return errors.RoleError(f"{message}; docs/security.md tells what roles are needed")
        case pg.InvalidSchemaName() | pg.UndefinedTable():
            return errors.SchemaOutOfDateError(f"{message}; app.migrate() creates the tables")
        case pg.DataError():
            return errors.InvalidError(message)
        case pg.InFailedSqlTransaction():
            return errors.TransactionError(f"{message}: roll it back")
        case PoolClosed():
            return errors.ClosedError(message)
        case PoolTimeout() | TooManyRequests():
            return errors.DatabaseUnavailableError(
                f"{message}: all of the pool are in use (Settings.pool_size), or PostgreSQL cannot be reached"
            )
        case pg.OperationalError() if _LOST.match(error.sqlstate or ""):
            return errors.ConnectionLostError(f"the connection to PostgreSQL was lost: {message}")
        case pg.TooManyConnections():
            return errors.DatabaseUnavailableError(f"{message}; raise max_connections or lower Settings.pool_size")
        case _:
            return errors.DatabaseError(message)


def _constraint(error: psycopg.Error) -> str:
    """Return the violated constraint's name: a cluster leaves the field empty and names the shard in the message."""
    name = error.diag.constraint_name
    if not name and (found := re.search(r'constraint "(\w+)"', str(error))):
        name = found[1]
    return re.sub(r"_\d{5,}$", "", name or "")
