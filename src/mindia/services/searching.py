"""Searching: which way, in how many statements, and what comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from mindia.domain.search import SearchPlan, SearchResult, SearchResults, SearchStrategy
from mindia.repositories import search as repository
from mindia.repositories import vocabulary
from mindia.repositories._vectors import as_binary
from mindia.repositories.search import Found, Question
from mindia.services._spelling import corrected
from mindia.services.context import TenantContext
from mindia.services.search_query import Narrowed, Place, Words, name_place, place_after
from mindia.services.search_router import NOWHERE, Route

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

DEPTH = 100
"""How many candidates each leg names for the first pages. Later ones take twice as many each time."""

_LEAST_DEPTH, _PAGES = 50, 5
"""Where there is nothing to fuse, what a few pages show will do: half of them take a tenth less time."""

_MAX_DEPTH = 1 << 30


@attrs.frozen(kw_only=True)
class Asked:
    """A search, its arguments checked.

    Attributes:
        words: Of the leg by word, or None.
        excluded: Words that an item must not have, or None.
        vector: Of the leg by vector, or None.
        space: The space that it is in, or None.
        threshold: Smallest similarity of a result by vector.
        narrowed: What results are narrowed down to.
        text_weight: Of the leg by word.
        vector_weight: Of the leg by vector.
        limit: How many results.
        after: The place behind which, or None.
        highlight: Whether results show where the words are.
        mark: Tells this search from others, for its places.
        text: What was asked.
        warnings: What is not as it should be.
    """

    words: Words | None
    excluded: str | None
    vector: NDArray[float32] | None
    space: int | None
    threshold: float
    narrowed: Narrowed
    text_weight: float
    vector_weight: float
    limit: int
    after: str | None
    highlight: bool
    mark: str
    text: str
    warnings: tuple[str, ...]


def search(context: TenantContext, asked: Asked, *, language: str) -> SearchResults:
    """Search, and search again where the first answer may not be the right one."""
    place = None if asked.after is None else place_after(asked.after, asked.mark, max_depth=_MAX_DEPTH)
    return _Search(context, asked, language).page(place)


def respelt(context: TenantContext, words: Words, *, language: str) -> str | None:
    """Return a query with words of the tenant's in place of misspelt ones, if there are some."""
    lookups = context.as_viewer.run(
        lambda session: vocabulary.look_up(session, context.tenant_id, words.positive, language=language), single=True
    )
    return corrected(words.full, lookups)


