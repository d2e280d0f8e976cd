"""Requests that a host has served, and what they come to."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import attrs

from mindia.domain._tables import Columns, Tabular
from mindia.domain.media import MediaKind


@attrs.frozen(kw_only=True)
class RequestLog:
    """One HTTP request.

    Attributes:
        id: Number of the row.
        tenant_id: Whose request it was; None before it is known.
        method: At most 10 characters.
        path: As it was asked for, with its query, whose sensitive values are masked; at most 512 characters.
        route: The path without its query, `{id}` in place of each id; at most 512 characters.
        status_code: Of the response; 499 where the client went before there was one.
        response_time_ms: In milliseconds, until the last byte was sent.
        bytes_sent: Of the response's body, or None.
        bytes_received: Of the request's body, or None.
        ip_address: Of the client, or None.
        user_agent: Of the client, or None.
        is_aborted: Whether it ended before all was sent.
        created_at: When it began, in UTC.
    """

    id: int
    tenant_id: UUID | None
    method: str
    path: str
    route: str | None
    status_code: int
    response_time_ms: int
    bytes_sent: int | None
    bytes_received: int | None
    ip_address: str | None
    user_agent: str | None
    is_aborted: bool
    created_at: datetime


class RequestGroup(StrEnum):
    """What requests have in common that are summed up together; hours and days are those of UTC."""

    PATH = "path"
    METHOD = "method"
    STATUS = "status"
    HOUR = "hour"
    DAY = "day"
    TENANT = "tenant"


class RequestOrder(StrEnum):
    """Which groups come first: those with most requests, longest times, most bytes, most errors, or by their key."""

    REQUESTS = "requests"
    TIME = "time"
    BYTES = "bytes"
    ERRORS = "errors"
    KEY = "key"


@attrs.frozen(kw_only=True)
class RequestStats:
    """What the requests of a group come to.

    Attributes:
        key: What they have in common: a path with ids taken out, a method, a status, the beginning of an hour or a day,
            or a tenant's id; None for all requests, and for those without a tenant.
        requests: How many there were.
        errors: How many of them ended with a status of 500 or more.
        refused: How many ended with one of 400 to 499.
        aborted: How many ended before all was sent.
        bytes_sent: Of all responses.
        bytes_received: Of all requests.
        mean_ms: The mean of their times, in milliseconds.
        p50_ms: Half of them took no longer.
        p90_ms: The same for nine of ten.
        p95_ms: The same for 95 of a hundred.
        p99_ms: The same for 99 of a hundred.
        max_ms: The longest one.
    """

    key: str | int | datetime | UUID | None
    requests: int
    errors: int
    refused: int
    aborted: int
    bytes_sent: int
    bytes_received: int
    mean_ms: float
    p50_ms: int
    p90_ms: int
    p95_ms: int
    p99_ms: int
    max_ms: int

    @property
    def error_rate(self) -> float:
        """The share of errors, from 0 to 1."""
        return self.errors / self.requests if self.requests else 0.0


@attrs.frozen(kw_only=True)
class RequestSummary(Tabular):
    """Sums by group; goes over them, counts them, and gives them out as a table.

    Attributes:
        group: What the requests of each have in common.
        groups: The sums.
    """

    group: RequestGroup
    groups: tuple[RequestStats, ...]

    def __iter__(self) -> Iterator[RequestStats]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def to_csv(self) -> str:
        """Return a table with a line for each group, below one with the names of the columns (RFC 4180)."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow([self.group, *_COLUMNS])
        for each in self.groups:
            key = each.key.isoformat() if isinstance(each.key, datetime) else each.key
            writer.writerow([key, *(getattr(each, name) for name in _COLUMNS)])
        return text.getvalue()

    def _columns(self) -> Columns:
        keys: Columns = {str(self.group): [each.key for each in self.groups]}
        return {**keys, **{name: [getattr(each, name) for each in self.groups] for name in _COLUMNS}}


_COLUMNS = (*(field.name for field in attrs.fields(RequestStats) if field.name != "key"), "error_rate")


@attrs.frozen(kw_only=True)
class RequestCount:
    """How many requests there were in an hour or a day.

    Attributes:
        begins_at: When it begins, in UTC.
        requests: How many.
    """

    begins_at: datetime
    requests: int


@attrs.frozen(kw_only=True)
class RequestLogBuffer:
    """What has become of the requests that this process has recorded.

    Attributes:
        waiting: Are in memory, to be written.
        written: Are in the database.
        dropped: Are lost: the database was away for too long, or there is no such tenant.
    """

    waiting: int
    written: int
    dropped: int


class TimeStep(StrEnum):
    """What is counted together, in UTC."""

    HOUR = "hour"
    DAY = "day"


@attrs.frozen(kw_only=True)
class StorageStats:
    """What was stored in an hour or a day, and is still there.

    Attributes:
        begins_at: When it begins, in UTC.
        kind: The kind of the items.
        items: How many.
        total_bytes: Their sizes together.
    """

    begins_at: datetime
    kind: MediaKind
    items: int
    total_bytes: int


@attrs.frozen(kw_only=True)
class TaskStats:
    """What became of the tasks that were enqueued in an hour or a day.

    Attributes:
        begins_at: When it begins, in UTC.
        kind: Their type.
        tasks: How many.
        completed: How many of them have succeeded.
        failed: How many have failed for good.
        cancelled: How many were called off.
        retries: How often they were tried again, all together.
        mean_run_s: How long the last attempt of those that succeeded took, in seconds, on average.
        mean_wait_s: How long they had waited for it since they were due.
    """

    begins_at: datetime
    kind: str
    tasks: int
    completed: int
    failed: int
    cancelled: int
    retries: int
    mean_run_s: float
    mean_wait_s: float
