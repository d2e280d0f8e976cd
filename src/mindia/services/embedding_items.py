"""Making the vectors of items: what there is to say about each is put into words, embedded, and written."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from mindia.db.session import Session, Statement
from mindia.domain.media import Image, Media
from mindia.domain.search import EmbeddingSpace
from mindia.embedding.base import Embedder, ImageEmbedder, stored_vectors
from mindia.errors import NotFoundError, TransactionConflictError
from mindia.repositories import embeddings as repository
from mindia.repositories import media as media_repository
from mindia.repositories import passages as passage_repository
from mindia.repositories import vocabulary
from mindia.repositories._vectors import as_text
from mindia.repositories.embeddings import NewVector, Texts
from mindia.repositories.passages import StoredPassage
from mindia.services.context import TenantContext
from mindia.services.passages import PICTURE, locator_of, pages_of
from mindia.services.pictures import Pictures, Seen

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

_MAX_TRIES = 5
_MAX_TEXT = 8_000
"""The beginning of a long text tells what it is about."""

_MAX_VECTORS = 2_000
"""That are in memory at a time, unless one item has more."""

_log = logging.getLogger("mindia.search")

Outcomes = dict[UUID, Exception | None]


@attrs.frozen(kw_only=True)
class _Found:
    """What was read of the items."""

    media: dict[UUID, Media]
    texts: dict[UUID, Texts]
    passages: list[StoredPassage]
    spaces: list[tuple[EmbeddingSpace, Embedder]]
    there: dict[int, dict[tuple[UUID, int], str]]


@attrs.define(kw_only=True)
class _Item:
    """An item that is being embedded.

    Attributes:
        media: The item.
        texts: What there is to say about it.
        seen: What a model says of its pictures.
        pages: Its pages, where they are to be kept.
        described: By number of the passage, the text that is embedded and where it is; 0 for the item as a whole.
        vectors: By space, what is to be written.
        error: What went wrong, or None.
    """

    media: Media
    texts: Texts
    seen: Seen
    pages: list[StoredPassage]
    described: dict[int, tuple[str, dict[str, object] | None]]
    vectors: dict[int, list[NewVector]] = attrs.field(factory=dict)
    error: Exception | None = None


def embed_items(context: TenantContext, media_ids: Iterable[UUID], *, afresh: bool = False) -> Outcomes:
    """Describe items, embed them with their passages, and store the vectors in all spaces that are filled.

    What has a vector of the same words already is left as it is.

    Args:
        context: Whose they are.
        media_ids: The items.
        afresh: Whether all of it is made anew: the descriptions of pictures and all vectors.

    Returns:
        For each item None, or why it could not be embedded. What could be of its passages is kept.

    Raises:
        SpaceMismatchError: The embedder has been replaced by another one.
    """
    outcomes: Outcomes = {}
    left = sorted(set(media_ids))
    for _ in range(_MAX_TRIES):
        if not left:
            break
        done = _Round(context, left, afresh=afresh).run()
        outcomes |= done
        left = [media_id for media_id in left if media_id not in done]
    for media_id in left:
        outcomes[media_id] = TransactionConflictError(
            f"the media item {media_id} was changed again and again while it was embedded"
        )
    return outcomes


class _Round:
    """One try at embedding items; those that are changed meanwhile are left for the next."""

    def __init__(self, context: TenantContext, media_ids: Sequence[UUID], *, afresh: bool) -> None:
        self._context = context
        self._media_ids = media_ids
        self._afresh = afresh

    def run(self) -> Outcomes:
        """Return what became of the items, those left out that were changed meanwhile."""
        context = self._context
        found = context.as_member.run(self._read)
        outcomes: Outcomes = {
            media_id: NotFoundError(f"there is no media item {media_id}")
            for media_id in self._media_ids
            if media_id not in found.media or media_id not in found.texts
        }
        items: list[_Item] = []
        pictures = Pictures(context, afresh=self._afresh)
        for media_id in self._media_ids:
            if media_id in outcomes:
                continue
            try:
                items.append(self._described(found.media[media_id], found, pictures))
            except Exception as error:  # noqa: BLE001 - whatever a describer of the host's raises, it is of this item
                outcomes[media_id] = error
        for group in _groups(items):
            for space, embedder in found.spaces:
                self._embed(group, space, embedder, found.there[space.id], pictures)
            for item in group:
                if self._write(item, found.spaces):
                    outcomes[item.media.id] = item.error
                item.vectors.clear()
        return outcomes

    def _read(self, session: Session) -> _Found:
        context = self._context
        spaces = context.spaces.to_fill(session, context.tenant_id)
        # In this order: texts that are changed in between are younger than the version, and so noticed.
        texts = repository.texts(session, context.tenant_id, self._media_ids)
        media = media_repository.get_many(session, context.tenant_id, self._media_ids)
        return _Found(
            media={each.id: each for each in media},
            texts=texts,
            passages=passage_repository.passages(session, context.tenant_id, self._media_ids),
            spaces=spaces,
            there={
                space.id: repository.descriptions(session, context.tenant_id, self._media_ids, space_id=space.id)
                for space, _ in spaces
            },
        )

    def _described(self, media: Media, found: _Found, pictures: Pictures) -> _Item:
        context = self._context
        texts = found.texts[media.id]
        stored = [each for each in found.passages if each.entity_id == media.id]
        seen = pictures.seen(media, texts, stored)
        pages = [] if any(each.source == "page" for each in stored) else pages_of(media, texts.body)
        description = context.describer.describe(
            media,
            text=" ".join(filter(None, (media.description, seen.text, texts.body[:_MAX_TEXT]))),
            open_media=lambda: context.storage.open(context.bucket(), media.s3_key),
        )
        described: dict[int, tuple[str, dict[str, object] | None]] = {}
        for passage in (*(each for each in stored if each.source != "frame"), *pages, *seen.frames):
            described[passage.passage] = (passage.text, locator_of(passage))
        # The last one, since it tells that the item is done: an outage may come before it.
        described[0] = (description, None)
        return _Item(media=media, texts=texts, seen=seen, pages=pages, described=described)

    def _embed(
        self,
        items: Sequence[_Item],
        space: EmbeddingSpace,
        embedder: Embedder,
        there: dict[tuple[UUID, int], str],
        pictures: Pictures,
    ) -> None:
        """Make the vectors that are missing in a space."""
        wanted = [
            (item, number, text, locator)
            for item in items
            for number, (text, locator) in item.described.items()
            if self._afresh or there.get((item.media.id, number)) != text
        ]
        vectors = self._context.vectors.documents(
            embedder,
            [text for _, _, text, _ in wanted],
            tenant_id=self._context.tenant_id,
            use_cache=not self._afresh,
        )
        for (item, number, text, locator), vector in zip(wanted, vectors, strict=True):
            if isinstance(vector, Exception):
                _log.warning("media item %s, passage %d cannot be embedded: %s", item.media.id, number, vector)
                item.error = item.error or vector
            else:
                _add(item, space, number, text, locator, vector)
        if isinstance(embedder, ImageEmbedder):
            for item in items:
                if isinstance(item.media, Image) and (self._afresh or (item.media.id, PICTURE) not in there):
                    self._embed_picture(item, space, embedder, pictures)

    def _embed_picture(self, item: _Item, space: EmbeddingSpace, embedder: ImageEmbedder, pictures: Pictures) -> None:
        try:
            picture = pictures.of_image(item.media)
            (vector,) = stored_vectors(embedder.embed_images([picture]), embedder=embedder, count=1)
        except Exception as error:  # noqa: BLE001 - as for a describer
            item.error = item.error or error
        else:
            _add(item, space, PICTURE, "", None, vector)

    def _write(self, item: _Item, spaces: Sequence[tuple[EmbeddingSpace, Embedder]]) -> bool:
        """Write what was made of an item; False where it was changed meanwhile."""
        context, media_id = self._context, item.media.id
        version = item.texts.updated_at
        statements: list[Statement[bool]] = []
        if item.seen.is_new:
            statements.append(
                repository.set_generated(
                    context.tenant_id,
                    media_id,
                    version=version,
                    body=item.texts.body,
                    generated=item.seen.text,
                    generated_by=item.seen.by,
                )
            )
            statements.append(
                passage_repository.put(
                    context.tenant_id, media_id, version=version, source="frame", passages=item.seen.frames
                )
            )
        if item.pages:
            statements.append(
                passage_repository.put(context.tenant_id, media_id, version=version, source="page", passages=item.pages)
            )
        kept = [*item.described, *([PICTURE] if isinstance(item.media, Image) else [])]
        statements += [
            repository.put(
                context.tenant_id,
                media_id,
                space_id=space.id,
                version=version,
                vectors=item.vectors.get(space.id, []),
                kept=kept,
            )
            for space, _ in spaces
        ]

        def work(session: Session) -> bool:
            is_written = all(session.batch(statements))
            if is_written:
                vocabulary.learn(session, context.tenant_id, [media_id])
            return is_written

        return context.as_member.run(work)


def _groups(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    """Yield items, so many at a time that their vectors are no load."""
    group: list[_Item] = []
    for item in items:
        if group and sum(len(each.described) for each in group) + len(item.described) > _MAX_VECTORS:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _add(
    item: _Item,
    space: EmbeddingSpace,
    number: int,
    text: str,
    locator: dict[str, object] | None,
    vector: NDArray[float32],
) -> None:
    new = NewVector(passage=number, locator=locator, description=text, vector=as_text(vector[None, :])[0])
    item.vectors.setdefault(space.id, []).append(new)
