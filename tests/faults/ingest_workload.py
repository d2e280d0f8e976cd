"""Ingest and delete, in several threads, until killed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
from tests.faults.child import hear, ready, report
from tests.faults.stores import Named, store

import mindia
from mindia import Library, Mindia, Resize, Settings
from mindia.domain.derivatives import PurgeDerivatives, RegenerateDerivatives
from mindia.errors import MindiaError, NotFoundError

OPERATIONS = {
    "add", "add several", "add many", "link", "copy", "update", "roll back", "stage", "delete", "delete several",
    "delete many", "maintain", "derive", "thumbnail", "purge", "regenerate",
}  # fmt: skip
"""What each thread does, in any order."""


def ingest(url: str, objects: Named, tenant_id: str, samples: str, seed: int, threads: int, sweep_s: float) -> None:
    """Report each operation when it has ended: "done …", "error …" with a typed error's code, or "defect …".

    Ends in good order when it is sent a line.

    Args:
        url: The database.
        objects: The object store.
        tenant_id: The tenant.
        samples: A folder of files to add.
        seed: Of what is done.
        threads: How many threads do it.
        sweep_s: What was staged before so many seconds is swept: longer than anybody who lives takes to add it. Who
            stages knows of it: a key that was leased much longer before would be swept while it is used.
    """
    settings = Settings(pool_timeout_s=5.0, spool_memory_bytes=100_000, staging_grace=timedelta(seconds=sweep_s))
    paths = sorted(Path(samples).iterdir())
    ended = threading.Event()
    with mindia.connect(url, storage=store(objects), settings=settings) as app:
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

    def maintain(*_: object) -> None:
        app.maintenance.remove_deleted()
        app.maintenance.sweep_staged()

    operations: dict[str, Callable[[Library, list[Path], random.Random], None]] = {
        "add": _add,
        "add several": _add_several,
        "add many": _add_many,
        "link": _link,
        "copy": _copy,
        "update": _update,
        "roll back": _roll_back,
        "stage": _stage,
        "delete": _delete,
        "delete several": _delete_several,
        "delete many": _delete_many,
        "maintain": maintain,
        "derive": _derive,
        "thumbnail": _thumbnail,
        "purge": _purge,
        "regenerate": _regenerate,
    }
    assert operations.keys() == OPERATIONS
    ready()
    while not ended.is_set():
        name = chance.choice([*operations, "add"])
        try:
            operations[name](library, paths, chance)
        except MindiaError as error:
            report(f"error: {name}: {error.code} {error.retryable}")
        except BaseException as error:
            report(f"defect: {name}: {error!r}")
            raise
        else:
            report(f"done: {name}")


def _add(library: Library, paths: list[Path], chance: random.Random) -> None:
    library.media.add(chance.choice(paths), metadata={"place": "Lisbon"})


def _add_several(library: Library, paths: list[Path], chance: random.Random) -> None:
    staged = [library.media.stage(path) for path in chance.sample(paths, 3)]
    with library.transaction() as tx:
        for each in staged:
            tx.media.add(each)


def _add_many(library: Library, paths: list[Path], chance: random.Random) -> None:
    policy = chance.choice(("store", "return", "link"))
    report = library.media.add_many(chance.choices(paths, k=4), concurrency=2, on_duplicate=policy)
    for result in report.failed:
        assert result.error is not None
        raise result.error


def _link(library: Library, paths: list[Path], chance: random.Random) -> None:
    library.media.add(chance.choice(paths), on_duplicate="link")


def _copy(library: Library, paths: list[Path], chance: random.Random) -> None:  # noqa: ARG001 - one of many
    items = library.media.find(limit=20).items
    if items:
        with suppress(NotFoundError):  # another thread was faster
            library.media.copy(chance.choice(items))


def _update(library: Library, paths: list[Path], chance: random.Random) -> None:  # noqa: ARG001 - one of many
    items = library.media.find(limit=20).items
    if items:
        with suppress(NotFoundError):  # another thread was faster
            library.media.update(chance.choice(items), description=f"number {chance.random()}")


def _roll_back(library: Library, paths: list[Path], chance: random.Random) -> None:
    # The statement is the host's own: what becomes of it in an outage comes through as it is.
    with suppress(psycopg.errors.DivisionByZero, psycopg.OperationalError), library.transaction() as tx:
        item = tx.media.add(chance.choice(paths), on_duplicate=chance.choice(("store", "link")))
        tx.media.copy(item)
        tx.media.delete(item)
        tx.connection.execute("select 1 / 0")


def _stage(library: Library, paths: list[Path], chance: random.Random) -> None:
    library.media.stage(chance.choice(paths))


def _delete(library: Library, paths: list[Path], chance: random.Random) -> None:  # noqa: ARG001 - one of many
    items = library.media.find(limit=20).items
    if items:
        with suppress(NotFoundError):  # another thread was faster
            library.media.delete(chance.choice(items))


def _delete_many(library: Library, paths: list[Path], chance: random.Random) -> None:  # noqa: ARG001 - one of many
    items = library.media.find(limit=40, order=chance.choice(("uploaded_at", "-uploaded_at"))).items
    library.media.delete_many(chance.sample(items, k=min(4, len(items))))


def _derive(library: Library, paths: list[Path], chance: random.Random) -> None:  # noqa: ARG001 - one of many
    items = library.media.find(limit=20, kind="image").items
    if items:
        with suppress(NotFoundError):  # another thread was faster
            library.media.derive(chance.choice(items).id, Resize(chance.choice((20, 30))))


def _thumbnail(library: Library, paths: list[Path], chance: random.Random) -> None:  # noqa: ARG001 - one of many
    items = library.media.find(limit=20).items
    if items:
        with suppress(NotFoundError):  # another thread was faster
            library.media.thumbnail(chance.choice(items), side=32)


def _purge(library: Library, paths: list[Path], chance: random.Random) -> None:  # noqa: ARG001 - one of many
    items = library.media.find(limit=20).items
    if items:
        with suppress(NotFoundError):  # another thread was faster
            library.media._run_purge(PurgeDerivatives(media_id=chance.choice(items).id), lambda *_: None)


def _regenerate(library: Library, paths: list[Path], chance: random.Random) -> None:  # noqa: ARG001 - one of many
    items = library.media.find(limit=20).items
    if items:
        payload = RegenerateDerivatives(media_id=chance.choice(items).id)
        with suppress(NotFoundError):  # another thread was faster
            library.media._run_regenerate(payload, lambda *_: None, since=datetime.now(UTC))


def _delete_several(library: Library, paths: list[Path], chance: random.Random) -> None:  # noqa: ARG001 - one of many
    items = sorted(library.media.find(limit=20).items, key=lambda item: item.id)
    with suppress(NotFoundError), library.transaction() as tx:
        for item in items[:2]:
            tx.media.delete(item)


def sweep(url: str, objects: Named, grace_s: float) -> None:
    """Sweep again and again, and report how much was swept each time."""
    settings = Settings(staging_grace=timedelta(seconds=grace_s))
    with mindia.connect(url, storage=store(objects), settings=settings) as app:
        ready()
        while True:
            report(str(app.maintenance.sweep_staged().removed))
