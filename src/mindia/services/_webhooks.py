"""Arguments that say something of endpoints. All raise `InvalidError` where one is not allowed."""

from __future__ import annotations

from uuid import UUID

from mindia.domain.webhooks import Webhook, WebhookEvent
from mindia.errors import InvalidError, NotFoundError
from mindia.repositories._text import storable
from mindia.services._named import shown

_MAX_DESCRIPTION = 1000
_MAX_IN_FLIGHT = 1000
_MAX_PER_SECOND = 100_000
_MAX_ID = 2**63 - 1


def id_of(webhook: Webhook | UUID) -> UUID:
    """Return the id of an endpoint, of which it may be one already."""
    if isinstance(webhook, Webhook):
        return webhook.id
    if not isinstance(webhook, UUID):
        raise InvalidError(f"webhook must be a Webhook or its UUID, not {type(webhook).__name__}")
    return webhook


def delivery_id_of(delivery: WebhookEvent | int) -> int:
    """Return the number of a delivery, of which it may be one already."""
    if isinstance(delivery, WebhookEvent):
        return delivery.id
    if not isinstance(delivery, int) or isinstance(delivery, bool):
        raise InvalidError(f"delivery must be a WebhookEvent or its number, not {type(delivery).__name__}")
    if not 0 <= delivery <= _MAX_ID:
        raise NotFoundError(f"there is no delivery {shown(delivery)}")
    return delivery


def checked_description(description: str) -> str:
    """Return a description as it is stored."""
    if not isinstance(description, str) or len(description) > _MAX_DESCRIPTION:
        raise InvalidError(f"description must be a text of at most {_MAX_DESCRIPTION} characters")
    return storable(description)


def checked_flag(given: bool, *, argument: str) -> bool:  # noqa: FBT001 - a value that is checked
    """Return what must be True or False."""
    if not isinstance(given, bool):
        raise InvalidError(f"{argument} must be True or False, not {shown(given)}")
    return given


def checked_in_flight(given: int) -> int:
    """Return how many may be in flight at once."""
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= _MAX_IN_FLIGHT:
        raise InvalidError(f"max_in_flight must be a whole number of 1 to {_MAX_IN_FLIGHT}, not {shown(given)}")
    return given


def checked_rate(given: float | None) -> float | None:
    """Return how many may begin in a second; None is no limit."""
    if given is None:
        return None
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0.001 <= given <= _MAX_PER_SECOND:
        raise InvalidError(
            f"max_per_second must be a number of 0.001 to {_MAX_PER_SECOND}, or None, not {shown(given)}"
        )
    return float(given)
