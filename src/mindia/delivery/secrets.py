"""Signing secrets at rest: encrypted with a key that is derived from the host's."""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from mindia._hkdf import derived
from mindia.config import Settings
from mindia.errors import InvalidError, MissingExtraError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PURPOSE = b"mindia webhook secrets v1"
_FORMAT = "v1"
_NONCE_BYTES = 12


@attrs.frozen
class _Key:
    id: str
    cipher: AESGCM


class SecretBox:
    """Encrypts secrets with AES-256-GCM, bound to their endpoint. Thread-safe.

    What is stored is `v1.<key>.<nonce and ciphertext>`; the middle part tells which key of the host it takes.

    Args:
        settings: With the key of the host, and those before it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def check(self) -> None:
        """Raise where nothing can be encrypted.

        Raises:
            InvalidError: The host has no key.
            MissingExtraError: cryptography is not installed.
        """
        _ = self._keys
        if self._settings.secret_key is None:
            raise InvalidError(
                "webhooks need Settings.secret_key, which their signing secrets are encrypted with: make one with "
                "secrets.token_urlsafe(32), and keep it"
            )

    def seal(self, secret: bytes, *, tenant_id: UUID, webhook_id: UUID) -> str:
        """Return a secret as it is stored.

        Raises:
            InvalidError: The host has no key.
            MissingExtraError: cryptography is not installed.
        """
        self.check()
        key, nonce = self._keys[0], os.urandom(_NONCE_BYTES)
        sealed = key.cipher.encrypt(nonce, secret, _bound_to(tenant_id, webhook_id))
        return f"{_FORMAT}.{key.id}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, *, tenant_id: UUID, webhook_id: UUID) -> bytes:
        """Return a secret that `seal` has made.

        Raises:
            InvalidError: It was made with a key that the settings do not have, or for another endpoint.
            MissingExtraError: cryptography is not installed.
        """
        from cryptography.exceptions import InvalidTag

        form, _, rest = sealed.partition(".")
        key_id, _, data = rest.partition(".")
        try:
            raw = base64.urlsafe_b64decode(data) if form == _FORMAT else b""
        except ValueError:
            raw = b""
        if len(raw) <= _NONCE_BYTES:
            raise InvalidError(f"the signing secret of webhook {webhook_id} was not stored by Mindia")
        for key in self._keys:
            if key.id == key_id:
                try:
                    return key.cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound_to(tenant_id, webhook_id))
                except InvalidTag:
                    raise InvalidError(
                        f"the signing secret of webhook {webhook_id} cannot be read: it was changed in the database"
                    ) from None
        raise InvalidError(
            f"the signing secret of webhook {webhook_id} was encrypted with another key than Settings.secret_key: add "
            "that one to Settings.previous_secret_keys, or rotate the secret"
        )

    @property
    def prefix(self) -> str | None:
        """What stored secrets begin with that are encrypted with the present key; None where there is no key."""
        return None if self._settings.secret_key is None else f"{_FORMAT}.{self._keys[0].id}."

    @cached_property
    def _keys(self) -> tuple[_Key, ...]:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingExtraError("encrypting the signing secrets of webhooks", "webhooks") from error
        present = () if self._settings.secret_key is None else (self._settings.secret_key,)
        found = []
        for secret_key in (*present, *self._settings.previous_secret_keys):
            key = derived(secret_key, _PURPOSE)
            found.append(_Key(hashlib.sha256(key).hexdigest()[:8], AESGCM(key)))
        return tuple(found)


def _bound_to(tenant_id: UUID, webhook_id: UUID) -> bytes:
    return tenant_id.bytes + webhook_id.bytes
