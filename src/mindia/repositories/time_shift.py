"""For tests of hosts: all that waits for a time, made to have waited for longer."""

from __future__ import annotations

from datetime import timedelta

from mindia.db.session import Session

_TASKS = "update mindia.tasks set scheduled_for = scheduled_for - %s::interval where status = 'pending'"
_SCHEDULES = "update mindia.task_schedules set last_tick = last_tick - %s::interval"
_IMAGES = "update mindia.images set expires_at = expires_at - %s::interval where expires_at is not null"
_VIDEOS = "update mindia.videos set expires_at = expires_at - %s::interval where expires_at is not null"
_AUDIOS = "update mindia.audios set expires_at = expires_at - %s::interval where expires_at is not null"
_DOCUMENTS = "update mindia.documents set expires_at = expires_at - %s::interval where expires_at is not null"
_API_KEYS = "update mindia.api_keys set expires_at = expires_at - %s::interval where expires_at is not null"
_LOGIN_FAILURES = "update mindia.login_failures set expires_at = expires_at - %s::interval"
_STAGED = "update mindia.staged_objects set leased_at = leased_at - %s::interval"
_DELETED = "update mindia.deleted_objects set next_attempt_at = next_attempt_at - %s::interval"
_UPLOADS = """
update mindia.uploads set expires_at = expires_at - %(by)s::interval, sweep_at = sweep_at - %(by)s::interval
"""
_EVENTS = """
update mindia.webhook_events
set next_attempt_at = next_attempt_at - %(by)s::interval, held_until = held_until - %(by)s::interval
where delivery_status = 'pending'
"""
_ENDPOINTS = """
update mindia.webhook_states
set open_until = open_until - %(by)s::interval, failing_since = failing_since - %(by)s::interval,
    tokens_at = tokens_at - %(by)s::interval
"""


def shift(session: Session, by: timedelta) -> None:
    """Move every time that something waits for, or is counted from, into the past."""
    session.execute(_TASKS, (by,))
    session.execute(_SCHEDULES, (by,))
    session.execute(_IMAGES, (by,))
    session.execute(_VIDEOS, (by,))
    session.execute(_AUDIOS, (by,))
    session.execute(_DOCUMENTS, (by,))
    session.execute(_API_KEYS, (by,))
    session.execute(_LOGIN_FAILURES, (by,))
    session.execute(_STAGED, (by,))
    session.execute(_DELETED, (by,))
    session.execute(_UPLOADS, {"by": by})
    session.execute(_EVENTS, {"by": by})
    session.execute(_ENDPOINTS, {"by": by})
