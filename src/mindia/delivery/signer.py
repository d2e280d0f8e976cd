"""Signs what is delivered, with the secrets of its endpoint as they are stored."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from hmac import HMAC
from uuid import UUID

from mindia.config import Settings
from mindia.delivery.secrets import SecretBox
from mindia.delivery.signing import headers, keyed
from mindia.domain.webhooks import ClaimedDelivery

_MAX_KEYS = 1024
"""Kept decrypted, for as long as there are deliveries for their endpoints."""


class Signer:
    """Signs deliveries, and keeps the keys of the endpoints that it has lately signed for. Thread-safe.

    Args:
        settings: With the key that secrets are encrypted with.
    """

    def __init__(self, settings: Settings) -> None:
        self._box = SecretBox(settings)
        self._key = lru_cache(_MAX_KEYS)(self._open)

    def headers(self, delivery: ClaimedDelivery, *, at: datetime) -> dict[str, str]:
        """Return the headers that a delivery is sent with.

        Args:
            delivery: What is sent.
            at: When it is sent.

        Raises:
            InvalidError: A secret cannot be decrypted.
            MissingExtraError: cryptography is not installed.
        """
        sealed_secrets, tenant_id, webhook_id = delivery.sealed_secrets, delivery.tenant_id, delivery.webhook_id
        return headers(delivery, [self._key(sealed, tenant_id, webhook_id) for sealed in sealed_secrets], at=at)

    def _open(self, sealed: str, tenant_id: UUID, webhook_id: UUID) -> HMAC:
        return keyed(self._box.open(sealed, tenant_id=tenant_id, webhook_id=webhook_id))
