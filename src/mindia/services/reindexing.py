"""Embedding the items of a tenant anew, beside what is searched, and switching over when all is there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.index_stats import FailedItem, Reindex, ReindexOnly
from mindia.domain.search import SpaceStatus
from mindia.domain.tasks import Task
from mindia.errors import EmbeddingError, NotFoundError, ProviderUnavailableError, SpaceMismatchError
from mindia.repositories import embeddings as repository
from mindia.repositories import spaces as space_repository
from mindia.repositories.embeddings import Left
from mindia.services.context import TenantContext
from mindia.services.embedding_items import embed_items
from mindia.services.task_queue import TaskQueue

_BATCH = 32
_FIRST = UUID(int=0)
_MAX_NAMED = 20
_MAX_ROUNDS = 10

Progress = Callable[[float, str], object]


def enqueue(context: TenantContext, only: ReindexOnly, *, max_failures: int, priority: int) -> Task:
    """Write the task, and have its space filled by all that is added from now on.

    Raises:
        SpaceMismatchError: The space of the embedder has vectors of another length.
    """
    model_name = context.spaces.embedder.model_name

    def prepare(session: Session) -> datetime:
        own = context.spaces.own(session, context.tenant_id)
        if own.status is SpaceStatus.RETIRED:
            space_repository.revive(session, context.tenant_id, own.id)
        return space_repository.now(session)

    # By the clock of the database, which says when vectors are made.
    now = context.as_member.run(prepare)
    payload = Reindex(
        model_name=model_name,
        only=only,
        since=now if only is ReindexOnly.ALL else None,
        max_failures=max_failures,
    )
    return TaskQueue.of_tenant(context).enqueue(
        payload, priority=priority, dedup_key=f"mindia.reindex {model_name}", max_retries=10
    )


def run(context: TenantContext, payload: Reindex, progress: Progress) -> object:
    """Embed what is missing, and have searches go to the space where nothing is missing any more.

    Returns:
        What came of it, for the record of the task.

    Raises:
        SpaceMismatchError: The embedder of this process is another one.
        EmbeddingError: More items failed than may.
        ProviderUnavailableError: The server of the embedder is not there.
    """
    return _Run(context, payload, progress).run()


@attrs.define
class _Run:
    context: TenantContext
    payload: Reindex
    progress: Progress
    done: int = 0
    gone: list[UUID] = attrs.field(factory=list)
    failed: list[FailedItem] = attrs.field(factory=list)

    def run(self) -> object:
        context, payload = self.context, self.payload
        if payload.model_name != context.spaces.embedder.model_name:
            raise SpaceMismatchError(
                f"the task is to embed with {payload.model_name!r}, and the embedder of this worker is "
                f"{context.spaces.embedder.model_name!r}"
            )
        space_id = context.as_member.run(lambda session: context.spaces.own(session, context.tenant_id).id)
        left = self._filled(space_id)
        if left.behind:
            raise EmbeddingError(
                f"workers with another embedder go on making vectors: {left.behind} item(s) have none of "
                f"{payload.model_name!r} each time when all had been embedded. Searches stay where they are; stop "
                "those workers"
            )
        if left.failed > payload.max_failures:
            named = "; ".join(f"{each.media_id}: {each.error}" for each in self.failed[:_MAX_NAMED])
            raise EmbeddingError(
                f"{left.failed} items have no vector of {payload.model_name!r}, and {payload.max_failures} may have "
                f"none: searches stay where they are. {named}"
            )
        context.spaces.forget(context.tenant_id)
        return {
            "embedded": self.done,
            "failed": [{"media_id": str(each.media_id), "error": each.error} for each in self.failed[:_MAX_NAMED]],
            "missing": left.failed,
        }

    def _filled(self, space_id: int) -> Left:
        """Embed what is missing until searches go to the space; return what keeps them from it, or its failures.

        What the former embedder makes meanwhile is made up for, each time in less time than before.
        """
        for _ in range(_MAX_ROUNDS):
            before = self.done
            self._fill(space_id)
            left = self._switch(space_id)
            is_right = not left.behind and left.failed <= self.payload.max_failures
            if is_right or (not left.behind and self.done == before):
                break
        return left

    def _fill(self, space_id: int) -> None:
        context, since = self.context, self.payload.since
        total = context.as_member.run(
            lambda session: repository.count_missing(session, context.tenant_id, space_id=space_id, since=since)
        )
        seen, after = 0, _FIRST
        self.failed.clear()
        self.gone.clear()
        while True:
            ids = context.as_member.run(
                lambda session, after=after: repository.missing(  # type: ignore[misc]  # mypy cannot type the default
                    session, context.tenant_id, space_id=space_id, since=since, after=after, limit=_BATCH
                )
            )
            if not ids:
                return
            for media_id, error in embed_items(context, ids, afresh=since is not None).items():
                if error is None:
                    self.done += 1
                elif isinstance(error, ProviderUnavailableError) and error.is_outage:
                    raise error  # the task waits, and goes on from here
                elif isinstance(error, NotFoundError):
                    self.gone.append(media_id)  # expired, and removed soon
                else:
                    self.failed.append(FailedItem(media_id=media_id, error=f"{type(error).__name__}: {error}"[:500]))
            seen, after = seen + len(ids), ids[-1]
            self.progress(min(seen / max(total, seen), 1.0), f"{seen} of {max(total, seen)} items")

    def _switch(self, space_id: int) -> Left:
        """Have searches go to the space, all at once, unless they would miss too much there; return what they miss."""
        context = self.context
        failed = [each.media_id for each in self.failed]

        def work(session: Session) -> Left:
            # Nobody writes a vector from here on until it is done.
            space_repository.lock_spaces(session, context.tenant_id)
            left = repository.left(session, context.tenant_id, space_id=space_id, failed=failed, gone=self.gone)
            if not left.behind and left.failed <= self.payload.max_failures:
                space_repository.activate(session, context.tenant_id, space_id)
            return left

        return context.as_member.run(work)
