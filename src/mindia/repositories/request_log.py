"""The log of requests: written in batches, read as it is, and summed up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString, NamedTuple
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.analytics import RequestCount, RequestGroup, RequestLog, RequestOrder, RequestStats
from mindia.repositories._text import storable

# As texts: arrays of as many values take a client longer than all the rest. (That of a single empty value is an array
# of none.) COPY is refused where row-level security is in force. Of a tenant that is gone nothing is written, and the
# row of one that is there stays until the commit.
_WRITE = """
with owners as materialized (
    select t.id from mindia.tenants t where t.id = any(%(owners)s::uuid[]) and t.status <> 'deleted' for key share
)
insert into mindia.request_logs
    (tenant_id, method, path, route, status_code, response_time_ms, bytes_sent, bytes_received, ip_address, user_agent,
     is_aborted, created_at)
select nullif(r.tenant_id, '')::uuid, r.method, r.path, nullif(r.route, ''), r.status_code::int, r.ms::int,
       nullif(r.sent, '')::bigint, nullif(r.received, '')::bigint, nullif(r.ip_address, ''), nullif(r.user_agent, ''),
       r.is_aborted::boolean, pg_catalog.to_timestamp(r.began::float8)
from unnest(
    string_to_array(%(tenant_ids)s, E'\n'), string_to_array(%(methods)s, E'\n'), string_to_array(%(paths)s, E'\n'),
    string_to_array(%(routes)s, E'\n'), string_to_array(%(statuses)s, E'\n'), string_to_array(%(times)s, E'\n'),
    string_to_array(%(sent)s, E'\n'), string_to_array(%(received)s, E'\n'), string_to_array(%(addresses)s, E'\n'),
    string_to_array(%(agents)s, E'\n'), string_to_array(%(aborted)s, E'\n'), string_to_array(%(begun)s, E'\n')
) as r (tenant_id, method, path, route, status_code, ms, sent, received, ip_address, user_agent, is_aborted, began)
where coalesce(r.tenant_id, '') = '' or r.tenant_id::uuid in (select id from owners)
"""

_COLUMNS: LiteralString = """
l.id, l.tenant_id, l.method, l.path, l.route, l.status_code, l.response_time_ms, l.bytes_sent, l.bytes_received,
l.ip_address, l.user_agent, l.is_aborted, l.created_at
"""

_WHEN: LiteralString = """
l.created_at >= %(since)s::timestamptz and l.created_at < coalesce(%(until)s::timestamptz, 'infinity'::timestamptz)
"""

_WANTED: LiteralString = """
(%(path)s::text is null or l.route = %(path)s or l.path = %(path)s)
and (%(status)s::int is null or l.status_code = %(status)s)
and (%(before)s::timestamptz is null or (l.created_at, l.id) < (%(before)s::timestamptz, %(before_id)s::bigint))
order by l.created_at desc, l.id desc limit %(limit)s
"""

_LIST: LiteralString = f"""
select {_COLUMNS} from mindia.request_logs l where l.tenant_id = %(tenant_id)s::uuid and {_WHEN} and {_WANTED}
"""
_LIST_ALL: LiteralString = f"select {_COLUMNS} from mindia.request_logs l where {_WHEN} and {_WANTED}"

# There are few different times in milliseconds: rows are counted by them first, and what has been counted is sorted.
_MEASURED: LiteralString = """
l.response_time_ms as ms, count(*) as requests, count(*) filter (where l.status_code >= 500) as errors,
count(*) filter (where l.status_code between 400 and 499) as refused, count(*) filter (where l.is_aborted) as aborted,
sum(l.bytes_sent) as sent, sum(l.bytes_received) as received
"""

_SUMMED: LiteralString = """
), running as (
    select c.*, sum(c.requests) over (partition by c.key order by c.ms) as upto,
           sum(c.requests) over (partition by c.key) as total
    from counted c
)
select s.key, sum(s.requests)::bigint, sum(s.errors)::bigint, sum(s.refused)::bigint, sum(s.aborted)::bigint,
       coalesce(sum(s.sent), 0)::bigint, coalesce(sum(s.received), 0)::bigint,
       (sum(s.ms * s.requests) / sum(s.requests))::float8,
       min(s.ms) filter (where s.upto >= s.total * 0.5), min(s.ms) filter (where s.upto >= s.total * 0.9),
       min(s.ms) filter (where s.upto >= s.total * 0.95), min(s.ms) filter (where s.upto >= s.total * 0.99),
       max(s.ms)
