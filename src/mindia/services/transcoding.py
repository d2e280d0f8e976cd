"""Encoding videos for streaming: the work of the task `video_transcode`, and what becomes of those that end badly."""

from __future__ import annotations

import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID

from mindia._ids import uuid7
from mindia.config import Settings
from mindia.db.database import Database
from mindia.db.session import ACROSS_TENANTS, Scope, Session
from mindia.db.units import OwnTransaction
from mindia.domain.derivatives import STREAM, Derivative
from mindia.domain.events import MediaEvent
from mindia.domain.media import JsonValue, ProcessingStatus, Video
from mindia.domain.tasks import TaskStatus, VideoTranscode
from mindia.errors import DiscardTask, MediaError, ParserUnavailableError, TranscodingError
from mindia.media.encoding import encode
from mindia.media.ffmpeg import Ffmpeg, find_ffmpeg, working_folder
from mindia.media.hls import MASTER, PLAYLIST_TYPE, HlsPlan, MadeVariant, planned
from mindia.media.hls_options import HlsOptions
from mindia.repositories import derivatives, events, videos
from mindia.repositories import media as media_rows
from mindia.repositories.derivatives import NewDerivative
from mindia.services._keys import original_key, source_in_transcode_key
from mindia.services.context import TenantContext
from mindia.services.derived_place import DerivedPlace
from mindia.services.signed_urls import event_url

if TYPE_CHECKING:
    from mindia.repositories.videos import Processing
    from mindia.worker.context import TaskContext

_CHUNK = 1 << 20
_TELL_S = 1.0
_STEP = 0.005
_ENCODED = 0.99
"""How far a task is once all is encoded; the rest is storing."""
_PAGE = 200
_SHORT, _SHORT_S = 0.95, 1.0
"""A stream that is shorter than the file says, by more than this, is told of."""

_log = logging.getLogger("mindia.media")


class Transcoding:
    """One attempt of a task.

    Args:
        context: Of the tenant.
        task: What the handler was given.
    """

    def __init__(self, context: TenantContext, task: TaskContext) -> None:
        self._context = context
        self._task = task
        self._told_at = 0.0
        self._told = -1.0

    def run(self, payload: VideoTranscode) -> JsonValue:
        """Encode a video, unless that is done; one that was deleted meanwhile needs nothing.

        Raises:
            DiscardTask: The video is at fault.
            Exception: Something else, which may pass.
        """
        video = self._context.as_viewer.run(partial(self._found, payload=payload))
        if video is None:
            _log.info("there is no video %s; nothing to encode", payload.video_id)
            return None
        try:
            made = self._context.as_member.run(partial(self._begun, video=video, payload=payload))
            if made is not None:
                return _result_of_made(made)
            return self._encode(video)
        except ParserUnavailableError:
            raise
        except MediaError as error:
            raise DiscardTask(str(error)) from error
        except TranscodingError as error:
            if error.is_final:
                raise DiscardTask(f"{video.filename!r} cannot be encoded: {error}") from error
            raise

    def _found(self, session: Session, payload: VideoTranscode) -> Video | None:
        tenant_id = self._context.tenant_id
        found = media_rows.get(session, tenant_id, payload.video_id)
        if isinstance(found, Video):
            return found
        # It may have gone while a copy of it stays, which waits for the same.
        source_id = source_in_transcode_key(self._task.task.dedup_key or "")
        return None if source_id is None else videos.of_source(session, tenant_id, original_key(source_id))

    def _begun(self, session: Session, video: Video, payload: VideoTranscode) -> Derivative | None:
        """Return what is there already, or say that it is being made."""
        made = derivatives.get(session, video, STREAM)
        if made is not None and not (payload.again and made.created_at < self._task.task.created_at):
            self._complete(session, video, made.s3_key)
            return made
        videos.begin(session, video, task_id=self._task.task.id)
        return None

    def _encode(self, video: Video) -> JsonValue:
        context, settings = self._context, self._context.settings
        ffmpeg = find_ffmpeg(settings.ffmpeg)
        with self._source(video) as source:
            tracks = context.prober.tracks(source, size=video.file_size, filename=video.filename, settings=settings)
            plan = planned(tracks, HlsOptions.of(settings))
            place = DerivedPlace(context, video)
            try:
                made = self._made(plan, ffmpeg, source, place)
                self._record(video, plan, place)
            except BaseException:
                place.discard()
                raise
        return _result(video, plan, made)

    @contextmanager
    def _source(self, video: Video) -> Iterator[BinaryIO]:
        """Give the bytes of a video as a file that other processes can be handed: the stored one, or a copy."""
        context = self._context
        with context.storage.open(context.bucket(), video.s3_key) as stored:
            try:
                stored.fileno()
            except OSError:
                pass
            else:
                yield stored
                return
            # Without a name: nothing is left of it, however this process ends.
            with tempfile.TemporaryFile(dir=context.settings.spool_folder) as copy:
                while chunk := stored.read(_CHUNK):
                    self._task.check()
                    copy.write(chunk)
                copy.flush()
                yield copy

    def _made(self, plan: HlsPlan, ffmpeg: Ffmpeg, source: BinaryIO, place: DerivedPlace) -> tuple[MadeVariant, ...]:
        def store(name: str, path: Path, content_type: str) -> None:
            with path.open("rb") as file:
                place.put(name, file, content_type=content_type, size=path.stat().st_size)

        def tick(at_s: float) -> None:
            place.renew_if_due()
            self._tell(at_s / plan.tracks.duration if plan.tracks.duration else 0.0)

        settings = self._context.settings
        try:
            with working_folder(settings.spool_folder) as folder:
                return encode(
                    plan,
                    ffmpeg,
                    source=source.fileno(),
                    folder=folder,
                    settings=settings,
                    running=self._task._control,
                    store=store,
                    tick=tick,
                )
        except OSError as error:  # a full disk among them; what is raised by purpose is none
            if error.errno is None:
                raise
            raise TranscodingError(
                f"what is encoded cannot be written: {error.strerror} (Settings.spool_folder)", is_final=False
            ) from error

    def _tell(self, fraction: float) -> None:
        done = _ENCODED * min(1.0, fraction)
        if done - self._told >= _STEP and time.monotonic() - self._told_at >= _TELL_S:
            self._told, self._told_at = done, time.monotonic()
            self._task.progress(done, "encoding")

    def _record(self, video: Video, plan: HlsPlan, place: DerivedPlace) -> None:
        best = plan.variants[-1]
        new = NewDerivative(
            id=place.id,
            media=video,
            operations=STREAM,
            s3_key=f"{place.prefix}{MASTER}",
            s3_prefix=place.prefix,
            content_type=PLAYLIST_TYPE,
            file_size=place.file_size,
            file_count=place.file_count,
            width=best.width,
            height=best.height,
        )

        def work(session: Session) -> None:
            if derivatives.replace(session, new) is None:
                raise place.expired()  # or the video is gone: the next attempt sees
            self._complete(session, video, new.s3_key)

        self._context.as_member.run(work)

    def _complete(self, session: Session, video: Video, hls_master_key: str) -> None:
        context = self._context
        ids = videos.complete(session, video, hls_master_key=hls_master_key)
        _emit(
            session,
            context.tenant_id,
            ids,
            "completed",
            settings=context.settings,
            initiated_by=self._task.task.initiated_by,
        )


