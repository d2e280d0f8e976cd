"""Videos as streams: the part of `library.media` that has them encoded, and gives players an address."""

from __future__ import annotations

import io
import time
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID

import attrs

from mindia.domain.media import Disposition, JsonValue, Media, Video
from mindia.domain.tasks import Priority, Task, VideoTranscode
from mindia.errors import NotFoundError, ObjectNotFoundError, StreamNotReadyError
from mindia.repositories.derivatives import source_of
from mindia.services import signed_urls
from mindia.services._keys import derivative_id_in, transcode_key, type_of_derived
from mindia.services.signed_urls import StreamUrl
from mindia.services.storyboards import MediaStoryboards
from mindia.services.task_queue import TaskQueue
from mindia.storage.base import DirectStorage

if TYPE_CHECKING:
    from mindia.worker.context import TaskContext

_LONGEST = timedelta(days=7)
"""As long as an object store signs for."""


@attrs.frozen(kw_only=True)
class StreamFile:
    """A file of a stream, open.

    Attributes:
        name: Below the prefix of the stream.
        file: Its bytes; who is given it closes it.
        size: In bytes.
        content_type: MIME type.
    """

    name: str
    file: BinaryIO = attrs.field(repr=False)
    size: int
    content_type: str


class MediaStreams(MediaStoryboards):
    """Makes streams of the videos of one tenant."""

    def transcode(self, video: Media | UUID, *, again: bool = False, priority: int = Priority.NORMAL) -> Task:
        """Have a video encoded for streaming, by a task that a worker runs.

        Where the same bytes wait for that already, it is the task that they wait for. Once it is done the video has
        `hls_master_key`, and webhooks are told `video.completed`; `video.failed` where it fails for good.

        Args:
            video: The video or its id.
            again: Whether it is done although it was done before: after a change of the settings, say. The older stream
                plays until the newer one is there.
            priority: As for `TaskQueue.enqueue`.

        Raises:
            NotFoundError: There is no such video.
        """
        item = self._video(video)
        source_id = source_of(item.s3_key)
        if source_id is None:
            raise NotFoundError(f"there are no bytes of video {item.id}")
        return TaskQueue.of_tenant(self._context).enqueue(
            VideoTranscode(video_id=item.id, again=again),
            priority=priority,
            dedup_key=transcode_key(source_id, again=again),
        )

    def hls_url(self, video: Media | UUID, *, expires_in: timedelta = timedelta(hours=1)) -> str:
        """Return the address of a video's master playlist, for players of HTTP Live Streaming, until it expires.

        It plays from a private bucket: `mindia.serving.MediaFiles` serves the playlists, below `Settings.public_url`;
        the segments too, unless the object store signs addresses: then they come from there.

        Args:
            video: The video or its id.
            expires_in: How long it works, from a second to a year; with an object store that signs, to seven days.

        Raises:
            NotFoundError: There is no such video.
            StreamNotReadyError: It is not encoded yet, or that has failed.
            InvalidError: `expires_in` is not allowed, or `Settings.public_url` or `secret_key` is missing.
        """
        item = self._video(video)
        signed_urls.checked(expires_in, Disposition.INLINE)
        derivative_id = None if item.hls_master_key is None else derivative_id_in(item.hls_master_key)
        if derivative_id is None:
            raise StreamNotReadyError(
                f"video {item.id} has no stream; its processing_status is {item.processing_status}: "
                "library.media.transcode(video) has one made, and a worker makes it"
            )
        return signed_urls.sign_stream(item, derivative_id, settings=self._context.settings, expires_in=expires_in)

    def _video(self, video: Media | UUID) -> Video:
        return self.get(video if isinstance(video, UUID) else video.id, type=Video)

    def _transcode(self, payload: VideoTranscode, task: TaskContext) -> JsonValue:
        from mindia.services.transcoding import Transcoding  # costs more than the rest of this module

        return Transcoding(self._context, task).run(payload)

    def _stream_file(self, granted: StreamUrl) -> StreamFile:
        """Open a file of a stream for whoever has its address.

        Raises:
            NotFoundError: The video, its stream or the file is gone.
            StorageError: The object store failed.
        """
        context = self._context
        item = self._video(granted.media_id)
        if item.hls_master_key is None or derivative_id_in(item.hls_master_key) != granted.derivative_id:
            raise NotFoundError(f"video {item.id} has no such stream any more: make another URL")
        prefix = item.hls_master_key.rpartition("/")[0] + "/"
        key = prefix + granted.name
        content_type = type_of_derived(key)
        bucket = context.bucket()
        try:
            if granted.name.endswith("/index.m3u8") and isinstance(context.storage, DirectStorage):
                return self._signed_playlist(bucket, key, granted)
            size = context.storage.size(bucket, key)
            return StreamFile(
                name=granted.name, file=context.storage.open(bucket, key), size=size, content_type=content_type
            )
        except ObjectNotFoundError as error:
            raise NotFoundError(f"the stream of video {item.id} has no {granted.name}") from error

    def _signed_playlist(self, bucket: str, key: str, granted: StreamUrl) -> StreamFile:
        from mindia.media.hls import rewritten
        from mindia.media.hls_files import MAX_PLAYLIST_BYTES

        storage = self._context.storage
        assert isinstance(storage, DirectStorage)
        expires_in = min(_LONGEST, timedelta(seconds=max(1, granted.expires_at - int(time.time()))))
        folder = key.rpartition("/")[0] + "/"

        def url_of(name: str) -> str | None:
            return storage.url(
                bucket,
                folder + name,
                expires_in=expires_in,
                content_type=type_of_derived(name),
                disposition=Disposition.INLINE,
            )

        with storage.open(bucket, key) as file:
            playlist = file.read(MAX_PLAYLIST_BYTES).decode()
        content = rewritten(playlist, url_of).encode()
        return StreamFile(
            name=granted.name, file=io.BytesIO(content), size=len(content), content_type=type_of_derived(key)
        )
