"""The handlers of the built-in types."""

from __future__ import annotations

import logging

from mindia.domain.tasks import GenerateEmbedding, TaskType
from mindia.errors import NotFoundError
from mindia.worker.context import TaskContext
from mindia.worker.registry import TaskRegistry

_log = logging.getLogger("mindia.worker")


def generate_embedding(context: TaskContext, payload: GenerateEmbedding) -> None:
    """Describe and embed an item; one that was deleted meanwhile needs nothing."""
    try:
        context.library.index.embed(payload.entity_id)
    except NotFoundError:
        _log.info("media item %s is gone; nothing to embed", payload.entity_id)


def register_builtin(registry: TaskRegistry) -> None:
    """Add the built-in types."""
    registry.register(
        TaskType.GENERATE_EMBEDDING, GenerateEmbedding, generate_embedding, task_type=TaskType.GENERATE_EMBEDDING
    )
