"""Endpoints and deliveries, written as rows: many at once, and with what the service would not let be registered."""

from __future__ import annotations

from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import sql

from mindia import Settings
from mindia._ids import uuid7
from mindia.delivery.secrets import SecretBox

Owner = psycopg.Connection[tuple[Any, ...]]

SECRET = b"a secret that all endpoints have"

_BODY: LiteralString = """'{"id":"' || i || '","type":"image.uploaded","data":{"b":1,"a":2}}'"""


class Outbox:
    """The outbox, as its owner sees it.

    Args:
        owner: A connection that commits each statement by itself.
        settings: With the key that secrets are encrypted with.
    """

    def __init__(self, owner: Owner, settings: Settings) -> None:
        self._owner = owner
        self._box = SecretBox(settings)

    def endpoint(self, tenant_id: UUID, url: str, **columns: object) -> UUID:
        """Write an endpoint and return its id."""
        webhook_id = uuid7()
        values = {
            "id": webhook_id,
            "tenant_id": tenant_id,
            "url": url,
            "events": ["*"],
            "signing_secret": self._box.seal(SECRET, tenant_id=tenant_id, webhook_id=webhook_id),
            **columns,
        }
        self._owner.execute(
            sql.SQL("insert into mindia.webhooks ({}) values ({})").format(
                sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join([sql.Placeholder()] * len(values))
            ),
            list(values.values()),
        )
        return webhook_id

    def emit(self, webhook_id: UUID, count: int = 1, *, wakes: bool = False) -> None:
        """Write deliveries to an endpoint."""
        self._owner.execute(
            f"""
            insert into mindia.webhook_events (tenant_id, webhook_id, event_id, event_type, payload, body)
            select w.tenant_id, w.id, gen_random_uuid(), 'image.uploaded', ({_BODY})::jsonb, {_BODY}
            from mindia.webhooks w, generate_series(1, %s) i where w.id = %s
            """,
            (count, webhook_id),
        )
        if wakes:
            self._owner.execute("notify mindia_webhooks")

    def statuses(self, webhook_id: UUID | None = None) -> dict[str, int]:
        """Return how many deliveries stand where."""
        rows = self._owner.execute(
            "select delivery_status::text, count(*) from mindia.webhook_events "
            "where %(id)s::uuid is null or webhook_id = %(id)s::uuid group by 1",
            {"id": webhook_id},
        ).fetchall()
        return {str(status): int(count) for status, count in rows}

    def attempts(self, webhook_id: UUID | None = None) -> list[tuple[Any, ...]]:
        """Return attempt, cause, outcome, status and error code of each, in order."""
        return self._owner.execute(
            "select attempt, cause, outcome, status_code, error_code from mindia.webhook_attempts "
            "where %(id)s::uuid is null or webhook_id = %(id)s::uuid order by started_at, id",
            {"id": webhook_id},
        ).fetchall()

    def leases(self) -> int:
        """Return how many deliveries are in somebody's hands."""
        row = self._owner.execute("select count(*) from mindia.webhook_leases").fetchone()
        assert row is not None
        return int(row[0])
