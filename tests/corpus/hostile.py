"""Files that mean harm, made on the spot: each with its name and what may come of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from mindia.errors import CorruptMediaError, MediaError, TooLargeError, UnsupportedTypeError


@attrs.frozen(kw_only=True)
class Canary:
    """What no parser may touch: a file that can be read, and a port of this machine where somebody listens."""

    path: Path
    port: int

    @property
    def url(self) -> str:
        """The file, served from the port."""
        return f"http://127.0.0.1:{self.port}/{self.path.name}"

    @property
    def sources(self) -> list[str]:
        """All ways to write either of them."""
        return [str(self.path), f"file:{self.path}", f"file://{self.path}", self.url, f"tcp://127.0.0.1:{self.port}"]


@attrs.frozen(kw_only=True)
class HostileFile:
    """A file and what may come of it.

    Attributes:
        filename: What it is called when it is handed in.
        make: Returns its bytes; made anew each time, since some are large.
        refused: Errors that it may be refused with.
        accepted: The type that it may be taken in as, or None where it must be refused.
    """

    filename: str
    make: Callable[[Canary], bytes]
    refused: tuple[type[MediaError], ...] = ()
    accepted: str | None = None


CORRUPT = (CorruptMediaError,)
TOO_LARGE = (TooLargeError,)
UNSUPPORTED = (UnsupportedTypeError,)
UNREADABLE = (CorruptMediaError, TooLargeError)
"""For those where it hangs on the version of the parser which of its limits comes first."""


def harmless(filename: str, content_type: str, make: Callable[[Canary], bytes]) -> HostileFile:
    """What does no harm in it is taken in, as what it is."""
    return HostileFile(filename=filename, make=make, accepted=content_type)


def refused(filename: str, make: Callable[[Canary], bytes], errors: tuple[type[MediaError], ...]) -> HostileFile:
    """It is refused."""
    return HostileFile(filename=filename, make=make, refused=errors)


def either(
    filename: str,
    content_type: str,
    make: Callable[[Canary], bytes],
    errors: tuple[type[MediaError], ...] = UNREADABLE,
) -> HostileFile:
    """Parsers may stop at what is wrong, or read over it."""
    return HostileFile(filename=filename, make=make, refused=errors, accepted=content_type)
