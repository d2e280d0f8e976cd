"""Endpoints of webhooks, as tenants keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.webhooks import Webhook

_COLUMNS: LiteralString = """
w.id, w.tenant_id, w.url, w.events, w.description, w.is_active, w.disabled_at, w.disabled_reason, w.is_ordered,
w.max_in_flight, w.max_per_second, w.includes_url,
case when w.previous_secret_until > now() then w.previous_secret_until end, w.created_at, w.updated_at
"""

WAKE: LiteralString = """
case when exists (select from mindia.workers where awaits_events) then pg_notify('mindia_webhooks', '')::text end
"""

_CREATE: LiteralString = f"""
insert into mindia.webhooks as w
    (tenant_id, id, url, events, signing_secret, description, is_ordered, max_in_flight, max_per_second, includes_url)
values (%(tenant_id)s, %(id)s, %(url)s, %(events)s::text[], %(sealed)s, %(description)s, %(is_ordered)s,
        %(max_in_flight)s, %(max_per_second)s::real, %(includes_url)s)
returning {_COLUMNS}
"""

_GET = f"select {_COLUMNS} from mindia.webhooks w where w.tenant_id = %s and w.id = %s"

_PAGE = f"""
select {_COLUMNS} from mindia.webhooks w
where w.tenant_id = %(tenant_id)s and (%(after)s::uuid is null or w.id > %(after)s)
order by w.id limit %(limit)s
"""

# What is not to be changed is null; a rate that is none is 'NaN'.
_UPDATE: LiteralString = f"""
update mindia.webhooks w
set url = coalesce(%(url)s::text, w.url), events = coalesce(%(events)s::text[], w.events),
    description = coalesce(%(description)s::text, w.description),
    is_ordered = coalesce(%(is_ordered)s::boolean, w.is_ordered),
    max_in_flight = coalesce(%(max_in_flight)s::integer, w.max_in_flight),
    max_per_second = nullif(coalesce(%(max_per_second)s::real, w.max_per_second), 'NaN'),
    includes_url = coalesce(%(includes_url)s::boolean, w.includes_url), updated_at = now()
where w.tenant_id = %(tenant_id)s and w.id = %(id)s
returning {_COLUMNS}
"""

_PAUSE: LiteralString = f"""
update mindia.webhooks w set is_active = false, disabled_at = null, disabled_reason = null, updated_at = now()
where w.tenant_id = %s and w.id = %s
returning {_COLUMNS}
"""

# How it did before is forgotten: it begins anew.
_RESUME: LiteralString = f"""
with resumed as (
    update mindia.webhooks w
    set is_active = true, disabled_at = null, disabled_reason = null, resumed_at = clock_timestamp(), updated_at = now()
    where w.tenant_id = %s and w.id = %s
    returning {_COLUMNS}
), woken as (select {WAKE} from resumed)
select resumed.* from resumed left join woken on true
"""

_DELETE = "delete from mindia.webhooks where tenant_id = %s and id = %s"

# Done again, it changes nothing.
_ROTATE: LiteralString = f"""
update mindia.webhooks w
set signing_secret = %(sealed)s, updated_at = now(),
    previous_secret = case when w.signing_secret = %(sealed)s then w.previous_secret else w.signing_secret end,
    previous_secret_until = now() + %(overlap)s::interval
where w.tenant_id = %(tenant_id)s and w.id = %(id)s
returning {_COLUMNS}
"""

_SEALED_OTHERWISE = """
select w.tenant_id, w.id, w.signing_secret, w.previous_secret from mindia.webhooks w
where (%(after)s::uuid is null or w.id > %(after)s)
  and w.signing_secret is not null
  and (not starts_with(w.signing_secret, %(prefix)s) or not starts_with(w.previous_secret, %(prefix)s))
order by w.id limit %(limit)s
"""

_RESEAL = """
update mindia.webhooks set signing_secret = %(sealed)s, previous_secret = %(previous)s
where tenant_id = %(tenant_id)s and id = %(id)s
  and signing_secret = %(old_sealed)s and previous_secret is not distinct from %(old_previous)s
