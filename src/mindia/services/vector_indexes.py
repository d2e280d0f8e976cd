"""Keeps the indexes over the vectors of large tenants."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from mindia.db import vector_indexes as ddl
from mindia.db.vector_indexes import VectorSpace
from mindia.repositories import vector_indexes as repository
from mindia.repositories.vector_indexes import LargeSpace

if TYPE_CHECKING:
    from mindia.db.database import Database

_CHANGED_BY = 0.2
"""After so much growth, what is on record of an index is looked at anew."""

_LEAD = 1.25
"""How much larger than a space that has an index another one must be to get one in its place."""

_log = logging.getLogger("mindia.maintenance")


class IndexStrategy(Protocol):
    """Says which vectors have an index of their own.

    Attributes:
        least: Spaces with fewer vectors are not even counted.
    """

    @property
    def least(self) -> int: ...  # noqa: D102 - above

    def wanted(self, large: Sequence[LargeSpace], having: frozenset[VectorSpace]) -> list[LargeSpace]:
        """Return the spaces that are to have an index.

        Args:
            large: The spaces with at least `least` vectors, the largest first.
            having: Those that have an index.
        """
        ...


@attrs.frozen(kw_only=True)
class OwnIndexes:
    """An index for each space from so many vectors on, as long as there are not too many.

    Each index is looked at when statements on the table are planned, and by every row that is written: a hundred of
    them add a quarter of a millisecond to a plan, and a tenth to what a row takes. Below half of what it takes to get
    one, an index goes, and where there are too many for a space that is a quarter larger.

    Attributes:
        make_from: Vectors that it takes to get an index.
        most: How many indexes there are; the largest spaces have them.
    """

    make_from: int = 1_001
    most: int = 100

    @property
    def least(self) -> int:
        """Vectors that it takes to keep an index."""
        return max(1, self.make_from // 2)

    def wanted(self, large: Sequence[LargeSpace], having: frozenset[VectorSpace]) -> list[LargeSpace]:
        """Return the spaces that are to have an index."""

        def weight(space: LargeSpace) -> float:
            has_index = VectorSpace(space.tenant_id, space.space_id) in having
            if space.row_count < (self.least if has_index else self.make_from):
                return 0.0
            # Else two of about the same size would take the last place from each other again and again.
            return space.row_count * (_LEAD if has_index else 1.0)

        ranked = sorted((space for space in large if weight(space)), key=weight, reverse=True)
        return ranked[: self.most]


@attrs.frozen(kw_only=True)
class IndexChanges:
    """What was done to the indexes over vectors.

    Attributes:
        made: How many were made.
        dropped: How many were dropped, those among them that another call has left unfinished.
        is_elsewhere: Whether nothing was done, since another process is at it.
    """

    made: int = 0
    dropped: int = 0
    is_elsewhere: bool = False


def keep_indexes(database: Database, strategy: IndexStrategy) -> IndexChanges:
    """Make the indexes that are missing and drop those that are not wanted any more.

    Nothing is held up by that: both are done concurrently. What is on record says which can be used: it is written once
    an index is whole, and taken away before one is dropped. Cut short wherever, the next call goes on.
    """
    with database.as_owner() as session, ddl.locked(session.connection) as has_lock:
        if not has_lock:
            return IndexChanges(is_elsewhere=True)
        made = dropped = 0
        usable = set()
        for name, is_valid in ddl.indexes(session.connection).items():
            if is_valid:
                usable.add(name)
            else:
                _log.info("the index %s was left unfinished, and is dropped", name)
                ddl.drop(session.connection, name)
                dropped += 1
        recorded = {
            VectorSpace(each.tenant_id, each.space_id): each.row_count for each in repository.on_record(session)
        }
        large = repository.large_spaces(session, least=strategy.least)
        having = frozenset(
            space
            for space in (VectorSpace(each.tenant_id, each.space_id) for each in large)
            if space.index_name in usable
        )
        wanted = {VectorSpace(each.tenant_id, each.space_id): each for each in strategy.wanted(large, having)}
        for space in recorded:
            if space not in wanted or space.index_name not in usable:
                repository.forget(session, space.tenant_id, space.space_id)
        for name in usable - {space.index_name for space in wanted}:
            ddl.drop(session.connection, name)
            dropped += 1
        for space, facts in wanted.items():
            if space.index_name not in usable:
                ddl.create(
                    session.connection,
                    space,
                    row_count=facts.row_count,
                    vector_schema=database.facts().vector_schema or "",
                )
                made += 1
            before = recorded.get(space) if space.index_name in usable else None
            if before is None or abs(facts.row_count - before) > _CHANGED_BY * before:
                repository.put(session, facts)
    return IndexChanges(made=made, dropped=dropped)