from running s group by s.key
order by case %(order)s::text when 'requests' then sum(s.requests) when 'bytes' then sum(s.sent)
                              when 'errors' then sum(s.errors)
                              when 'time' then min(s.ms) filter (where s.upto >= s.total * 0.95) end desc nulls last,
         s.key
limit %(limit)s
"""

_OF_TENANT: LiteralString = f"""
from mindia.request_logs l where l.tenant_id = %(tenant_id)s::uuid and {_WHEN} group by 1, 2 {_SUMMED}
"""
_OF_ALL: LiteralString = f"from mindia.request_logs l where {_WHEN} group by 1, 2 {_SUMMED}"

_TOTAL: LiteralString = f"with counted as (select null::text as key, {_MEASURED} "
_BY_PATH: LiteralString = f"with counted as (select coalesce(l.route, l.path) as key, {_MEASURED} "
_BY_METHOD: LiteralString = f"with counted as (select l.method::text as key, {_MEASURED} "
_BY_STATUS: LiteralString = f"with counted as (select l.status_code as key, {_MEASURED} "
_BY_TENANT: LiteralString = f"with counted as (select l.tenant_id as key, {_MEASURED} "
_HOUR: LiteralString = "date_bin('1 hour'::interval, l.created_at, '2000-01-01 00:00+00'::timestamptz)"
_DAY: LiteralString = "date_bin('1 day'::interval, l.created_at, '2000-01-01 00:00+00'::timestamptz)"
_BY_HOUR: LiteralString = f"with counted as (select {_HOUR} as key, {_MEASURED} "
_BY_DAY: LiteralString = f"with counted as (select {_DAY} as key, {_MEASURED} "

_SUMMARIES: Mapping[RequestGroup | None, LiteralString] = {
    None: _TOTAL + _OF_TENANT,
    RequestGroup.PATH: _BY_PATH + _OF_TENANT,
    RequestGroup.METHOD: _BY_METHOD + _OF_TENANT,
    RequestGroup.STATUS: _BY_STATUS + _OF_TENANT,
    RequestGroup.HOUR: _BY_HOUR + _OF_TENANT,
    RequestGroup.DAY: _BY_DAY + _OF_TENANT,
}
_SUMMARIES_OF_ALL: Mapping[RequestGroup | None, LiteralString] = {
    None: _TOTAL + _OF_ALL,
    RequestGroup.PATH: _BY_PATH + _OF_ALL,
    RequestGroup.METHOD: _BY_METHOD + _OF_ALL,
    RequestGroup.STATUS: _BY_STATUS + _OF_ALL,
    RequestGroup.HOUR: _BY_HOUR + _OF_ALL,
    RequestGroup.DAY: _BY_DAY + _OF_ALL,
    RequestGroup.TENANT: _BY_TENANT + _OF_ALL,
}

_COUNT_HOURS: LiteralString = f"""
select {_HOUR}, count(*) from mindia.request_logs l where l.tenant_id = %(tenant_id)s::uuid and {_WHEN}
group by 1 order by 1
"""
_COUNT_DAYS: LiteralString = f"""
select {_DAY}, count(*) from mindia.request_logs l where l.tenant_id = %(tenant_id)s::uuid and {_WHEN}
group by 1 order by 1
"""
_COUNT_HOURS_OF_ALL: LiteralString = f"""
select {_HOUR}, count(*) from mindia.request_logs l where {_WHEN} group by 1 order by 1
"""
_COUNT_DAYS_OF_ALL: LiteralString = f"""
select {_DAY}, count(*) from mindia.request_logs l where {_WHEN} group by 1 order by 1
"""

_PRUNE = """
delete from mindia.request_logs where id = any(array(
    select id from mindia.request_logs where created_at < now() - %s::interval limit %s
))
"""


class Entry(NamedTuple):
    """A request that is to be written. A tuple, since one is made for every request.

    Attributes:
        tenant_id: As text, or empty.
        method: At most 10 characters.
        path: At most 512 characters.
        route: The same.
        status_code: Of the response.
        response_time_ms: In milliseconds.
        bytes_sent: Or an empty text.
        bytes_received: Or an empty text.
        ip_address: Or an empty text.
        user_agent: Or an empty text.
        is_aborted: 1 or 0.
        began: Seconds since 1970.
    """

    tenant_id: str
    method: str
    path: str
    route: str
    status_code: int
    response_time_ms: int
    bytes_sent: int | str
    bytes_received: int | str
    ip_address: str
    user_agent: str
    is_aborted: int
    began: float


_PARAMETERS = (
    "tenant_ids", "methods", "paths", "routes", "statuses", "times", "sent", "received", "addresses", "agents",
    "aborted", "begun",
)  # fmt: skip


@attrs.frozen(kw_only=True)
class Span:
    """Whose requests, from when to when.

    Attributes:
        tenant_id: The tenant, or None for all of them.
        since: From this time on.
        until: Before this time, or None.
    """

    tenant_id: UUID | None
    since: datetime
    until: datetime | None


def write(session: Session, entries: Sequence[Entry]) -> int:
    """Write requests, and return how many; those of tenants that are gone are left out."""
    columns = (_joined(column) for column in zip(*entries, strict=True))
    owners = sorted({entry.tenant_id for entry in entries} - {""})
    return session.execute(_WRITE, dict(zip(_PARAMETERS, columns, strict=True)) | {"owners": owners})


def _joined(column: Sequence[object]) -> str:
    joined = "\n".join(map(str, column))
    if joined.count("\n") >= len(column):
        joined = "\n".join(" ".join(str(each).split("\n")) for each in column)
    return joined if joined.isascii() and "\0" not in joined else storable(joined)


def tenant_of(entry: Entry) -> UUID:
    """Return the tenant of an entry that has one."""
    return UUID(entry.tenant_id)


def find(
    session: Session, span: Span, *, path: str | None, status: int | None, before: RequestLog | None, limit: int
) -> list[RequestLog]:
    """Return requests, the newest first."""
    own = {
        "path": path,
        "status": status,
        "before": None if before is None else before.created_at,
        "before_id": None if before is None else before.id,
        "limit": limit,
    }
    return session.all(_LIST_ALL if span.tenant_id is None else _LIST, attrs.asdict(span) | own, row=_request)


def summary(
    session: Session, span: Span, *, group: RequestGroup | None, order: RequestOrder, limit: int
) -> list[RequestStats]:
    """Return the sums of each group, or of all requests as one."""
    parameters = attrs.asdict(span) | {"order": order, "limit": limit}
    if span.tenant_id is None:
        return session.all(_SUMMARIES_OF_ALL[group], parameters, row=_stats)
    return session.all(_SUMMARIES[group], parameters, row=_stats)


def counts(session: Session, span: Span, *, group: RequestGroup) -> list[RequestCount]:
    """Return how many requests there were in each hour or day that has any."""
    by_hour = group is RequestGroup.HOUR
    if span.tenant_id is None:
        statement = _COUNT_HOURS_OF_ALL if by_hour else _COUNT_DAYS_OF_ALL
    else:
        statement = _COUNT_HOURS if by_hour else _COUNT_DAYS
    return session.all(
        statement, attrs.asdict(span), row=lambda begins_at, n: RequestCount(begins_at=begins_at, requests=n)
    )


def prune(session: Session, *, older_than: timedelta, limit: int) -> int:
    """Delete requests that are older, and return how many."""
    return session.execute(_PRUNE, (older_than, limit))


def _request(*columns: Any) -> RequestLog:
    return RequestLog(**dict(zip(_REQUEST, columns, strict=True)))


def _stats(*columns: Any) -> RequestStats:
    return RequestStats(**dict(zip(_STATS, columns, strict=True)))


_REQUEST = [field.name for field in attrs.fields(RequestLog)]
_STATS = [field.name for field in attrs.fields(RequestStats)]