"""


@attrs.frozen(kw_only=True)
class NewWebhook:
    """What is written for a new endpoint. See `Webhook`.

    Attributes:
        sealed: Its signing secret, encrypted.
    """

    id: UUID
    url: str
    events: tuple[str, ...]
    sealed: str = attrs.field(repr=False)
    description: str
    is_ordered: bool
    max_in_flight: int
    max_per_second: float | None
    includes_url: bool


@attrs.frozen
class Sealed:
    """The secrets of an endpoint, encrypted."""

    tenant_id: UUID
    webhook_id: UUID
    sealed: str = attrs.field(repr=False)
    previous: str | None = attrs.field(repr=False)


def create(session: Session, tenant_id: UUID, new: NewWebhook) -> Webhook:
    """Write an endpoint."""
    parameters = attrs.asdict(new) | {"tenant_id": tenant_id, "events": list(new.events)}
    made = session.one(_CREATE, parameters, row=_webhook)
    assert made is not None
    return made


def get(session: Session, tenant_id: UUID, webhook_id: UUID) -> Webhook | None:
    """Read an endpoint."""
    return session.one(_GET, (tenant_id, webhook_id), row=_webhook)


def page(session: Session, tenant_id: UUID, *, after: UUID | None, limit: int) -> list[Webhook]:
    """Read endpoints, the oldest first, from behind one of them on."""
    return session.all(_PAGE, {"tenant_id": tenant_id, "after": after, "limit": limit}, row=_webhook)


def update(session: Session, tenant_id: UUID, webhook_id: UUID, changes: Mapping[str, object]) -> Webhook | None:
    """Change an endpoint; what is None in `changes` stays. None where it is gone."""
    return session.one(_UPDATE, {**changes, "tenant_id": tenant_id, "id": webhook_id}, row=_webhook)


def pause(session: Session, tenant_id: UUID, webhook_id: UUID) -> Webhook | None:
    """Send nothing to an endpoint; None where it is gone."""
    return session.one(_PAUSE, (tenant_id, webhook_id), row=_webhook)


def resume(session: Session, tenant_id: UUID, webhook_id: UUID) -> Webhook | None:
    """Send to an endpoint again, as if it had never failed; None where it is gone."""
    return session.one(_RESUME, (tenant_id, webhook_id), row=_webhook)


def delete(session: Session, tenant_id: UUID, webhook_id: UUID) -> bool:
    """Delete an endpoint with all that was to go there; False where it is gone."""
    return session.execute(_DELETE, (tenant_id, webhook_id)) > 0


def rotate(session: Session, tenant_id: UUID, webhook_id: UUID, *, sealed: str, overlap: timedelta) -> Webhook | None:
    """Give an endpoint another secret; the present one signs as well for a while. None where it is gone."""
    parameters = {"tenant_id": tenant_id, "id": webhook_id, "sealed": sealed, "overlap": overlap}
    return session.one(_ROTATE, parameters, row=_webhook)


def sealed_otherwise(session: Session, *, prefix: str, after: UUID | None, limit: int) -> list[Sealed]:
    """Read, of any tenant, the secrets that do not begin as the present key of the host has them begin."""
    return session.all(_SEALED_OTHERWISE, {"prefix": prefix, "after": after, "limit": limit}, row=Sealed)


def reseal(session: Session, old: Sealed, *, sealed: str, previous: str | None) -> bool:
    """Write the secrets of an endpoint anew; False where they have changed meanwhile."""
    parameters = {
        "tenant_id": old.tenant_id,
        "id": old.webhook_id,
        "sealed": sealed,
        "previous": previous,
        "old_sealed": old.sealed,
        "old_previous": old.previous,
    }
    return session.execute(_RESEAL, parameters) > 0


def _webhook(
    id: UUID,  # noqa: A002 - its name
    tenant_id: UUID,
    url: str,
    events: Sequence[str],
    *more: Any,
) -> Webhook:
    names = attrs.fields_dict(Webhook)
    rest = dict(zip(list(names)[4:], more, strict=True))
    return Webhook(id=id, tenant_id=tenant_id, url=url, events=tuple(events), **rest)
