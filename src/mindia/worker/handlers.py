"""The handlers of the built-in types."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import attrs

from mindia.domain.maintenance import VerifyReport, VerifyStorage
from mindia.domain.media import JsonValue
from mindia.domain.tasks import GenerateEmbedding, TaskType
from mindia.errors import NotFoundError
from mindia.worker.context import TaskContext
from mindia.worker.registry import TaskRegistry

if TYPE_CHECKING:
    from mindia.services.maintenance import Maintenance
    from mindia.services.task_queue import TaskQueue

_log = logging.getLogger("mindia.worker")


def generate_embedding(context: TaskContext, payload: GenerateEmbedding) -> None:
    """Describe and embed an item; one that was deleted meanwhile needs nothing."""
    try:
        context.library.index.embed(payload.entity_id)
    except NotFoundError:
        _log.info("media item %s is gone; nothing to embed", payload.entity_id)


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


def register_builtin(registry: TaskRegistry, maintenance: Maintenance, tasks: TaskQueue) -> None:
    """Add the built-in types."""
    registry.register(
        TaskType.GENERATE_EMBEDDING, GenerateEmbedding, generate_embedding, task_type=TaskType.GENERATE_EMBEDDING
    )
    registry.register("verify_storage", VerifyStorage, partial(verify_storage, maintenance, tasks), is_ours=True)
