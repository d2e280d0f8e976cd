"""Passwords: what may be one, and argon2id."""

from __future__ import annotations

import secrets
import unicodedata
from base64 import b64encode
from typing import TYPE_CHECKING

from mindia.config import Settings
from mindia.errors import InvalidError, MindiaError, MissingExtraError
from mindia.repositories._text import storable

if TYPE_CHECKING:
    from argon2 import PasswordHasher

NO_PASSWORD = "!"  # noqa: S105 - as in /etc/shadow: stored in place of a hash, and no password has it
_MIN_CHARS = 8
_MAX_BYTES = 1024
_MAX_CHARS_GIVEN = 4 * _MAX_BYTES
"""More than any password has before it is normalised: normalising takes long for more."""


def normalised(password: str) -> str:
    """Return a password as it is hashed: in the form NFKC, so that it is the same from whichever keyboard.

    That, and that it has at least 8 characters and is never cut, is as NIST SP 800-63B, section 5.1.1.2, has it.

    Raises:
        InvalidError: It is too short, too long or no text. The message does not show it.
    """
    if not isinstance(password, str):
        raise InvalidError(f"a password must be a str, not {type(password).__name__}")
    if len(password) <= _MAX_CHARS_GIVEN and storable(password) == password:
        normal = unicodedata.normalize("NFKC", password)
        if len(normal) >= _MIN_CHARS and len(normal.encode()) <= _MAX_BYTES:
            return normal
    raise InvalidError(
        f"a password has at least {_MIN_CHARS} characters of Unicode, no NUL, and at most {_MAX_BYTES} bytes in UTF-8"
    )


class Passwords:
    """Hashes passwords and verifies them. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # The hash of no password that anybody knows. It is verified where there is no other: that takes as long.
        salt, digest = (b64encode(secrets.token_bytes(size)).rstrip(b"=").decode() for size in (16, 32))
        parameters = f"m={settings.argon2_memory_kib},t={settings.argon2_time_cost},p={settings.argon2_parallelism}"
        self._decoy = f"$argon2id$v=19${parameters}${salt}${digest}"

    def check_installed(self) -> None:
        """Raise where the library for argon2 is missing.

        Raises:
            MissingExtraError: It is not installed.
        """
        self._hasher()

    def hash(self, password: str) -> str:
        """Return the hash of a normalised password.

        Raises:
            MissingExtraError: argon2-cffi is not installed.
        """
        hasher = self._hasher()
        from argon2.exceptions import HashingError

        try:
            return hasher.hash(password)
        except HashingError as error:
            raise MindiaError(f"argon2 cannot hash a password: {error}") from error

    def verify(self, stored: str | None, password: str) -> bool:
        """Tell whether a hash is that of a normalised password. Without a hash it takes as long to say no.

        Raises:
            MissingExtraError: argon2-cffi is not installed.
        """
        hasher = self._hasher()
        from argon2.exceptions import VerificationError, VerifyMismatchError

        is_hash = stored is not None and stored.startswith("$argon2id$")
        try:
            return hasher.verify(stored if stored is not None and is_hash else self._decoy, password)
        except VerifyMismatchError:
            return False
        except VerificationError as error:
            raise MindiaError(f"argon2 cannot verify a password: {error}") from error

    def is_outdated(self, stored: str) -> bool:
        """Tell whether a hash was made with other parameters than those of the settings."""
        return self._hasher().check_needs_rehash(stored)

    def _hasher(self) -> PasswordHasher:
        try:
            from argon2 import PasswordHasher
        except ImportError as error:
            raise MissingExtraError("hashing passwords", extra="users") from error
        return PasswordHasher(
            time_cost=self._settings.argon2_time_cost,
            memory_cost=self._settings.argon2_memory_kib,
            parallelism=self._settings.argon2_parallelism,
        )
