"""The log of requests: `library.request_log` of one tenant, `app.request_log` of all, and of those without one."""

from __future__ import annotations

import builtins
import ipaddress
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from mindia._handles import Handle
from mindia.db.units import Unit
from mindia.domain.analytics import (
    RequestCount,
    RequestGroup,
    RequestLog,
    RequestLogBuffer,
    RequestOrder,
    RequestStats,
    RequestSummary,
)
from mindia.errors import InvalidError
from mindia.repositories import request_log
from mindia.repositories.request_log import Entry, Span
from mindia.services.request_log_writer import RequestLogWriter
from mindia.services.request_paths import route_of

_MAX_PAGE = 10_000
_MAX_TEXT = 512
_A_DAY = timedelta(days=1)
_MAX_BYTES = 2**63 - 1
_MAX_INT = 2**31 - 1

E = TypeVar("E", bound=StrEnum)


class _Requests(Handle):
    """What both logs have in common."""

    _writer: RequestLogWriter
    _unit: Unit
    _tenant_id: UUID | None
    _groups = tuple(RequestGroup)

    def record(
        self,
        method: str,
        path: str,
        status_code: int,
        *,
        response_time_ms: float,
        bytes_sent: int | None = None,
        bytes_received: int | None = None,
        ip_address: str | None = None,
        user_agent: str | None = None,
        is_aborted: bool = False,
        began_at: datetime | None = None,
    ) -> None:
        """Log a request; `mindia.request_logging` has middleware that does so for each.

        It is kept in memory and written soon, with others, in a thread of its own: whatever becomes of a transaction
        that is open, and on behalf of whomever. While the database is away it may be dropped.

        Args:
            method: Such as `GET`.
            path: As it was asked for, with a query or without. What is secret in it is for the host to mask.
            status_code: Of the response.
            response_time_ms: How long it took, in milliseconds.
            bytes_sent: Of the response's body.
            bytes_received: Of the request's body.
            ip_address: Of the client.
            user_agent: Of the client.
            is_aborted: Whether it ended before all was sent.
            began_at: When it began, with its time zone; so long ago as it took, by default.

        Raises:
            InvalidError: A number is out of range, the address is none, or the time has no zone.
        """
        self._writer.check_open()
        for name, value, least, most in (
            ("status_code", status_code, 100, 999),
            ("response_time_ms", response_time_ms, 0, _MAX_INT),
            ("bytes_sent", bytes_sent or 0, 0, _MAX_BYTES),
            ("bytes_received", bytes_received or 0, 0, _MAX_BYTES),
        ):
            if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
                raise InvalidError(f"{name} must be a number of {least} to {most}, not {value!r}")
        if ip_address is not None:
            try:
                ip_address = str(ipaddress.ip_address(ip_address))
            except ValueError as error:
                raise InvalidError(f"ip_address must be an IPv4 or IPv6 address, not {ip_address!r}") from error
        if began_at is not None:
            _checked_time(began_at, "began_at")
        self._writer.put(
            Entry(
                "" if self._tenant_id is None else self._tenant_id.hex,
                method[:10],
                path[:_MAX_TEXT],
                route_of(path.partition("?")[0])[:_MAX_TEXT],
                int(status_code),
                round(response_time_ms),
                "" if bytes_sent is None else int(bytes_sent),
                "" if bytes_received is None else int(bytes_received),
                ip_address or "",
                (user_agent or "")[:_MAX_TEXT],
                int(is_aborted),
                time.time() - response_time_ms / 1000 if began_at is None else began_at.timestamp(),
            )
        )

    def list(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        path: str | None = None,
        status_code: int | None = None,
        before: RequestLog | None = None,
        limit: int = 100,
    ) -> builtins.list[RequestLog]:
        """Return requests, the newest first.

        Args:
            since: From this time on; the last 24 hours by default.
            until: Before this time.
            path: Only those with this path, with its ids taken out or as it was asked for.
            status_code: Only those that ended with this one.
            before: The last one of a page, to get the next.
            limit: How many at most, up to 10,000.

        Raises:
            InvalidError: An argument is out of range.
        """
        span = self._span(since, until)
        limit = _checked_limit(limit)
        return self._unit.run(
            lambda session: request_log.find(session, span, path=path, status=status_code, before=before, limit=limit),
            single=True,
        )

    def summary(
        self,
        by: RequestGroup | str = RequestGroup.PATH,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        order: RequestOrder | str = RequestOrder.REQUESTS,
        limit: int = 1000,
    ) -> RequestSummary:
        """Return what requests come to by path, method, status, hour or day: numbers, bytes and percentiles of time.

        The busiest paths come first, with `order="time"` the slowest (by their 95th percentile).

        Args:
            by: What the requests of each group have in common.
            since: From this time on; the last 24 hours by default.
            until: Before this time.
            order: Which groups come first.
            limit: How many groups at most, up to 10,000.

        Raises:
            InvalidError: An argument is out of range.
        """
        group = _checked_word(by, RequestGroup, "by")
        if group not in self._groups:
            raise InvalidError(f"by={group.value!r} goes over all tenants: it is for app.request_log")
        chosen = _checked_word(order, RequestOrder, "order")
        span, limit = self._span(since, until), _checked_limit(limit)
        groups = self._unit.run(
            lambda session: request_log.summary(session, span, group=group, order=chosen, limit=limit), single=True
        )
        return RequestSummary(group=group, groups=tuple(groups))

    def total(self, *, since: datetime | None = None, until: datetime | None = None) -> RequestStats:
        """Return what all requests come to.

        Args:
            since: From this time on; the last 24 hours by default.
            until: Before this time.

        Raises:
            InvalidError: An argument is out of range.
        """
        span = self._span(since, until)
        found = self._unit.run(
            lambda session: request_log.summary(session, span, group=None, order=RequestOrder.KEY, limit=1),
            single=True,
        )
        return found[0] if found else RequestStats(
            key=None, requests=0, errors=0, refused=0, aborted=0, bytes_sent=0, bytes_received=0, mean_ms=0.0,
            p50_ms=0, p90_ms=0, p95_ms=0, p99_ms=0, max_ms=0,
        )  # fmt: skip

    def counts(
        self,
        by: RequestGroup | str = RequestGroup.HOUR,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> builtins.list[RequestCount]:
        """Return how many requests there were in each hour or day that had any; takes less than a summary does.

        Args:
            by: `"hour"` or `"day"`, those of UTC.
            since: From this time on; the last 24 hours by default.
            until: Before this time.

        Raises:
            InvalidError: An argument is out of range.
        """
        group = _checked_word(by, RequestGroup, "by")
        if group not in (RequestGroup.HOUR, RequestGroup.DAY):
            raise InvalidError(f"by must be 'hour' or 'day', not {by!r}")
        span = self._span(since, until)
        return self._unit.run(lambda session: request_log.counts(session, span, group=group), single=True)

    def _span(self, since: datetime | None, until: datetime | None) -> Span:
        for name, value in (("since", since), ("until", until)):
            if value is not None:
                _checked_time(value, name)
        since = (until or datetime.now(UTC)) - _A_DAY if since is None else since
        if until is not None and until <= since:
            raise InvalidError(f"until ({until}) must be later than since ({since})")
        return Span(tenant_id=self._tenant_id, since=since, until=until)


class TenantRequestLog(_Requests):
    """The requests of one tenant: `library.request_log`."""

    _groups = tuple(group for group in RequestGroup if group is not RequestGroup.TENANT)

    def __init__(self, tenant_id: UUID, as_admin: Unit, writer: RequestLogWriter) -> None:
        self._tenant_id = tenant_id
        self._unit = as_admin
        self._writer = writer


class AllRequests(_Requests):
    """The requests of all tenants, and those without one: `app.request_log`. For admins of the host.

    What is recorded here belongs to no tenant.
    """

    def __init__(self, unit: Unit, writer: RequestLogWriter) -> None:
        self._tenant_id = None
        self._unit = unit
        self._writer = writer

    @property
    def buffer(self) -> RequestLogBuffer:
        """What has become of the requests that this process has recorded, for whichever tenant."""
        return self._writer.state()

    def flush(self) -> None:
        """Write all that has been recorded; otherwise that is done by itself, within a second or so.

        Raises:
            DatabaseUnavailableError: The database is away; what waits goes on waiting.
        """
        self._writer.flush()

    @property
    def _put(self) -> Callable[[Entry], None]:
        return self._writer.put


def _checked_word(value: E | str, kind: type[E], name: str) -> E:
    try:
        return kind(value)
    except ValueError as error:
        words = ", ".join(repr(each.value) for each in kind)
        raise InvalidError(f"{name} must be one of {words}, not {value!r}") from error


def _checked_limit(limit: int) -> int:
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= _MAX_PAGE:
        raise InvalidError(f"limit must be a whole number of 1 to {_MAX_PAGE}, not {limit!r}")
    return limit


def _checked_time(value: datetime, name: str) -> None:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidError(f"{name} must be a datetime with a time zone, not {value!r}")
