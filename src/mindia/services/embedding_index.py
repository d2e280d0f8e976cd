"""Vectors of the media of one tenant: making and keeping them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from uuid import UUID

from mindia import _trace_context
from mindia._handles import Handle
from mindia._ids import uuid7
from mindia.db.session import Session
from mindia.domain.index_stats import IndexStats, Reindex, ReindexOnly, SpaceStats
from mindia.domain.media import Audio, Media, Video
from mindia.domain.search import EmbeddingSpace, Passage
from mindia.domain.tasks import Priority, Task
from mindia.domain.transcripts import Cue, parse_cues
from mindia.domain.vectors import Vectors, packed
from mindia.errors import InvalidError, NotFoundError
from mindia.repositories import embeddings as repository
from mindia.repositories import media as media_repository
from mindia.repositories import passages as passage_repository
from mindia.repositories import spaces as space_repository
from mindia.repositories import tasks as task_repository
from mindia.services import reindexing
from mindia.services._named import named
from mindia.services.context import TenantContext
from mindia.services.embedding_items import Outcomes, embed_items
from mindia.services.passages import spans_of

_MAX_TRANSCRIPT_CHARS = 2_000_000
_MAX_CUES = 100_000
_VECTORS_PAGE = 2_000


class EmbeddingIndex(Handle):
    """Makes the vectors of one tenant's media. Thread-safe, unless it is that of a transaction."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context

    def embed(self, media_id: UUID) -> None:
        """Describe an item, embed the description and its passages, and store the vectors; in place of earlier ones.

        The task `generate_embedding` does this in the background.

        Raises:
            NotFoundError: There is no such item.
            EmbeddingError: The embedder returned something that is not a vector.
            ProviderError: The server of a model refused, or cannot be reached.
            SpaceMismatchError: The embedder has been replaced by another one.
        """
        error = self._embed_many([media_id])[media_id]
        if error is not None:
            raise error

    def set_transcript(self, media: Media | UUID, transcript: str | Iterable[Cue]) -> None:
        """Say what is spoken in a video or an audio file, in place of what was said before.

        It is searched by word at once and by vector once a worker has run; results name the second.

        Args:
            media: The item or its id.
            transcript: WebVTT or SubRip (the text of a .vtt or .srt file), or cues. None of them takes it away.

        Raises:
            NotFoundError: There is no such item.
            InvalidError: It is no video and no audio file, or the transcript cannot be read or is too long.
        """
        context = self._context
        media_id = media if isinstance(media, UUID) else media.id
        cues = _checked_cues(transcript)
        spans = spans_of(media_id, cues)
        task_id = uuid7()

        def work(session: Session) -> None:
            item = media_repository.get(session, context.tenant_id, media_id)
            if item is None:
                raise NotFoundError(f"there is no media item {media_id}")
            if not isinstance(item, Video | Audio):
                raise InvalidError(f"media item {media_id} is of the kind {item.kind}, in which nothing is spoken")
            passage_repository.set_transcript(
                session,
                context.tenant_id,
                media_id,
                kind=item.kind,
                passages=spans,
                task_id=task_id,
                initiated_by=context.initiator,
                trace_context=_trace_context.current(),
            )

        context.as_member.run(work)

    def passages(self, media: Media | UUID) -> Sequence[Passage]:
        """Return the parts of an item that are searched by themselves: pages, spans of a transcript, frames.

        Pages and frames are there once a worker has run.

        Raises:
            NotFoundError: There is no such item.
        """
        context = self._context
        media_id = media if isinstance(media, UUID) else media.id

        def read(session: Session) -> list[Passage]:
            if media_repository.get(session, context.tenant_id, media_id) is None:
                raise NotFoundError(f"there is no media item {media_id}")
            return [
                Passage(number=each.passage, text=each.text, page=each.page, start_s=each.start_s, end_s=each.end_s)
                for each in passage_repository.passages(session, context.tenant_id, [media_id])
            ]

        return tuple(context.as_viewer.run(read))

    def vectors(self, media: Iterable[Media | UUID] | None = None) -> Vectors:
        """Return the vectors that are searched, one an item: that of the item as a whole, or of its first passage.

        Args:
            media: Of which items, or their ids; of all by default. Those that have none yet, or are not there, are left
                out. All are held in memory: 4 bytes a number.

        Raises:
            InvalidError: It is no iterable of items or ids.
        """
        context = self._context
        ids = None if media is None else _checked_ids(media)

        def read(session: Session) -> Vectors:
            space = space_repository.active_space(session, context.tenant_id)
            return packed(space, () if space is None else _pages(session, space, ids))

        return context.as_viewer.run(read)

    def reindex(
        self, only: ReindexOnly | str = ReindexOnly.MISSING, *, max_failures: int = 0, priority: int = Priority.LOW
    ) -> Task:
        """Enqueue the task that embeds items with the embedder that is in use now.

        Where another model made the vectors that are searched, those of this one are made beside them; once all are
        there, searches go to them at once, and the former ones are removed. What is added meanwhile does not keep them
        from it. `library.tasks.get` tells how far it is; cut short, it goes on where it was.

        Args:
            only: `missing`, the items that have no vector of this model: also for a collection from before, and after
                outages. `all`, every item anew, descriptions of pictures too.
            max_failures: How many items may have failed for searches to go to the new vectors all the same; they are
                found by word.
            priority: As for `TaskQueue.enqueue`.

        Returns:
            The task; while one waits or runs, that one.

        Raises:
            InvalidError: An argument is out of range.
            SpaceMismatchError: The embedder makes vectors of another length than it did before.
        """
        which = named(only, ReindexOnly, argument="only")
        if not isinstance(max_failures, int) or max_failures < 0:
            raise InvalidError(f"max_failures must be a whole number, and not negative: {max_failures!r}")
        return reindexing.enqueue(self._context, which, max_failures=max_failures, priority=priority)

    def stats(self) -> IndexStats:
        """Return how far the vectors are. It is counted: the more there is, the longer it takes."""
        context = self._context
        spaces = context.spaces
        warning = spaces.for_search(context.tenant_id, context.as_viewer).warning

        def read(session: Session) -> IndexStats:
            found = space_repository.all_spaces(session, context.tenant_id)
            counts = repository.counts(session, context.tenant_id)
            active = space_repository.active_space(session, context.tenant_id)
            items = repository.count_items(session, context.tenant_id)
            return IndexStats(
                items=items,
                missing=items
                if active is None
                else repository.count_missing(session, context.tenant_id, space_id=active.id),
                waiting=task_repository.count_embeddings(session, context.tenant_id),
                model_name=spaces.embedder.model_name,
                spaces=tuple(
                    SpaceStats(
                        id=space.id,
                        model_name=space.model_name,
                        native_dimensions=space.native_dimensions,
                        status=space.status,
                        items=counts[space.id].items,
                        vectors=counts[space.id].vectors,
                        created_at=space.created_at,
                    )
                    for space in found
                    if space.id in counts
                ),
                warning=warning,
            )

        return context.as_viewer.run(read)

    def _embed_many(self, media_ids: Sequence[UUID]) -> Outcomes:
        """Embed items together; for each None, or why it could not be."""
        return embed_items(self._context, media_ids)

    def _run_reindex(self, payload: Reindex, progress: Callable[[float, str], object]) -> object:
        """Do what `reindex` has enqueued."""
        return reindexing.run(self._context, payload, progress)


