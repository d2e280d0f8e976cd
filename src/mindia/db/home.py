"""The folder of an embedded application."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from mindia.errors import EmbeddedServerError, InvalidError


def home_path(home: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a home.

    Raises:
        InvalidError: It is not a path, is empty, or has a NUL.
    """
    if not isinstance(home, str | os.PathLike):
        raise InvalidError(f"home must be the path of a folder, not {home!r}")
    path = os.fspath(home)
    if not path or "\0" in path:
        raise InvalidError(f"home must be the path of a folder, not {path!r}")
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidError(f"home is {path!r}: {error}") from error


def make_home(home: Path) -> None:
    """Make the folder where it is missing, private.

    As root the account of the server may pass it, though not look into it: otherwise the server would need a right of
    root to reach its data.

    Raises:
        EmbeddedServerError: It cannot be made.
    """
    try:
        home.mkdir(mode=0o700 if os.geteuid() else 0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedServerError(f"the home {str(home)!r} cannot be made: {error.strerror}") from error


def secret_key(home: Path) -> str:
    """Return the key of a home, made at first; two processes that make it at once get the same.

    Raises:
        EmbeddedServerError: It cannot be read or made.
    """
    path = home / "secret_key"
    try:
        if not path.exists():
            _make_secret_key(path)
        return path.read_text()
    except OSError as error:
        raise EmbeddedServerError(f"the secret key of {str(home)!r} cannot be made or read: {error}") from error


def _make_secret_key(path: Path) -> None:
    draft = path.with_name(f"secret_key.{os.getpid()}.{secrets.token_hex(4)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - with a mode
        file.write(secrets.token_urlsafe(32))
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()