def settle(database: Database, settings: Settings) -> int:
    """Say of videos whose task has ended badly that they failed, and tell of it; return how many.

    Those whose task was cancelled wait for another one. It is done apart from the task: whichever way that has ended,
    its worker killed for the last time among them, its end is on record before.
    """
    unit = OwnTransaction(database, ACROSS_TENANTS)
    failed = 0
    after: Processing | None = None
    while True:
        page = unit.run(partial(videos.processing, after=after, limit=_PAGE), single=True)
        by_tenant: dict[UUID, list[Processing]] = defaultdict(list)
        for each in page:
            by_tenant[each.tenant_id].append(each)
        for tenant_id, waiting in by_tenant.items():
            failed += _settle(database, settings, tenant_id, waiting)
        if len(page) < _PAGE:
            return failed
        after = page[-1]


def _settle(database: Database, settings: Settings, tenant_id: UUID, waiting: Sequence[Processing]) -> int:
    # Also for a tenant that is not served.
    unit = OwnTransaction(database, Scope(tenant_id=tenant_id, is_served=False))
    by_task: dict[UUID, list[UUID]] = defaultdict(list)
    for each in waiting:
        by_task[each.task_id].append(each.id)
    tasks = unit.run(partial(videos.tasks_of, tenant_id=tenant_id, task_ids=list(by_task)), single=True)
    failed = 0
    for task_id, ids in by_task.items():
        task = tasks.get(task_id)
        if task is not None and task.status in (TaskStatus.PENDING, TaskStatus.RUNNING):
            continue
        has_failed = task is not None and task.status is TaskStatus.FAILED

        def work(
            session: Session,
            task_id: UUID = task_id,
            ids: Sequence[UUID] = ids,
            reason: str | None = task.error_message if task is not None else None,
            initiated_by: UUID | None = task.initiated_by if task is not None else None,
            *,
            has_failed: bool = has_failed,
        ) -> int:
            status = ProcessingStatus.FAILED if has_failed else ProcessingStatus.PENDING
            settled = videos.settle(session, tenant_id, ids, task_id=task_id, status=status)
            if not has_failed:
                return 0
            _emit(session, tenant_id, settled, "failed", settings=settings, initiated_by=initiated_by, reason=reason)
            return len(settled)

        failed += unit.run(work)
    return failed


def _emit(
    session: Session,
    tenant_id: UUID,
    ids: Sequence[UUID],
    what: str,
    *,
    settings: Settings,
    initiated_by: UUID | None,
    reason: str | None = None,
) -> None:
    """Tell of videos that have become something, in the transaction that says so."""
    for item in media_rows.get_many(session, tenant_id, ids) if ids else ():
        events.emit(
            session,
            tenant_id,
            MediaEvent.of(
                item,
                what,
                id=uuid7(),
                occurred_at=datetime.now(UTC),
                initiated_by=initiated_by,
                url=event_url(item, settings=settings),
                reason=reason,
            ),
        )


def _result(video: Video, plan: HlsPlan, made: Sequence[MadeVariant]) -> JsonValue:
    duration = made[-1].duration
    if duration < _SHORT * plan.tracks.duration - _SHORT_S:
        _log.warning(
            "of the video %s there are %.1f s, and its file says that it has %.1f s: it breaks off, or tells a lie",
            video.id,
            duration,
            plan.tracks.duration,
        )
    return {
        "variants": [each.variant.name for each in made],
        "duration": round(duration, 3),
        "expected_duration": round(plan.tracks.duration, 3),
        "segments": len(made[-1].durations),
    }


def _result_of_made(made: Derivative) -> JsonValue:
    return {"hls_master_key": made.s3_key}
