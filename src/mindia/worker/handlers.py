"""The handlers of the built-in types."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import attrs

from mindia.domain.derivatives import PurgeDerivatives, RegenerateDerivatives
from mindia.domain.index_stats import Reindex
from mindia.domain.maintenance import VerifyReport, VerifyStorage
from mindia.domain.media import JsonValue
from mindia.domain.tasks import GenerateEmbedding, TaskType, VideoTranscode
from mindia.errors import NotFoundError, ProviderUnavailableError, SnoozeTask, SpaceMismatchError
from mindia.worker.context import TaskContext
from mindia.worker.registry import TaskRegistry

if TYPE_CHECKING:
    from mindia.services.maintenance import Maintenance
    from mindia.services.task_queue import TaskQueue
BATCH_SIZE = 32
"""What a model is given at once."""

REINDEX = "mindia.reindex"

_WHILE_DOWN = timedelta(minutes=1)
_FOR_OTHERS = timedelta(seconds=30)

_log = logging.getLogger("mindia.worker")


def generate_embedding(contexts: Sequence[TaskContext], payloads: Sequence[GenerateEmbedding]) -> list[object]:
    """Describe and embed items of one tenant; one that was deleted meanwhile needs nothing."""
    outcomes = contexts[0].library.index._embed_many([payload.entity_id for payload in payloads])
    return [_ended(context, outcomes[payload.entity_id]) for context, payload in zip(contexts, payloads, strict=True)]


def _ended(context: TaskContext, error: Exception | None) -> Exception | None:
    if isinstance(error, NotFoundError):
        _log.info("%s; nothing to embed", error)
        return None
    return None if error is None else later(context, error)


def later(context: TaskContext, error: Exception) -> Exception:
    """Return the error, or what puts the task off: an outage of a server may last longer than there are retries."""
    if isinstance(error, SpaceMismatchError):
        _log.warning("task %s is left to a worker with the other embedder: %s", context.task.id, error)
        return SnoozeTask(_FOR_OTHERS)
    if not (isinstance(error, ProviderUnavailableError) and error.is_outage):
        return error
    task = context.task
    if error.retry_after is not None:
        _log.warning("task %s waits as long as it is told: %s", task.id, error)
        return SnoozeTask(error.retry_after)
    if task.retry_count < task.max_retries:
        return error  # on record, and tried again
    _log.warning("task %s waits: %s", task.id, error)
    return SnoozeTask(_WHILE_DOWN)


def reindex(context: TaskContext, payload: Reindex) -> object:
    """Embed the items of a tenant anew, and have searches go to the new vectors."""
    try:
        return context.library.index._run_reindex(payload, context.progress)
    except (ProviderUnavailableError, SpaceMismatchError) as error:
        raise later(context, error) from error


def video_transcode(context: TaskContext, payload: VideoTranscode) -> JsonValue:
    """Encode a video for streaming."""
    return context.library.media._transcode(payload, context)


def verify_storage(
    maintenance: Maintenance, tasks: TaskQueue, context: TaskContext, payload: VerifyStorage
) -> JsonValue:
    """Hold rows against bytes and bytes against rows, as far as the payload says; the rest is another task."""

    def progress(_: VerifyReport) -> None:
        context.heartbeat()

    report = maintenance.verify(
        tenant=payload.tenant_id,
        hash_fraction=payload.hash_fraction,
        repair=payload.repair,
        after=payload.after,
        limit=payload.objects,
        progress=progress,
    )
    if report.error is not None:
        raise report.error  # tried again from the beginning of this part
    if report.next is not None:
        # If this attempt does not count in the end, the next one comes to the same rest, which is then there already.
        tasks.enqueue(attrs.evolve(payload, after=report.next), dedup_key=f"verify {context.task.id}")
    return {
        "items_checked": report.items_checked,
        "objects_checked": report.objects_checked,
        "problems": [
            {
                "problem": str(finding.problem),
                "tenant_id": str(finding.tenant_id),
                "s3_key": finding.s3_key,
                "detail": finding.detail,
                "repair": None if finding.repair is None else str(finding.repair),
            }
            for finding in report.findings
        ],
    }


def purge_derivatives(context: TaskContext, payload: PurgeDerivatives) -> object:
    """Remove pictures that were made of items."""
    return context.library.media._run_purge(payload, context.progress)


def regenerate_derivatives(context: TaskContext, payload: RegenerateDerivatives) -> object:
    """Make pictures anew that were made of items."""
    return context.library.media._run_regenerate(payload, context.progress, since=context.task.created_at)


def register_builtin(
    registry: TaskRegistry, maintenance: Maintenance, tasks: TaskQueue, *, transcode_timeout: timedelta
) -> None:
    """Add the built-in types."""
    registry.register(
        TaskType.GENERATE_EMBEDDING,
        GenerateEmbedding,
        generate_embedding,
        task_type=TaskType.GENERATE_EMBEDDING,
        batch_size=BATCH_SIZE,
    )
    registry.register(
        TaskType.VIDEO_TRANSCODE,
        VideoTranscode,
        video_transcode,
        task_type=TaskType.VIDEO_TRANSCODE,
        timeout=transcode_timeout,
    )
    registry.register("verify_storage", VerifyStorage, partial(verify_storage, maintenance, tasks), is_ours=True)
    registry.register(REINDEX, Reindex, reindex, is_ours=True)
    registry.register("mindia.purge_derivatives", PurgeDerivatives, purge_derivatives, is_ours=True)
    registry.register("mindia.regenerate_derivatives", RegenerateDerivatives, regenerate_derivatives, is_ours=True)
