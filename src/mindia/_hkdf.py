"""Keys for one purpose each, from the one key of the host."""

from __future__ import annotations

import hashlib
import hmac


def derived(secret_key: str, purpose: bytes) -> bytes:
    """Return 32 bytes for a purpose alone: HKDF with SHA-256 and no salt, one block (RFC 5869)."""
    extracted = hmac.digest(bytes(hashlib.sha256().digest_size), secret_key.encode(), "sha256")
    return hmac.digest(extracted, purpose + b"\x01", "sha256")
