"""Direct uploads, in several threads, until killed."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import attrs
from tests.faults.child import hear, ready, report
from tests.faults.stores import Named, store
from tests.integration.upload_clients import form
from tests.integration.upload_clients import send as request

import mindia
from mindia import Library, Mindia, Settings, Upload
from mindia.errors import MindiaError, NotFoundError
from mindia.serving import MediaFiles

OPERATIONS = {"upload", "in parts", "leave", "abort", "refuse", "twice", "delete", "maintain"}
"""What each thread does, in any order."""

PART = 5 << 20

SETTINGS = Settings(
    pool_timeout_s=5.0,
    spool_memory_bytes=100_000,
    isolate_parsers=False,
    public_url="https://example.org/media",
    secret_key="not so very secret",
)


def upload(url: str, objects: Named, tenant_id: str, samples: str, seed: int, threads: int, sweep_s: float) -> None:
    """Report each operation when it has ended; as `tests.faults.ingest_workload.ingest`. Uploads last two seconds."""
    paths = sorted(Path(samples).iterdir())
    ended = threading.Event()
    settings = attrs.evolve(SETTINGS, staging_grace=timedelta(seconds=sweep_s))
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
        app.maintenance.remove_uploads()

    operations: dict[str, Callable[[Mindia, Library, list[Path], random.Random], None]] = {
        "upload": _upload,
        "in parts": _in_parts,
        "leave": _leave,
        "abort": _abort,
        "refuse": _refuse,
        "twice": _twice,
        "delete": _delete,
        "maintain": maintain,
    }
    assert operations.keys() == OPERATIONS
    ready()
    while not ended.is_set():
        (name,) = chance.choices([*operations], weights=[6, 1, 2, 1, 1, 1, 2, 1])
        try:
            operations[name](app, library, paths, chance)
        except MindiaError as error:
            report(f"error: {name}: {error.code} {error.retryable}")
        except BaseException as error:
            report(f"defect: {name}: {error!r}")
            raise
        else:
            report(f"done: {name}")


def send(app: Mindia, url: str | None, content: bytes, fields: Mapping[str, str] | None = None) -> int:
    """Send bytes where a client would, and return the status; 0 where the connection broke, or the time was over."""
    if url is None:
        return 0
    if not url.startswith(f"{SETTINGS.public_url}/"):
        body, headers = form(fields, content) if fields else (content, {})
        try:
            return request(url, method="POST" if fields else "PUT", body=body, headers=headers).status
        except (OSError, HTTPException):
            return 0
    split = urlsplit(url)
    statuses: list[str] = []
    environ = {
        "REQUEST_METHOD": "PUT",
        "PATH_INFO": split.path,
        "QUERY_STRING": split.query,
        "CONTENT_LENGTH": str(len(content)),
        "wsgi.input": io.BytesIO(content),
    }
    b"".join(MediaFiles(app)(environ, lambda status, _: statuses.append(status)))
    return int(statuses[0].split()[0])


def send_whole(app: Mindia, begun: Upload, content: bytes) -> int:
    """Send an upload in one piece."""
    return send(app, begun.url, content, begun.fields)


def _begun(library: Library, filename: str, *, file_size: int | None = None) -> Upload:
    return library.media.begin_upload(filename, expires_in=timedelta(seconds=2), file_size=file_size, part_bytes=PART)


def _upload(app: Mindia, library: Library, paths: list[Path], chance: random.Random) -> None:
    path = chance.choice(paths)
    begun = _begun(library, path.name)
    send_whole(app, begun, path.read_bytes())
    library.media.add(library.media.complete_upload(begun.id))


def _in_parts(app: Mindia, library: Library, paths: list[Path], chance: random.Random) -> None:
    content = bytearray(next(path for path in paths if path.suffix == ".wav").read_bytes())
    content += bytes(PART + 1000 - len(content))
    begun = _begun(library, "long.wav", file_size=len(content))
    for part in chance.sample(begun.parts, k=len(begun.parts)):
        send(app, part.url, bytes(content[part.start : part.start + part.size]))
    library.media.add(library.media.complete_upload(begun.id))


def _leave(app: Mindia, library: Library, paths: list[Path], chance: random.Random) -> None:
    path = chance.choice(paths)
    begun = _begun(library, path.name)
    if chance.random() < 0.7:
        send_whole(app, begun, path.read_bytes())
    if chance.random() < 0.3:
        library.media.complete_upload(begun)


def _abort(app: Mindia, library: Library, paths: list[Path], chance: random.Random) -> None:
    path = chance.choice(paths)
    begun = _begun(library, path.name)
    send_whole(app, begun, path.read_bytes())
    library.media.abort_upload(begun)
    again = send_whole(app, begun, path.read_bytes())
    assert begun.fields or again in (0, 403, 409, 410), "only a store cannot know that it has ended"


def _refuse(app: Mindia, library: Library, paths: list[Path], chance: random.Random) -> None:
    begun = _begun(library, chance.choice(paths).name)
    send_whole(app, begun, b"MZ" + chance.randbytes(2000))
    with suppress(MindiaError):
        library.media.complete_upload(begun)


def _twice(app: Mindia, library: Library, paths: list[Path], chance: random.Random) -> None:
    path = chance.choice(paths)
    begun = _begun(library, path.name)
    send_whole(app, begun, path.read_bytes())

    def complete() -> None:
        with suppress(MindiaError):
            library.media.add(library.media.complete_upload(begun))

    other = threading.Thread(target=complete)
    other.start()
    complete()
    other.join()


def _delete(app: Mindia, library: Library, paths: list[Path], chance: random.Random) -> None:  # noqa: ARG001 - one of many
    items = library.media.find(limit=20).items
    if items:
        with suppress(NotFoundError):  # another thread was faster
            library.media.delete(chance.choice(items))
