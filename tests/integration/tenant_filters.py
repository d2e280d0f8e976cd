"""The filters that hold statements to one tenant: found, taken out, and the statements sent again without them."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from uuid import UUID

import attrs
import psycopg
import pytest
from psycopg import sql
from tests.integration.tenant_rows import Connection, TenantRows

import mindia.repositories
from mindia.db._cursor import OwnCursor, own_cursor

_FILTER = re.compile(
    r"(?:\b\w+\.)?\btenant_id (?:=|is not distinct from) %(?:s|\(\w+\)s)(?:::\w+)?"
    r"|\bt\.id = %\(tenant_id\)s"
    r"|(?<=mindia\.tenants where )id = %s"
)

# Functions that are handed the tenant, and those of the row that they would find if it did not matter whose it is.
_HANDED = {
    "mindia.take_staged(%(tenant_id)s::uuid, n.id, %(binds)s)": (
        "mindia.take_staged((select o.tenant_id from mindia.staged_objects o where o.id = n.id), n.id, false)"
    )
}


def filters_of(query: str) -> list[re.Match[str]]:
    """Return where a statement is held to a tenant by a parameter."""
    return list(_FILTER.finditer(query))


def without_filters(query: str) -> str:
    """Return a statement whose filters are always true; the parameters stay, so that those that are bound fit."""
    return _FILTER.sub(r"(\g<0> or true)", query)


def without_any_tenant(query: str) -> str:
    """Return the same, and functions are handed whatever tenant a row is of."""
    for handed, found in _HANDED.items():
        query = query.replace(handed, found)
    return without_filters(query)


def without_one_filter(query: str) -> Iterator[str]:
    """Yield a statement once for each of its filters, without that one."""
    for found in filters_of(query):
        yield f"{query[: found.start()]}({found[0]} or true){query[found.end() :]}"


@attrs.frozen
class Sent:
    """A statement as it was sent, with its parameters."""

    query: str
    parameters: Mapping[str, Any] | Sequence[Any] = attrs.field(eq=False)

    def for_tenant(self, tenant_id: UUID, *, instead_of: UUID) -> Sent:
        """Return the same statement, with all its ids, of a call of another tenant."""

        def exchanged(value: object) -> object:
            return tenant_id if value == instead_of else value

        if isinstance(self.parameters, Mapping):
            return Sent(self.query, {name: exchanged(value) for name, value in self.parameters.items()})
        return Sent(self.query, [exchanged(value) for value in self.parameters])


@contextmanager
def recorded() -> Iterator[list[Sent]]:
    """Record the statements that are sent meanwhile and have a filter."""
    sent: list[Sent] = []
    execute = OwnCursor.execute

    def recording(cursor: OwnCursor[Any], query: Any, parameters: Any = None, **options: Any) -> Any:
        # What binds a transaction to a tenant is sent as a string.
        if isinstance(query, bytes) and filters_of(query.decode()):
            sent.append(Sent(query.decode(), parameters))
        return execute(cursor, query, parameters, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OwnCursor, "execute", recording)
        yield sent


@attrs.frozen
class Effect:
    """What a statement did.

    Attributes:
        answer: Its rows, the number of those that it touched, or the state of its error.
        harmed: The rows of the other tenant that are not as before.
    """

    answer: object
    harmed: list[tuple[str, str]]


@attrs.frozen
class Intruder:
    """Sends statements for one tenant with ids of another one, and undoes what they did.

    Args:
        connection: As the owner of the tables.
        tenant_id: For whom statements are sent.
        victim_id: Whose ids they have.
        role: The application's role.
    """

    connection: Connection
    tenant_id: UUID
    victim_id: UUID
    role: str

    def effect(self, sent: Sent, *, as_owner: bool) -> Effect:
        """Send a statement as the application or as the owner, whom row-level security does not hold."""
        rows = TenantRows(self.connection)
        ours = sent.for_tenant(self.tenant_id, instead_of=self.victim_id)
        with self.connection.transaction(force_rollback=True):
            before = rows.of(self.victim_id)
            self.connection.execute("select set_config('mindia.tenant_id', %s::text, true)", (self.tenant_id,))
            if not as_owner:
                self.connection.execute(sql.SQL("set local role {}").format(sql.Identifier(self.role)))
            answer = self._answer(ours)
            self.connection.execute("set local role none")
            after = rows.of(self.victim_id)
        return Effect(answer, sorted(set(before) ^ set(after)))

    def _answer(self, sent: Sent) -> object:
        try:
            with self.connection.transaction(), own_cursor(self.connection, lambda *row: row) as cursor:
                cursor.execute(sent.query.encode(), sent.parameters)
                return sorted(map(str, cursor.fetchall())) if cursor.description else cursor.rowcount
        except psycopg.Error as error:
            return error.sqlstate


def statements_with_filters() -> dict[str, str]:
    """Return the constants of the repositories that are held to a tenant, by module and name."""
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(mindia.repositories.__path__):
        found.update(_constants(importlib.import_module(f"mindia.repositories.{module.name}")))
    return found


def _constants(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, value in vars(module).items():
        for key, text in value.items() if isinstance(value, dict) else [("", value)]:
            if name.isupper() and isinstance(text, str) and filters_of(text):
                yield f"{module.__name__.rpartition('.')[2]}.{name}{f'[{key}]' if key else ''}", text
