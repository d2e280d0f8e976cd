"""How far the vectors of a tenant are."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import attrs

from mindia.domain.search import SpaceStatus


class ReindexOnly(StrEnum):
    """Which items are embedded anew: those that have no vector of the model yet, or all."""

    MISSING = "missing"
    ALL = "all"


@attrs.frozen(kw_only=True)
class SpaceStats:
    """What is in one space.

    Attributes:
        id: Its number within the tenant.
        model_name: The model that made it.
        native_dimensions: Length of the model's own vectors.
        status: Whether it is being built, searched, or left over.
        items: How many items have a vector there.
        vectors: How many vectors there are: more, since long items have several.
        created_at: In UTC.
    """

    id: int
    model_name: str
    native_dimensions: int
    status: SpaceStatus
    items: int
    vectors: int
    created_at: datetime


@attrs.frozen(kw_only=True)
class IndexStats:
    """How far the vectors of a tenant are.

    Attributes:
        items: How many items there are; all of them are found by word.
        missing: How many have no vector in the space that is searched.
        waiting: How many tasks wait to embed one.
        model_name: The embedder that is in use now.
        spaces: What is in each space, the oldest first.
        warning: Why searches by vector do not go to the space of this embedder, or None.
    """

    items: int
    missing: int
    waiting: int
    model_name: str
    spaces: tuple[SpaceStats, ...]
    warning: str | None

    @property
    def searched(self) -> SpaceStats | None:
        """The space that is searched, or None where nothing has been embedded yet."""
        return next((space for space in self.spaces if space.status is SpaceStatus.ACTIVE), None)


@attrs.frozen(kw_only=True)
class Reindex:
    """Payload of the task that embeds the items of a tenant anew.

    Attributes:
        model_name: The model whose space is filled.
        only: Which items are embedded.
        since: Where it is all of them: what was embedded later is done. In UTC.
        max_failures: How many items may be left without a vector.
    """

    model_name: str
    only: ReindexOnly
    since: datetime | None
    max_failures: int


@attrs.frozen(kw_only=True)
class FailedItem:
    """An item that could not be embedded.

    Attributes:
        media_id: The item.
        error: Why.
    """

    media_id: UUID
    error: str
