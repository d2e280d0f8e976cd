"""Which space of a tenant is searched and which are filled, with the embedders at hand."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.db.units import OpenTransaction, Unit
from mindia.domain.search import EmbeddingSpace, SpaceStatus
from mindia.embedding.base import Embedder
from mindia.errors import InvalidError, SpaceMismatchError
from mindia.repositories import spaces as repository

_FRESH_S = 1.0
"""How long the space that was seen active is believed to be. What is retired stays for longer than that."""

_MAX_TENANTS = 10_000

_log = logging.getLogger("mindia.search")


@attrs.frozen(kw_only=True)
class SearchSpace:
    """Where a search by vector goes.

    Attributes:
        space_id: The space, or None where nothing has been embedded yet.
        embedder: What makes the vector of a query for it, or None where its model is not at hand.
        warning: What is not as it should be, or None.
    """

    space_id: int | None
    embedder: Embedder | None
    warning: str | None


@attrs.frozen
class _Known:
    space: SearchSpace
    seen_at: float


class Spaces:
    """The embedders of an application, and which space of each tenant is searched. Thread-safe.

    Args:
        embedder: The one in use.
        former: Those that were in use before: searches go on with them until their spaces are replaced.

    Raises:
        InvalidError: Two embedders have the same name.
    """

    def __init__(self, embedder: Embedder, former: Sequence[Embedder] = ()) -> None:
        self.embedder = embedder
        self._by_name = {each.model_name: each for each in (embedder, *former)}
        if len(self._by_name) <= len(former):
            names = ", ".join(each.model_name for each in (embedder, *former))
            raise InvalidError(f"embedders must have names of their own, or their vectors would be mixed: {names}")
        self._known: dict[UUID, _Known] = {}
        self._warned: set[tuple[UUID, str]] = set()

    def at_hand(self, model_name: str) -> Embedder | None:
        """Return the embedder of a model, where there is one."""
        return self._by_name.get(model_name)

    def for_search(self, tenant_id: UUID, unit: Unit) -> SearchSpace:
        """Return where a search by vector goes.

        Raises:
            SpaceMismatchError: The embedder makes vectors of another length than its space has.
        """
        if isinstance(unit, OpenTransaction):
            # What a transaction sees of its own changes, nobody else may believe.
            return self._search_space(unit.run(lambda session: repository.active_space(session, tenant_id)))
        known = self._known.get(tenant_id)
        if known is not None and time.monotonic() - known.seen_at <= _FRESH_S:
            unit.check()
            return known.space
        seen_at = time.monotonic()
        active = unit.run(lambda session: repository.active_space(session, tenant_id), single=True)
        space = self._search_space(active)
        if space.space_id is None:
            return space  # the first vector makes one at any moment
        if space.warning is not None and (tenant_id, space.warning) not in self._warned:
            self._warned.add((tenant_id, space.warning))
            _log.warning("tenant %s: %s", tenant_id, space.warning)
        if len(self._known) >= _MAX_TENANTS:
            self._known.clear()
            self._warned.clear()
        self._known[tenant_id] = _Known(space, seen_at)
        return space

    def forget(self, tenant_id: UUID) -> None:
        """Look again next time: the spaces of the tenant have been changed."""
        self._known.pop(tenant_id, None)

    def to_fill(self, session: Session, tenant_id: UUID) -> list[tuple[EmbeddingSpace, Embedder]]:
        """Return the spaces that a vector of each item belongs in: that of the embedder, and the one that is searched.

        Raises:
            SpaceMismatchError: The space of the embedder was replaced by that of another one, or its vectors have
                another length.
        """
        own = self.own(session, tenant_id)
        if own.status is SpaceStatus.RETIRED:
            active = repository.active_space(session, tenant_id)
            other = "no model" if active is None else repr(active.model_name)
            raise SpaceMismatchError(
                f"the vectors of {own.model_name!r} were replaced by those of {other}: use that embedder, or go back "
                "to this one with library.index.reindex()"
            )
        filled = [(own, self.embedder)]
        if own.status is SpaceStatus.BUILDING:
            active = repository.active_space(session, tenant_id)
            former = None if active is None else self.at_hand(active.model_name)
            if active is not None and former is not None:
                filled.append((active, former))
        return filled

    def own(self, session: Session, tenant_id: UUID) -> EmbeddingSpace:
        """Return the space of the embedder, which is made where it is missing.

        Raises:
            SpaceMismatchError: The space has vectors of another length.
        """
        own = repository.space_of(
            session,
            tenant_id,
            model_name=self.embedder.model_name,
            native_dimensions=self.embedder.native_dimensions,
        )
        _check_dimensions(own, self.embedder)
        return own

    def _search_space(self, active: EmbeddingSpace | None) -> SearchSpace:
        if active is None:
            return SearchSpace(space_id=None, embedder=self.embedder, warning=None)
        embedder = self.at_hand(active.model_name)
        if embedder is not None:
            _check_dimensions(active, embedder)
        warning = None
        if active.model_name != self.embedder.model_name:
            warning = _warning(active.model_name, self.embedder.model_name, is_at_hand=embedder is not None)
        return SearchSpace(space_id=active.id, embedder=embedder, warning=warning)


def _check_dimensions(space: EmbeddingSpace, embedder: Embedder) -> None:
    if space.native_dimensions != embedder.native_dimensions:
        raise SpaceMismatchError(
            f"the vectors of {space.model_name!r} have {space.native_dimensions} dimensions, and the embedder of that "
            f"name makes {embedder.native_dimensions}: give it another name, and call library.index.reindex()"
        )


def _warning(searched: str, wanted: str, *, is_at_hand: bool) -> str:
    if is_at_hand:
        return f"searches go on with the vectors of {searched!r}; library.index.reindex() makes those of {wanted!r}"
    return (
        f"the vectors are of {searched!r} and the embedder is {wanted!r}, which cannot be compared: only words are "
        f"searched. Call library.index.reindex() to make them anew, and name the embedder of {searched!r} in "
        "former_embedders to search by vector until then"
    )