def _pages(session: Session, space: EmbeddingSpace, ids: Sequence[UUID] | None) -> Iterator[tuple[UUID, bytes]]:
    after = UUID(int=0)
    while True:
        page = repository.vectors(
            session, space.tenant_id, space_id=space.id, ids=ids, after=after, limit=_VECTORS_PAGE
        )
        yield from page
        if len(page) < _VECTORS_PAGE:
            return
        after = page[-1][0]


def _checked_ids(media: Iterable[Media | UUID]) -> Sequence[UUID]:
    listed = [each if isinstance(each, UUID) else getattr(each, "id", None) for each in media]
    if not all(isinstance(each, UUID) for each in listed):
        raise InvalidError("media must be items or ids of items")
    return [each for each in listed if each is not None]


def _checked_cues(transcript: str | Iterable[Cue]) -> Sequence[Cue]:
    if isinstance(transcript, str):
        if len(transcript) > _MAX_TRANSCRIPT_CHARS:
            raise InvalidError(f"the transcript has {len(transcript)} characters; the limit is {_MAX_TRANSCRIPT_CHARS}")
        cues: Sequence[Cue] = parse_cues(transcript) if transcript.strip() else ()
    else:
        cues = tuple(transcript)
    for cue in cues:
        if not isinstance(cue, Cue):
            raise InvalidError(f"a transcript is a text or cues, not {type(cue).__name__}")
    if len(cues) > _MAX_CUES or sum(len(cue.text) for cue in cues) > _MAX_TRANSCRIPT_CHARS:
        limits = f"{_MAX_CUES} cues, {_MAX_TRANSCRIPT_CHARS} characters"
        raise InvalidError(f"the transcript is too long: the limits are {limits}")
    return sorted((cue for cue in cues if cue.text.strip()), key=lambda cue: (cue.start, cue.end))
