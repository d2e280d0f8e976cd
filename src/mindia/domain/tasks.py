"""Background tasks."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum, StrEnum
from uuid import UUID

import attrs

from mindia.domain.media import JsonValue, MediaKind


class TaskType(StrEnum):
    """The types that are built in, and the one label for all types of the host."""

    VIDEO_TRANSCODE = "video_transcode"
    GENERATE_EMBEDDING = "generate_embedding"
    CUSTOM = "custom"


class TaskStatus(StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Priority(IntEnum):
    """Higher goes first."""

    LOW = -10
    NORMAL = 0
    HIGH = 10
    CRITICAL = 20


@attrs.frozen(kw_only=True)
class Task:
    """A piece of work, kept in the database until it is done.

    Attributes:
        id: UUIDv7, made by the client.
        tenant_id: Whose it is; None for a task of the system.
        task_type: Its type, `TaskType.CUSTOM` for all of the host's.
        kind: The name of the type: that of the host for a custom one.
        payload: What the handler is given.
        status: Where it stands.
        priority: Higher goes first.
        retry_count: How often it was tried again.
        max_retries: How often it is tried again, at most.
        attempt: How often it was claimed; the fence against a worker that was given up on.
        created_at: In UTC.
        scheduled_for: Not run before this time, in UTC.
        started_at: Start of the latest attempt, in UTC, or None.
        completed_at: When it ended, well or not, in UTC, or None.
        error_message: Of the latest attempt where that failed, or None.
        initiated_by: The user or API key on whose behalf it was enqueued, or None.
    """

    id: UUID
    tenant_id: UUID | None
    task_type: TaskType
    kind: str
    payload: JsonValue = attrs.field(hash=False)
    status: TaskStatus
    priority: int
    retry_count: int
    max_retries: int
    attempt: int
    created_at: datetime
    scheduled_for: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error_message: str | None = None
    initiated_by: UUID | None = None


@attrs.frozen(kw_only=True)
class GenerateEmbedding:
    """Payload of `TaskType.GENERATE_EMBEDDING`.

    Attributes:
        entity_id: The media item.
        entity_type: Its kind.
    """

    entity_id: UUID
    entity_type: MediaKind


@attrs.frozen(kw_only=True)
class VideoTranscode:
    """Payload of `TaskType.VIDEO_TRANSCODE`.

    Attributes:
        video_id: The video.
    """

    video_id: UUID


@attrs.frozen(kw_only=True)
class WorkReport:
    """What a worker has done.

    Attributes:
        completed: Tasks that were completed.
        failed: Tasks that failed for good.
        retried: Attempts that failed and will be repeated.
        objects_removed: Stored items whose bytes were removed, deleted or never added.
    """

    completed: int = 0
    failed: int = 0
    retried: int = 0
    objects_removed: int = 0
