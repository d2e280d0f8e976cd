"""How the vectors of a search are compared: one by one, or by an index."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar
from uuid import UUID

import attrs

from mindia.db.units import OpenTransaction, Unit
from mindia.domain.search import SearchStrategy
from mindia.repositories import media_find, search_counts
from mindia.repositories.media_find import Selection
from mindia.repositories.search_counts import SpaceFacts

EXACT_UP_TO = 1_000
"""Vectors that are compared one by one whatever there is beside: that takes some 3 ms at most."""

_COUNTED_UP_TO, _FITTING_UP_TO = 5_000, 20_000
"""Vectors without an index, and items that fit the filters, are counted no further."""

BREADTH = 100
MAX_BREADTH = 1_000
"""What pgvector allows."""

_MAX_EXACT = 200_000
"""Above it, answers that the index is unsure of are left as they are."""

_FRESH_S, _COUNT_FRESH_S = 10.0, 30.0
_MAX_KNOWN = 10_000

# In µs, measured: a row of the tenant's, a row that is looked up by its id, the index, a row that it names, and one
# that it names with its filters.
_MARGIN = 1.3
_ROW, _LOOKED_UP, _INDEX, _NAMED, _CHECKED = 2.5, 6.0, 1_500.0, 5.0, 20.0

_TRUSTED = 1.3
"""Times the typical distance. Further off, a graph ends up in the wrong place: recall was 0.6 to 0.8, else 0.99."""

_SURE, _WIDEST = 0.1, 500
"""An answer is right wherever the query is where the index has looked at that share of all: recall was 1.0 among 5,000.
Among more it was less, and takes about as long as comparing all."""

_AGREED, _WIDER = 20, 1.15
"""After so many answers of the index that were right though they were far off, that much more is trusted."""

K = TypeVar("K")
V = TypeVar("V")


@attrs.frozen(kw_only=True)
class Route:
    """How the vectors of a search are compared.

    Attributes:
        strategy: One by one, or by the index.
        reason: Why so.
        vector_count: How many the tenant has, as far as is known.
        candidate_count: How many items fit the filters, as far as was counted.
        rows: How many the index is asked for.
        breadth: How far it is searched.
        trusted_distance: Up to which distance of the tenth nearest its answer is taken for right.
        has_passages: Whether items have several vectors, as far as is known.
    """

    strategy: SearchStrategy
    reason: str
    vector_count: int | None = None
    candidate_count: int | None = None
    rows: int = 0
    breadth: int = 0
    trusted_distance: float = math.inf
    has_passages: bool = True

    @property
    def is_small(self) -> bool:
        """Whether few vectors are read."""
        return self.strategy is not SearchStrategy.EXACT or (self.vector_count or 0) < _COUNTED_UP_TO

    def instead(self, *, near_count: int, tenth: float | None, depth: int) -> Route | None:
        """Return how else to compare them, where an answer of the index may not be the right one.

        Args:
            near_count: How many items it has named.
            tenth: How far off the tenth of them is.
            depth: How many were wanted.
        """
        if self.strategy is not SearchStrategy.INDEX or self.vector_count is None or self.vector_count > _MAX_EXACT:
            return None
        if near_count < depth:
            return self._exact(f"the index named {near_count} items, fewer than {depth}")
        wide = math.ceil(_SURE * self.vector_count)
        if tenth is None or tenth <= self.trusted_distance or self.breadth >= wide:
            return None
        far = f"the query is far from all there is ({tenth:.2f}, trusted up to {self.trusted_distance:.2f})"
        if wide > _WIDEST:
            return self._exact(far)
        return attrs.evolve(self, breadth=wide, reason=f"{far}: the index was searched further")

    def _exact(self, reason: str) -> Route:
        return attrs.evolve(
            self, strategy=SearchStrategy.EXACT, reason=f"{reason}: all vectors were compared", breadth=0
        )


NOWHERE = Route(strategy=SearchStrategy.NONE, reason="vectors were not asked for, or there are none")


class SearchRouter:
    """Chooses how vectors are compared, from counts that are remembered for some seconds. Thread-safe."""

    def __init__(self) -> None:
        self._facts: _Remembered[tuple[UUID, int], SpaceFacts] = _Remembered(_FRESH_S)
        self._counts: _Remembered[tuple[UUID, str], int] = _Remembered(_COUNT_FRESH_S)
        self._trust: dict[tuple[UUID, int], _Trust] = {}
        self._with_passages: set[tuple[UUID, int]] = set()

    def route(
        self,
        unit: Unit,
        tenant_id: UUID,
        *,
        space: int,
        kinds: Sequence[str] | None,
        selection: Selection | None,
        depth: int,
    ) -> Route:
        """Return how to compare the vectors of a space.

        Args:
            unit: Where counts are read.
            tenant_id: The tenant.
            space: The space.
            kinds: Only media of these kinds.
            selection: What else an item must fit.
            depth: How many candidates are wanted.
        """
        # Within a transaction, what is counted may not be there for others.
        is_own = isinstance(unit, OpenTransaction)
        facts = self._facts.get(
            (tenant_id, space),
            lambda: unit.run(
                lambda session: search_counts.facts(session, tenant_id, space=space, most=_COUNTED_UP_TO), single=True
            ),
            anew=is_own,
        )
        has_passages = facts.row_count != facts.item_count or (tenant_id, space) in self._with_passages
        if facts.row_count <= EXACT_UP_TO or (facts.typical_distance is None and selection is None):
            return Route(
                strategy=SearchStrategy.EXACT,
                reason=f"the tenant has {'at least ' if facts.row_count == _COUNTED_UP_TO else ''}{facts.row_count} "
                f"vectors{' and no index' if facts.row_count > EXACT_UP_TO else ''}",
                vector_count=facts.row_count,
                has_passages=has_passages,
            )
        candidates = None
        if selection is not None or kinds is not None:
            wanted = (
                Selection(parameters={"kinds": list(kinds)}) if kinds is not None and selection is None else selection
            )
            assert wanted is not None
            candidates = self._counts.get(
                (tenant_id, repr((kinds, wanted))),
                lambda: unit.run(
                    lambda session: media_find.count_up_to(session, tenant_id, wanted, most=_FITTING_UP_TO), single=True
                ),
                anew=is_own,
            )
        route = self._of(tenant_id, space, facts, candidates, depth=depth, is_filtered=selection is not None)
        return attrs.evolve(route, has_passages=has_passages)

    def learn(self, tenant_id: UUID, space: int, *, was_right: bool) -> None:
        """Note whether an answer of the index that was not trusted was right."""
        trust = self._trust.setdefault((tenant_id, space), _Trust())
        trust.agreed = trust.agreed + 1 if was_right else 0
        if trust.agreed >= _AGREED:
            trust.agreed, trust.factor = 0, trust.factor * _WIDER

    def learn_passages(self, tenant_id: UUID, space: int) -> None:
        """Note that items of a space have several vectors, whatever was counted."""
        if len(self._with_passages) >= _MAX_KNOWN:
            self._with_passages.clear()
        self._with_passages.add((tenant_id, space))

    def forget(self, tenant_id: UUID, space: int) -> None:
        """Look again next time: the index of a space has been made or dropped."""
        self._facts.forget((tenant_id, space))

    def _of(
        self, tenant_id: UUID, space: int, facts: SpaceFacts, candidates: int | None, *, depth: int, is_filtered: bool
    ) -> Route:
        total = facts.row_count
        passages = max(1.0, total / facts.item_count) if facts.item_count else 1.0
        known = f"{total} vectors" if candidates is None else f"{total} vectors and {candidates} candidates"
        exact_us = _ROW * total
        strategy = SearchStrategy.EXACT
        if candidates is not None and is_filtered and _LOOKED_UP * candidates * passages < exact_us:
            exact_us = _LOOKED_UP * candidates * passages
            strategy = SearchStrategy.EXACT_FILTERED
        rows = float(depth)
        if candidates is not None or passages > 1:
            # Some more, since what fits is not spread evenly.
            share = 1.0 if candidates is None else min(1.0, candidates * passages / total)
            rows = _MARGIN * depth * passages / share if share else math.inf
        reason = None
        if facts.typical_distance is None:
            reason = "there is no index"
        elif total * _ROW > _ROW * _MAX_EXACT and strategy is SearchStrategy.EXACT:
            pass  # however little the index may be made for it, anything else takes too long
        elif rows > MAX_BREADTH:
            reason = "the index would have to name too many"
        elif exact_us < _INDEX + (_CHECKED if is_filtered else _NAMED) * rows:
            reason = "comparing them takes less time than the index"
        if reason is not None or facts.typical_distance is None:
            return Route(strategy=strategy, reason=f"{known}: {reason}", vector_count=total, candidate_count=candidates)
        trust = self._trust.get((tenant_id, space))
        limited = min(math.ceil(min(rows, MAX_BREADTH)), MAX_BREADTH)
        return Route(
            strategy=SearchStrategy.INDEX,
            reason=f"{known}: the index takes less time than comparing them",
            vector_count=total,
            candidate_count=candidates,
            rows=limited,
            breadth=max(BREADTH, limited),
            trusted_distance=facts.typical_distance * _TRUSTED * (trust.factor if trust is not None else 1.0),
        )


@attrs.define
class _Trust:
    agreed: int = 0
    factor: float = 1.0


class _Remembered(Generic[K, V]):
    """Values that are read anew when they are old."""

    def __init__(self, fresh_s: float) -> None:
        self._values: dict[K, tuple[float, V]] = {}
        self._fresh_s = fresh_s

    def get(self, key: K, read: Callable[[], V], *, anew: bool) -> V:
        now = time.monotonic()
        known = self._values.get(key)
        if known is not None and not anew and now - known[0] <= self._fresh_s:
            return known[1]
        value = read()
        if not anew:
            if len(self._values) >= _MAX_KNOWN:
                self._values.clear()
            self._values[key] = (now, value)
        return value

    def forget(self, key: K) -> None:
        self._values.pop(key, None)
