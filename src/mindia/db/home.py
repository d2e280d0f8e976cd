"""The folder of an embedded application."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from mindia.errors import EmbeddedServerError, InvalidError


def make_home(home: str | os.PathLike[str]) -> Path:
    """Return the folder, absolute, made and private where it was missing.

    Raises:
        InvalidError: The path is empty or has a NUL.
        EmbeddedServerError: It cannot be made.
    """
    if not os.fspath(home) or "\0" in os.fspath(home):
        raise InvalidError(f"home must be the path of a folder, not {os.fspath(home)!r}")
    folder = Path(home).expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedServerError(f"the home {str(folder)!r} cannot be made: {error.strerror}") from error
    return folder


def secret_key(home: Path) -> str:
    """Return the key of a home, made at first; two processes that make it at once get the same."""
    path = home / "secret_key"
    try:
        return path.read_text()
    except FileNotFoundError:
        pass
    draft = home / f"secret_key.{os.getpid()}.{secrets.token_hex(4)}"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - with a mode
        file.write(secrets.token_urlsafe(32))
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()
    return path.read_text()
