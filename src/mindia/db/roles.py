"""The roles of an application that has a server to itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql

from mindia.db import migrator
from mindia.db._cursor import own_cursor

if TYPE_CHECKING:
    from psycopg import Connection

_ARE_SET_UP: LiteralString = """
select count(*) = 2 from mindia.database_roles d join pg_roles r on r.rolname = d.name
where (d.name, d.purpose) in ((%(application)s, 'application'), (%(worker)s, 'worker'))
"""


def set_up(connection: Connection[Any], *, application: str, worker: str) -> None:
    """Make the role that an application logs in as, and the one that it takes on to go across tenants.

    Args:
        connection: A direct one of a superuser, in autocommit mode.
        application: Sees one tenant at a time, the one that its transaction is bound to.
        worker: Sees all tenants.
    """
    names = {"application": application, "worker": worker}
    if _are_set_up(connection, names):
        return
    with migrator.locked(connection), connection.transaction():
        if _are_set_up(connection, names):
            return
        there = {name for (name,) in connection.execute("select rolname from pg_roles").fetchall()}
        for name, kind in ((application, "login noinherit"), (worker, "nologin")):
            if name not in there:
                connection.execute(sql.SQL("create role {} " + kind).format(sql.Identifier(name)))
        connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(worker), sql.Identifier(application)))
        for purpose, name in names.items():
            connection.execute("select mindia.grant_role(%s, %s)", (name, purpose))
        _give_room(connection, application)


def _give_room(connection: Connection[Any], application: str) -> None:
    """Let the host have tables of its own beside ours, and keep those that an owner has made for it."""
    for rights in (
        "create on schema public",
        "all on all tables in schema public",
        "all on all sequences in schema public",
    ):
        connection.execute(sql.SQL("grant " + rights + " to {}").format(sql.Identifier(application)))


def _are_set_up(connection: Connection[Any], names: dict[str, str]) -> bool:
    with own_cursor(connection, bool) as cursor:
        cursor.execute(_ARE_SET_UP, names)
        return bool(cursor.fetchone())
