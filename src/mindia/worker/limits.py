"""Limits of what runs at once, looked at."""

from __future__ import annotations

from mindia.errors import InvalidError
from mindia.repositories.task_claims import Limits


def checked_limits(*, max_running: int | None, max_per_tenant: int | None, max_per_second: float | None) -> Limits:
    """Return limits, if they can be kept.

    Raises:
        InvalidError: One is not greater than nothing.
    """
    for name, value in (
        ("max_running", max_running),
        ("max_running_per_tenant", max_per_tenant),
        ("max_per_second", max_per_second),
    ):
        kind = (int, float) if name == "max_per_second" else int
        if value is not None and (not isinstance(value, kind) or not 0 < value < 2**31):
            raise InvalidError(f"{name} must be greater than 0, not {value!r}")
    return Limits(max_running=max_running, max_per_tenant=max_per_tenant, max_per_second=max_per_second)
