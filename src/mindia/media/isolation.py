"""Parsers of hostile formats, in warm child processes with limits of time and memory.

A child that crashes, hangs or is broken into ends with its process: it has nothing but the file that it was handed, and
answers in JSON, of which the parent takes plain values.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, BinaryIO, Self

import attrs

from mindia import errors
from mindia.config import Settings
from mindia.domain.transformations import Transformation
from mindia.media._answers import answers_of, made_of, probed_of, shots_of, tracks_of
from mindia.media._handed import descriptor_of, with_descriptor
from mindia.media._parser_process import ParserProcess
from mindia.media.deriving import Made
from mindia.media.pictures import Shot
from mindia.media.probe import MAX_TOGETHER, Probed, Source, Unprobed
from mindia.media.tracks import VideoTracks

_MAX_DECLARED_CHARS = 300
"""More than any type has; what is cut off contradicts the bytes all the same."""
_SENT = [name for name in attrs.fields_dict(Settings) if name.startswith("max_") or name == "keep_location"]
"""The settings that a parser needs, and so the only ones that a child is told."""


class ParserPool:
    """Children that parse, one file at a time each. Thread-safe; a forked process has children of its own.

    Args:
        settings: How many children there are, and how much time and memory each may take.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._closed = False
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._only_begun = threading.Lock()
        self._free: deque[ParserProcess] = deque()
        self._children: set[ParserProcess] = set()
        self._places = threading.BoundedSemaphore(self._settings.parser_processes)

    def probe(self, file: Unprobed, *, settings: Settings) -> Probed:
        """Find out type and facts of a file, as `mindia.media.probe.probe` does.

        Args:
            file: Has a file descriptor where it is larger than `Settings.spool_memory_bytes`.
            settings: Limits of this file, and what is read of it.

        Raises:
            MediaError: As `probe`; a parser that crashes or exceeds its limits is an error of the file, too.
            ParserUnavailableError: No child can be started.
        """
        with self._begin_with(file, settings) as pending:
            return pending.result()

    @contextmanager
    def begin(self, file: Unprobed, *, settings: Settings) -> Iterator[_Pending | None]:
        """Begin with what `probe` does, so that the caller can do something else meanwhile.

        Gives what waits for the answer; what `probe` raises is raised by both. None where others are at work: a place
        that is kept for longer than parsing takes would be missing.
        """
        only = self._only_begun
        has_begun = self._settings.parser_processes > 1 and only.acquire(blocking=False)
        try:
            if not has_begun or len(self._free) < len(self._children):
                yield None
                return
            with self._begin_with(file, settings) as pending:
                yield pending
        finally:
            if has_begun:
                only.release()

    def _begin_with(self, file: Unprobed, settings: Settings) -> _Pending:
        more = {"declared": _declared(file.declared)}
        return self._begin([Source(file.file, file.size)], more, filename=file.filename, settings=settings)

    def probe_all(self, files: Sequence[Unprobed], *, settings: Settings) -> list[Probed | errors.MindiaError]:
        """Find out type and facts of a few small files, for which one child is asked once.

        Where that does not end well, each is asked for by itself: so it is seen which of them is to blame.

        Args:
            files: `MAX_TOGETHER` at most.
            settings: Limits of these files, and what is read of them.

        Returns:
            For each what `probe` returns or raises.
        """
        answers: Sequence[dict[str, Any] | None] = [None] * len(files)
        with suppress(errors.MindiaError):
            answers = self._answers(files, settings)
        return [self._probed(file, answer, settings) for file, answer in zip(files, answers, strict=True)]

    def _answers(self, files: Sequence[Unprobed], settings: Settings) -> Sequence[dict[str, Any]]:
        assert len(files) <= MAX_TOGETHER, "a request has its limits"
        contents = [file.read() for file in files]
        joined = Source(io.BytesIO(b"".join(contents)), sum(map(len, contents)))
        parts = [
            {"size": len(content), "filename": file.filename, "declared": _declared(file.declared)}
            for file, content in zip(files, contents, strict=True)
        ]
        with self._begin([joined], {"files": parts}, filename=files[0].filename, settings=settings) as pending:
            return answers_of(pending.answer(), len(files))

    def _probed(self, file: Unprobed, answer: dict[str, Any] | None, settings: Settings) -> Probed | errors.MindiaError:
        try:
            if answer is None or answer.get("wants_memory"):
                return self.probe(file, settings=settings)
            return probed_of(answer, file.filename)
        except errors.MindiaError as error:
            return error

    def pictures(
        self,
        file: BinaryIO,
        *,
        size: int,
        filename: str,
        max_side: int,
        times: Sequence[float] | None,
        settings: Settings,
    ) -> list[Shot]:
        """Return small pictures of a file, as `mindia.media.pictures.pictures` does.

        Args:
            file: Seekable.
            size: In bytes.
            filename: For messages.
            max_side: The longest side of a picture, in pixels.
            times: The seconds of a video to look at.
            settings: Limits of this file.

        Raises:
            MediaError: It cannot be decoded within the limits.
            ParserUnavailableError: No child can be started.
        """
        more = {"max_side": max_side, "times": None if times is None else list(times)}
        with (
            with_descriptor(Source(file, size), settings) as here,
            self._begin([here], more, filename=filename, settings=settings) as pending,
        ):
            return shots_of(pending.answer(), filename)

    def derive(
        self,
        source: Source,
        *,
        filename: str,
        transformation: Transformation,
        watermarks: Sequence[Source],
        settings: Settings,
    ) -> Made:
        """Make a picture of a file, as `mindia.media.deriving.derive` does.

        Args:
            source: The file.
            filename: For messages.
            transformation: What is done; settled.
            watermarks: The files of `transformation.watermarks`, in the same order.
            settings: Limits of this file.

        Raises:
            MediaError: It cannot be decoded within the limits.
            InvalidError: There is nothing left after cropping, or no picture of that kind of file.
            ParserUnavailableError: No child can be started.
            StorageUnavailableError: The folder of `Settings.spool_folder` is full or missing.
        """
        with ExitStack() as stack:
            here = [stack.enter_context(with_descriptor(each, settings)) for each in (source, *watermarks)]
            more = {"transformation": str(transformation)}
            pending = stack.enter_context(self._begin(here, more, filename=filename, settings=settings))
            return made_of(pending.answer(), filename, transformation)

    def tracks(self, file: BinaryIO, *, size: int, filename: str, settings: Settings) -> VideoTracks:
        """Look at the tracks of a video, as `mindia.media.tracks.tracks` does.

        Args:
            file: Seekable.
            size: In bytes.
            filename: For messages.
            settings: Limits of this file.

        Raises:
            MediaError: It cannot be decoded within the limits.
            ParserUnavailableError: No child can be started.
        """
        with (
            with_descriptor(Source(file, size), settings) as here,
            self._begin([here], {"tracks": True}, filename=filename, settings=settings) as pending,
        ):
            return tracks_of(pending.answer(), filename)

    def _begin(self, files: Sequence[Source], more: dict[str, Any], *, filename: str, settings: Settings) -> _Pending:
        if self._process != os.getpid():
            inherited = self._children
            self._start_afresh()
            for child in inherited:
                child.leave_to_parent()
        request = {
            "size": files[0].size,
            "filename": filename,
            "settings": {name: getattr(settings, name) for name in _SENT},
            "timeout_s": self._settings.parser_timeout.total_seconds(),
            **more,
        }
        return _Pending(self, request, files, spool_memory_bytes=settings.spool_memory_bytes)

    def close(self) -> None:
        """End the children. Calling it again does nothing."""
        if self._process != os.getpid():
            return
        with self._lock:
            self._closed = True
            children, self._children = self._children, set()
            self._free.clear()
        for child in children:
            child.end()

    def _take(self) -> ParserProcess:
        """Return a child that nobody uses; one more is kept warm for the time when this one fails."""
        with self._lock:
            if self._closed:
                raise errors.ClosedError("this application is closed")
            while len(self._free) < 2 and len(self._children) <= self._settings.parser_processes:
                child = ParserProcess(self._settings.parser_memory_bytes)
                self._children.add(child)
                self._free.appendleft(child)
            return self._free.pop()

    def _give_back(self, child: ParserProcess) -> None:
        with self._lock:
            self._free.append(child)

    def _replace(self, child: ParserProcess) -> ParserProcess:
        """Return a child that has not looked at a file yet, in place of another one, which is ended."""
        with self._lock:
            if self._closed:
                raise errors.ClosedError("this application is closed")
            new = ParserProcess(self._settings.parser_memory_bytes)
            self._children.add(new)
            self._children.discard(child)
        child.end()
        return new

    def _discard(self, child: ParserProcess) -> None:
        with self._lock:
            self._children.discard(child)
        child.end()


