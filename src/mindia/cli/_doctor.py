"""What `mindia doctor` looks at."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import attrs

from mindia.cli._settings import redacted

if TYPE_CHECKING:
    from mindia import Mindia
    from mindia.cli._command import Cli

_EXTRAS = (
    ("argon2", "users", "log-ins"),
    ("pypdfium2", "pdf", "PDF documents"),
    ("aiohttp", "webhooks", "webhooks"),
    ("cryptography", "webhooks", "webhooks"),
    ("av", "video", "videos and audio"),
)


@attrs.frozen
class Check:
    """What was looked at, and how it is.

    Attributes:
        name: What.
        status: `ok`, `warning` where something will not work, `error` where nothing will.
        detail: What was found.
        advice: What to do, or None.
    """

    name: str
    status: Literal["ok", "warning", "error"]
    detail: str
    advice: str | None = None


def checks(cli: Cli) -> Iterator[Check]:
    """Yield what was found, one after the other; what cannot be looked at after a failure is left out."""
    from mindia._version import __version__
    from mindia.errors import MindiaError

    configuration = cli.configuration
    place = configuration.app or configuration.home
    if place is None and configuration.database_url is not None:
        place = redacted(configuration.database_url)
    yield Check("mindia", "ok", f"{__version__}, library {place}, configuration {configuration.file or 'of no file'}")
    yield from _extras()
    yield _ffmpeg()
    try:
        app = cli.app
    except MindiaError as error:
        yield Check("library", "error", str(error), "correct what the message names; see docs/cli.md")
        return
    if app.settings.secret_key is None:
        yield Check(
            "secret key",
            "warning",
            "there is none: no signed URLs, no webhooks",
            "set MINDIA_SECRET_KEY, 16 characters",
        )
    else:
        yield Check("secret key", "ok", "there is one")
    is_up = False
    for check in _server(app):
        is_up = check.status != "error"
        yield check
    yield _storage(app)
    yield _embedder(app)
    if is_up:
        yield from _vectors(cli)


def _server(app: Mindia) -> Iterator[Check]:
    from mindia.errors import DatabaseTooOldError, DatabaseUnavailableError, MindiaError, RoleError, SchemaError

    try:
        facts = app.check()
    except DatabaseTooOldError as error:
        yield Check("server", "error", str(error), "install PostgreSQL 15 and pgvector 0.8.4, or newer")
        return
    except SchemaError as error:
        yield Check(
            "tables", "error", str(error), "run `mindia migrate`, or this version's successor where it is newer"
        )
        return
    except DatabaseUnavailableError as error:
        yield Check("server", "error", str(error), "start the server; see that address, role and password are right")
        return
    except MindiaError as error:
        yield Check("server", "error", str(error), "see docs/cli.md")
        return
    yield Check("server", "ok", f"PostgreSQL {facts.postgresql // 10000}.{facts.postgresql % 10000}, {facts.database}")
    yield Check("pgvector", "ok", str(facts.pgvector))
    yield Check("tables", "ok", "up to date")
    try:
        facts.role.check_across_tenants()
    except RoleError as error:
        yield Check("roles", "error", str(error), "see docs/security.md")
        return
    if (why := facts.role.why_not_isolated) is not None:
        yield Check("roles", "warning", why, "see docs/security.md; with one tenant that may be as you want it")
    else:
        yield Check("roles", "ok", f"{facts.role.name}, held to one tenant")


def _storage(app: Mindia) -> Check:
    from mindia.errors import MindiaError

    bucket, key, data = f"mindia-doctor-{uuid4().hex[:16]}", "doctor/probe", b"mindia"
    storage = app.storage
    try:
        storage.put(bucket, key, io.BytesIO(data), content_type="application/octet-stream")
        with storage.open(bucket, key) as stored:
            is_same = stored.read() == data
        storage.delete(bucket, [key])
        storage.delete_bucket(bucket)
    except (MindiaError, OSError) as error:
        advice = "see that folder or bucket exist, that the credentials may write and that the disk is not full"
        return Check("storage", "error", f"{storage!r}: {error}", advice)
    if not is_same:
        return Check("storage", "error", f"{storage!r} returned other bytes than were stored", "use another storage")
    return Check("storage", "ok", f"{storage!r}: wrote, read and removed an object")


def _extras() -> Iterator[Check]:
    missing = {extra: what for module, extra, what in _EXTRAS if find_spec(module) is None}
    if not missing:
        yield Check("extras", "ok", "all there")
    for extra, what in missing.items():
        yield Check("extras", "warning", f"no {what}", f"pip install 'mindia[{extra}]'")


def _ffmpeg() -> Check:
    install = "pip install 'mindia[video]', or ffmpeg of the system"
    try:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
        done = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
    except ImportError:
        return Check("ffmpeg", "warning", "imageio-ffmpeg is not installed", install)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return Check("ffmpeg", "warning", f"it does not run: {error}", install)
    return Check("ffmpeg", "ok", f"{done.stdout.partition(' Copyright')[0]} ({program})")


def _embedder(app: Mindia) -> Check:
    embedder = app._embedder
    try:
        embedder.embed_documents(["a cat on a windowsill"])
    except Exception as error:  # noqa: BLE001 - an embedder may be the host's
        return Check(
            "embedder", "error", f"{embedder!r}: {error}", "start the server of the model, and see its address and key"
        )
    return Check("embedder", "ok", embedder.model_name)


def _vectors(cli: Cli) -> Iterator[Check]:
    from mindia.errors import MindiaError

    try:
        stats = cli.library.index.stats()
    except MindiaError as error:
        yield Check("search", "warning", str(error), "name the tenant with --tenant to have its vectors looked at")
        return
    if stats.warning is not None:
        yield Check("search", "warning", stats.warning, "see docs/providers.md: reindex, or set the embedder in force")
    elif stats.missing:
        detail = f"{stats.missing} of {stats.items} items have no vector yet, {stats.waiting} wait"
        yield Check("search", "warning", detail, "run `mindia worker`")
    else:
        yield Check("search", "ok", f"{stats.items} items, all with vectors")
