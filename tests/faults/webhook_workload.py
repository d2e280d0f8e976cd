"""A worker that delivers to webhooks."""

from __future__ import annotations

from datetime import timedelta

import attrs
import psycopg
from tests.faults.child import ready, report

import mindia
from mindia import Settings

SETTINGS = Settings(
    secret_key="not so very secret",
    webhook_allow_private=True,
    webhook_retry_waits=(timedelta(milliseconds=10),) * 50,
    heartbeat=timedelta(seconds=0.2),
    worker_timeout=timedelta(seconds=1.5),
    poll=timedelta(seconds=0.05),
    pool_timeout_s=1.0,
)


def deliver(url: str, lease_s: float) -> None:
    """Run a worker until SIGTERM."""
    settings = attrs.evolve(SETTINGS, webhook_lease=timedelta(seconds=lease_s))
    with mindia.connect(url, storage=mindia.MemoryStorage(), settings=settings) as app:
        ready()
        report(f"ended {app.worker(concurrency=1).run()}")


def prepare(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """Make the tables, and return a connection that commits each statement by itself."""
    with mindia.connect(url, storage=mindia.MemoryStorage()) as app:
        app.migrate()
    return psycopg.connect(url, autocommit=True)