class _Pending:
    """A file that a child is at work on, perhaps with others."""

    def __init__(
        self, pool: ParserPool, request: dict[str, Any], files: Sequence[Source], *, spool_memory_bytes: int
    ) -> None:
        self._pool = pool
        self._request = request
        self._files = files
        self._spool_memory_bytes = spool_memory_bytes
        self._child: ParserProcess | None = None
        self._deadline = 0.0

    def __enter__(self) -> Self:
        self._pool._places.acquire()
        self._deadline = time.monotonic() + self._request["timeout_s"]
        try:
            with self._typed():
                self._ask()
        except BaseException:
            self._pool._places.release()
            raise
        return self

    def result(self) -> Probed:
        """Wait for the answer of the parser."""
        return probed_of(self.answer(), self._request["filename"])

    def answer(self) -> dict[str, Any]:
        """Wait for the answer of the parser, as it is."""
        with self._typed():
            try:
                answer = self._answer()
            except ConnectionError:
                # It may have been killed while it waited for work: the file is to blame if it happens again, for which
                # there is no more time than for one try.
                self._ask()
                answer = self._answer()
        return answer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._drop()  # one that has not answered is still at work on what nobody wants to know any more
        self._pool._places.release()

    def _ask(self, child: ParserProcess | None = None) -> None:
        self._child = child or self._pool._take()
        try:
            with ExitStack() as stack:
                descriptors = [
                    stack.enter_context(descriptor_of(each.file, in_memory=self._is_in_memory(each)))
                    for each in self._files
                ]
                self._child.ask(self._request, descriptors, deadline=self._deadline)
        except ConnectionError:
            self._drop()
        except BaseException:
            self._drop()
            raise

    def _is_in_memory(self, source: Source) -> bool:
        return source.size <= self._spool_memory_bytes or isinstance(source.file, io.BytesIO)

    def _answer(self) -> dict[str, Any]:
        if self._child is None:
            raise ConnectionResetError("the parser has ended")
        try:
            answer = self._child.answer(deadline=self._deadline)
        except BaseException:
            self._drop()
            raise
        was_used, self._child.is_used = self._child.is_used, True
        if answer.pop("wants_memory", False) and was_used:
            # What the files before have left behind is not this one's doing.
            self._ask(self._pool._replace(self._child))
            return self._answer()
        if answer.pop("worn", False):
            self._drop()
        else:
            self._pool._give_back(self._child)
            self._child = None
        return answer

    def _drop(self) -> None:
        if self._child is not None:
            self._pool._discard(self._child)
            self._child = None

    @contextmanager
    def _typed(self) -> Iterator[None]:
        filename = self._request["filename"]
        try:
            yield
        except TimeoutError as error:
            raise errors.TooLargeError(
                f"{filename!r} takes longer than {self._pool._settings.parser_timeout} to be read "
                "(Settings.parser_timeout)"
            ) from error
        except (ConnectionError, ValueError) as error:
            raise errors.CorruptMediaError(f"{filename!r} makes the parser of its format crash") from error
        except OSError as error:
            # Not the file's doing: no descriptor is left, or the application was closed meanwhile.
            raise errors.ParserUnavailableError(
                f"{filename!r} cannot be handed to a parser: {error.strerror}"
            ) from error


def _declared(declared: str | None) -> str | None:
    return declared and declared[:_MAX_DECLARED_CHARS]