class _Search:
    def __init__(self, context: TenantContext, asked: Asked, language: str) -> None:
        self._context = context
        self._asked = asked
        self._language = language
        self._vector = None if asked.vector is None else as_binary(asked.vector)

    def page(self, place: Place | None) -> SearchResults:
        asked = self._asked
        first_depth = _first_depth(asked) if place is None else place.first_depth
        route = self._route(depth=first_depth)
        if place is None:
            place = Place(0, first_depth, None, None, first_depth=first_depth, breadth=route.breadth)
            found, route, was_repeated = self._first(place, route)
            place = attrs.evolve(place, breadth=route.breadth)
        else:
            route, was_repeated = self._later(route, place), False
            found = self._ask(route, place, limit=asked.limit + 1)
        results = list(found.results)
        while len(results) <= asked.limit and (found.word_count == place.depth or found.vector_count == place.depth):
            place = attrs.evolve(place, floor=place.depth, depth=2 * place.depth, score=None, media_id=None)
            route = self._later(route, place)
            found = self._ask(route, place, limit=asked.limit + 1 - len(results))
            results += found.results
        return SearchResults(
            query=asked.text,
            items=tuple(results[: asked.limit]),
            plan=SearchPlan(
                strategy=route.strategy,
                reason=route.reason,
                vector_count=route.vector_count,
                candidate_count=route.candidate_count,
                breadth=route.breadth or None,
                was_repeated=was_repeated,
            ),
            next=self._next(results, place),
            warnings=asked.warnings,
        )

    def _next(self, results: list[SearchResult], place: Place) -> str | None:
        asked = self._asked
        if len(results) <= asked.limit:
            return None
        last = results[asked.limit - 1]
        rank = min(rank for rank in (last.text_rank, last.vector_rank) if rank is not None)
        depth = place.first_depth
        while depth < rank:
            depth *= 2
        floor = 0 if depth == place.first_depth else depth // 2
        reached = attrs.evolve(place, floor=floor, depth=depth, score=last.score, media_id=last.media.id)
        return name_place(reached, asked.mark)

    def _route(self, *, depth: int) -> Route:
        asked = self._asked
        if asked.vector is None or asked.space is None:
            return NOWHERE
        return self._context.router.route(
            self._context.as_viewer,
            self._context.tenant_id,
            space=asked.space,
            kinds=asked.narrowed.kinds,
            selection=asked.narrowed.selection,
            depth=depth,
        )

    def _first(self, place: Place, route: Route) -> tuple[Found, Route, bool]:
        found = self._ask(route, place, limit=self._asked.limit + 1)
        wanted = place.depth if route.candidate_count is None else min(place.depth, route.candidate_count)
        was_repeated = False
        first = found
        while other := route.instead(near_count=found.near_count, tenth=found.tenth, depth=wanted):
            route, was_repeated = other, True
            found = self._ask(route, place, limit=self._asked.limit + 1)
        space = self._asked.space
        if was_repeated and first.near_count >= wanted and space is not None:
            self._context.router.learn(self._context.tenant_id, space, was_right=_nearest(first) == _nearest(found))
        return found, route, was_repeated

    def _later(self, route: Route, place: Place) -> Route:
        """Return how vectors are compared for a page behind the candidates that the index has named."""
        if place.depth == place.first_depth and place.breadth and route.strategy is not SearchStrategy.NONE:
            return attrs.evolve(
                route, strategy=SearchStrategy.INDEX, rows=max(route.rows, place.depth), breadth=place.breadth
            )
        if route.strategy is SearchStrategy.INDEX:
            return attrs.evolve(route, strategy=SearchStrategy.EXACT, reason="the page is deeper than the index goes")
        return route

    def _ask(self, route: Route, place: Place, *, limit: int) -> Found:
        context, asked = self._context, self._asked
        is_by_vector = route.strategy is not SearchStrategy.NONE
        is_deeper = place.depth > place.first_depth
        has_head = is_deeper and place.breadth > 0 and is_by_vector and route.strategy is not SearchStrategy.INDEX
        question = Question(
            words=None if asked.words is None else asked.words.full,
            excluded=asked.excluded,
            language=self._language,
            vector=self._vector if is_by_vector else None,
            space=asked.space,
            threshold=asked.threshold,
            kinds=asked.narrowed.kinds,
            selection=asked.narrowed.selection,
            strategy=route.strategy,
            rows=max(route.rows, place.first_depth) if has_head else route.rows,
            breadth=place.breadth if has_head else route.breadth,
            head=place.first_depth if has_head else 0,
            depth=place.depth,
            floor=place.floor,
            place=None if place.score is None or place.media_id is None else (place.score, place.media_id),
            text_weight=asked.text_weight,
            vector_weight=asked.vector_weight,
            limit=limit,
            highlight=asked.highlight,
            has_passages=route.has_passages,
            is_small=asked.narrowed.selection is None and route.is_small,
        )
        found = self._run(question)
        if not question.has_passages and found.named_count == place.depth > found.near_count and asked.space:
            # An item was given passages since they were counted: some of the nearest vectors are of the same one.
            context.router.learn_passages(context.tenant_id, asked.space)
            found = self._run(attrs.evolve(question, has_passages=True))
        return found

    def _run(self, question: Question) -> Found:
        context = self._context
        return context.as_viewer.run(
            lambda session: repository.search(session, context.tenant_id, question), single=True
        )


def _first_depth(asked: Asked) -> int:
    least = DEPTH if asked.words is not None else min(max(_PAGES * asked.limit, _LEAST_DEPTH), DEPTH)
    return max(least, asked.limit + 1)  # one more than are shown tells whether there is another page


def _nearest(found: Found) -> set[object]:
    return {result.media.id for result in found.results if result.vector_rank is not None and result.vector_rank <= 10}
