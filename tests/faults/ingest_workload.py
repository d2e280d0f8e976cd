"""Ingest and delete, in several threads, until killed."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import psycopg
from tests.faults.child import hear, ready, report

import mindia
from mindia import Library, LocalStorage, Mindia, Settings
from mindia.errors import MindiaError, NotFoundError


def ingest(url: str, objects: str, tenant_id: str, samples: str, seed: int, threads: int) -> None:
    """Report each operation when it has ended: "done …", "error …" with a typed error's code, or "defect …".

    Ends in good order when it is sent a line.
    """
    settings = Settings(pool_timeout_s=5.0, spool_memory_bytes=100_000)
    paths = sorted(Path(samples).iterdir())
    ended = threading.Event()
    with mindia.connect(url, storage=LocalStorage(objects), settings=settings) as app:
        workers = [
            threading.Thread(target=_work, args=(app, UUID(tenant_id), paths, random.Random(seed + number), ended))
            for number in range(threads)
        ]
        for worker in workers:
            worker.start()
        hear(timeout_s=600)
        ended.set()
        for worker in workers:
            worker.join()


def _work(app: Mindia, tenant_id: UUID, paths: list[Path], chance: random.Random, ended: threading.Event) -> None:
    library = app.library(tenant_id)
    operations = [_add, _add, _add_many, _roll_back, _stage, _delete, _delete_many, _maintain]
    ready()
    while not ended.is_set():
        operation = chance.choice(operations)
        try:
            operation(app, library, paths, chance)
        except MindiaError as error:
            report(f"error {operation.__name__} {error.code} {error.retryable}")
        except BaseException as error:
            report(f"defect {operation.__name__} {error!r}")
            raise
        else:
            report(f"done {operation.__name__}")


def _add(_: Mindia, library: Library, paths: list[Path], chance: random.Random) -> None:
    library.media.add(chance.choice(paths), metadata={"place": "Lisbon"})


def _add_many(_: Mindia, library: Library, paths: list[Path], chance: random.Random) -> None:
    staged = [library.media.stage(path) for path in chance.sample(paths, 3)]
    with library.transaction() as tx:
        for each in staged:
            tx.media.add(each)


def _roll_back(_: Mindia, library: Library, paths: list[Path], chance: random.Random) -> None:
    with suppress(psycopg.errors.DivisionByZero), library.transaction() as tx:
        tx.media.add(chance.choice(paths))
        tx.connection.execute("select 1 / 0")


def _stage(_: Mindia, library: Library, paths: list[Path], chance: random.Random) -> None:
    library.media.stage(chance.choice(paths))


def _delete(_: Mindia, library: Library, paths: list[Path], chance: random.Random) -> None:  # noqa: ARG001 - one of many
    items = library.media.find(limit=20).items
    if items:
        with suppress(NotFoundError):  # another thread was faster
            library.media.delete(chance.choice(items))


def _delete_many(_: Mindia, library: Library, paths: list[Path], chance: random.Random) -> None:  # noqa: ARG001 - one of many
    items = sorted(library.media.find(limit=20).items, key=lambda item: item.id)
    with suppress(NotFoundError), library.transaction() as tx:
        for item in items[:2]:
            tx.media.delete(item)


def _maintain(app: Mindia, _: Library, paths: list[Path], chance: random.Random) -> None:  # noqa: ARG001 - one of many
    app.maintenance.remove_deleted()
    # Only what the killed have left: nobody who lives takes so long.
    app.maintenance.sweep_staged(older_than=timedelta(seconds=10))


def sweep(url: str, objects: str, grace_s: float) -> None:
    """Sweep again and again, and report how much was swept each time."""
    settings = Settings(staging_grace=timedelta(seconds=grace_s))
    with mindia.connect(url, storage=LocalStorage(objects), settings=settings) as app:
        ready()
        while True:
            report(str(app.maintenance.sweep_staged()))
