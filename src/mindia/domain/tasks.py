"""Background tasks."""

from __future__ import annotations

from collections.abc import Mapping
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


class OnFailure(StrEnum):
    """What becomes of a task where one that it waits for fails or is cancelled."""

    CANCEL = "cancel"
    PROCEED = "proceed"


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
        waiting_on: How many tasks it still waits for.
        dedup_key: While it is pending or running, no other task is written under this key.
        timeout_s: How long an attempt may take, in seconds, or None.
        progress: How far the attempt is, 0 to 1, or None.
        progress_note: What the handler said about that, or None.
        cancel_requested: Whether it is to be cancelled while it runs.
        result: What the handler returned.
        is_suspect: Whether it may be what killed a worker.
        trace_context: In which trace it was enqueued, `traceparent` and `tracestate` of W3C Trace Context, or None.
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
    waiting_on: int = 0
    dedup_key: str | None = None
    timeout_s: float | None = None
    progress: float | None = None
    progress_note: str | None = None
    cancel_requested: bool = False
    result: JsonValue = attrs.field(default=None, hash=False)
    is_suspect: bool = False
    trace_context: Mapping[str, str] | None = attrs.field(default=None, hash=False)

    @property
    def is_finished(self) -> bool:
        """Whether it will not run any more."""
        return self.status not in (TaskStatus.PENDING, TaskStatus.RUNNING)


@attrs.frozen(kw_only=True)
class TaskError:
    """An attempt that failed.

    Attributes:
        attempt: Its number.
        error_type: The class of the exception, `WorkerDied` or `TaskTimedOut`.
        error_message: What it said.
        traceback: Where it was raised, or None.
        failed_at: In UTC.
    """

    attempt: int
    error_type: str
    error_message: str
    traceback: str | None
    failed_at: datetime


@attrs.frozen(kw_only=True)
class TaskCount:
    """How many tasks of a type stand where.

    Attributes:
        kind: The type.
        status: Where they stand.
        count: How many.
    """

    kind: str
    status: TaskStatus
    count: int


@attrs.frozen(kw_only=True)
class TaskInput:
    """A task of many, with what is its own.

    Attributes:
        payload: A value of a class that was registered.
        dedup_key: As for `TaskQueue.enqueue`.
    """

    payload: object
    dedup_key: str | None = None


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
        again: Whether it is encoded although that was done before the task was written.
    """

    video_id: UUID
    again: bool = False


@attrs.frozen(kw_only=True)
class WorkReport:
    """What a worker has done.

    Attributes:
        completed: Tasks that were completed.
        failed: Tasks that failed for good.
        retried: Attempts that failed and will be repeated.
        objects_removed: Stored items whose bytes were removed, deleted or never added.
        events_delivered: Events that receivers of webhooks have taken.
        deliveries_failed: Attempts to deliver one that failed.
    """

    completed: int = 0
    failed: int = 0
    retried: int = 0
    objects_removed: int = 0
    events_delivered: int = 0
    deliveries_failed: int = 0
