"""Requests that a host has served."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import attrs


@attrs.frozen(kw_only=True)
class RequestLog:
    """One HTTP request.

    Attributes:
        id: Number of the row.
        tenant_id: Whose request it was; None before it is known.
        method: At most 10 characters.
        path: At most 512 characters.
        status_code: Of the response.
        response_time_ms: In milliseconds.
        bytes_sent: Of the response, or None.
        bytes_received: Of the request, or None.
        ip_address: Of the client, or None.
        user_agent: Of the client, or None.
        created_at: In UTC.
    """

    id: int
    tenant_id: UUID | None
    method: str
    path: str
    status_code: int
    response_time_ms: int
    bytes_sent: int | None
    bytes_received: int | None
    ip_address: str | None
    user_agent: str | None
    created_at: datetime
