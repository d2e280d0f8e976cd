"""Adding many items: what `MediaStore.add_many` does."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from contextvars import copy_context
from threading import Event

import attrs

from mindia.db.session import Session
from mindia.domain.bulk import AddReport, AddResult, MediaInput, Progress
from mindia.domain.media import Media, OnDuplicate, Staged
from mindia.errors import ConflictError, DatabaseUnavailableError, InvalidError, MindiaError
from mindia.media.probe import MAX_TOGETHER, MAX_TOGETHER_BYTES, Probed
from mindia.services import adding, ingest
from mindia.services.adding import Addition
from mindia.services.context import TenantContext
from mindia.services.ingest import Accepted, Received
from mindia.services.sources import Source, is_small

_MAX_CONCURRENCY = 64
_BATCH = 32
"""Rows to a transaction. More gain little, and a batch that fails is written again one by one."""

_BATCH_WAIT_S = 0.05
"""How long rows wait for a batch to become full."""


@attrs.frozen
class _Wanted:
    """One source that has been taken from the iterable.

    Attributes:
        position: Its place among the sources.
        media: The source, and what is said about it.
    """

    position: int
    media: MediaInput


@attrs.frozen(kw_only=True)
class _Ready:
    """One source that has been staged, or has failed."""

    position: int
    staged: Staged | None = None
    addition: Addition | None = None
    is_ours: bool = True
    error: Exception | None = None


class BulkAdd:
    """Stages sources in threads, and writes their rows in the thread of the caller, many to a transaction.

    See `MediaStore.add_many` for the arguments.
    """

    def __init__(
        self,
        context: TenantContext,
        *,
        concurrency: int,
        on_duplicate: OnDuplicate,
        sanitize: bool,
        progress: Callable[[Progress], object] | None,
        cancel: Event | None,
    ) -> None:
        if not 1 <= concurrency <= _MAX_CONCURRENCY:
            raise InvalidError(f"concurrency must be 1 to {_MAX_CONCURRENCY}, not {concurrency}")
        context.as_member.run(lambda _: None, single=True)  # refuses a tenant that is not served, whatever comes in
        known = context.tenant()
        self._context = context
        # Threads do not touch a transaction of the caller's.
        self._apart = attrs.evolve(context, tenant=lambda: known, bucket=lambda: known.s3_bucket, initiator=None)
        self._concurrency = concurrency
        self._group = max(1, min(MAX_TOGETHER, 2 * _BATCH // concurrency))  # so that there is one for each thread
        self._on_duplicate = on_duplicate
        self._sanitize = sanitize
        self._progress = progress
        self._cancel = cancel or Event()
        self._ready: queue.SimpleQueue[_Ready] = queue.SimpleQueue()
        self._results: dict[int, AddResult] = {}
        self._done = self._failed = 0
        self._total: int | None = None
        self._is_exhausted = False
        self._is_given_up = False

    def run(self, sources: Iterable[Source | Staged | MediaInput]) -> AddReport:
        """Add them all."""
        one = isinstance(sources, str | bytes | bytearray | memoryview | os.PathLike) or hasattr(sources, "read")
        if one or not isinstance(sources, Iterable):
            raise InvalidError(f"sources must be an iterable of sources, not {type(sources).__name__}")
        self._total = len(sources) if isinstance(sources, Sequence) else None
        threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="mindia-add")
        waiting: list[_Ready] = []
        try:
            cancelled = self._work_off(_numbered(sources), threads, waiting)
        except BaseException:
            self._is_given_up = True
            threads.shutdown(cancel_futures=True)
            self._discard([*waiting, *self._left_over()])
            raise
        threads.shutdown()
        return AddReport(tuple(self._results[position] for position in sorted(self._results)), cancelled)

    def _work_off(self, wanted: Iterator[_Wanted], threads: ThreadPoolExecutor, waiting: list[_Ready]) -> bool:
        """Stage and write until nothing is left; `waiting` holds what is staged and not written."""
        pending = 0
        while True:
            pending += self._begin(wanted, threads, 2 * _BATCH + self._concurrency - pending - len(waiting))
            # The threads go on with the next sources while the rows of these are written.
            if waiting:
                self._write(waiting)
                waiting.clear()
            if not pending:
                return not self._is_exhausted
            self._collect(waiting, min(_BATCH, pending))
            pending -= len(waiting)

    def _begin(self, wanted: Iterator[_Wanted], threads: ThreadPoolExecutor, most: int) -> int:
        """Hand sources over to the threads, small ones in groups; return how many."""
        pulled_enough = time.monotonic() + _BATCH_WAIT_S
        begun = 0
        group: list[_Wanted] = []
        while begun < most and not self._is_exhausted and not self._cancel.is_set():
            if time.monotonic() > pulled_enough and (group or not self._ready.empty()):
                break  # sources that come slowly do not hold up those that are there
            each = next(wanted, None)
            if each is None:
                self._is_exhausted = True
                break
            begun += 1
            if not is_small(each.media.source, max_bytes=MAX_TOGETHER_BYTES):
                self._submit(threads, [each])
                continue
            group.append(each)
            if len(group) == self._group:
                self._submit(threads, group)
                group = []
        if group:
            self._submit(threads, group)
        return begun

    def _submit(self, threads: ThreadPoolExecutor, group: Sequence[_Wanted]) -> None:
        threads.submit(copy_context().run, self._stage, group)  # in the trace of the caller

    def _collect(self, waiting: list[_Ready], most: int) -> None:
        waiting.append(self._ready.get())
        deadline = time.monotonic() + _BATCH_WAIT_S
        while len(waiting) < most:
            try:
                waiting.append(self._ready.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                return

    def _stage(self, group: Sequence[_Wanted]) -> None:
        left = [wanted.position for wanted in group]
        try:
            for ready in self._staged(group):
                left.remove(ready.position)
                self._ready.put(ready)
        except BaseException as error:
            for position in left:
                self._ready.put(_Ready(position=position, error=InvalidError(f"the source was left off: {error!r}")))
            raise

    def _staged(self, group: Sequence[_Wanted]) -> Iterator[_Ready]:
        """Receive a group, find out what it is, and store it: each by itself where one fails."""
        with ExitStack() as spools:
            incoming: list[tuple[_Wanted, Addition, Received]] = []
            for wanted in group:
                try:
                    addition = self._addition(wanted.media)
                    if isinstance(wanted.media.source, Staged):
                        yield _Ready(
                            position=wanted.position, staged=wanted.media.source, addition=addition, is_ours=False
                        )
                    else:
                        incoming.append((wanted, addition, spools.enter_context(self._received(wanted.media))))
                except Exception as error:  # noqa: BLE001 - a source is the host's, and each has its own result
                    yield _Ready(position=wanted.position, error=error)
            accepted: list[tuple[_Wanted, Addition, Accepted]] = []
            for (wanted, addition, received), probed in zip(incoming, self._probed(incoming), strict=True):
                if self._is_given_up:
                    return  # nobody waits for it any more
                try:
                    if probed is None:
                        staged = ingest.stage(self._apart, received, sanitize=self._is_sanitized(wanted.media))
                        yield _Ready(position=wanted.position, staged=staged, addition=addition)
                    else:
                        accepted.append((wanted, addition, self._accepted(wanted.media, received, probed)))
                except Exception as error:  # noqa: BLE001 - the host's hook is called
                    yield _Ready(position=wanted.position, error=error)
            yield from self._stored(accepted)

    def _stored(self, accepted: Sequence[tuple[_Wanted, Addition, Accepted]]) -> Iterator[_Ready]:
        """Store a group, together where the store can; each by itself where that fails."""
        together = self._stored_together([each for _, _, each in accepted])
        for (wanted, addition, each), stored in zip(accepted, together, strict=True):
            if self._is_given_up and stored is None:
                return  # a store that has failed may take its time for each
            try:
                staged = stored or ingest.store(self._apart, each)
            except Exception as error:  # noqa: BLE001 - a store may be the host's
                yield _Ready(position=wanted.position, error=error)
            else:
                yield _Ready(position=wanted.position, staged=staged, addition=addition)

    def _stored_together(self, accepted: Sequence[Accepted]) -> Sequence[Staged | None]:
        if self._apart.batches is not None and len(accepted) > 1:
            with suppress(Exception):  # a store may be the host's; each by itself tells what was wrong with which one
                return ingest.store_all(self._apart, self._apart.batches, accepted)
        return [None] * len(accepted)

    def _addition(self, wanted: MediaInput) -> Addition:
        return Addition.checked(
            description=wanted.description,
            metadata=wanted.metadata,
            expires_at=wanted.expires_at,
            on_duplicate=self._on_duplicate,
            initiated_by=self._context.initiator,
            settings=self._context.settings,
        )

    def _received(self, wanted: MediaInput) -> AbstractContextManager[Received]:
        assert not isinstance(wanted.source, Staged), "that has been received before"
        return ingest.received(self._apart, wanted.source, filename=wanted.filename, content_type=wanted.content_type)

    def _probed(self, incoming: Sequence[tuple[_Wanted, Addition, Received]]) -> Sequence[Probed | MindiaError | None]:
        """Return what several small ones are; None for what is to be found out when it is stored."""
        group = [received for _, _, received in incoming]
        if len(group) < 2 or any(each.spooled.size > MAX_TOGETHER_BYTES for each in group):
            return [None] * len(group)
        return self._context.prober.probe_all([each.unprobed for each in group], settings=group[0].settings)

    def _accepted(self, wanted: MediaInput, received: Received, probed: Probed | MindiaError) -> Accepted:
        if isinstance(probed, MindiaError):
            raise probed
        return ingest.accept(self._apart, received, probed, sanitize=self._is_sanitized(wanted))

    def _is_sanitized(self, wanted: MediaInput) -> bool:
        return self._sanitize if wanted.sanitize is None else wanted.sanitize

    def _write(self, batch: Sequence[_Ready]) -> None:
        """Write the rows of a batch in one transaction or, where that fails, each in its own."""
        staged = [ready for ready in batch if ready.error is None]
        try:
            items = self._added(staged)
        except DatabaseUnavailableError as error:
            items = [error for _ in staged]  # they may be committed all the same: the sweep will see
        except MindiaError:
            items = [self._added_alone(ready) for ready in staged]
        for ready, item in zip(staged, items, strict=True):
            self._results[ready.position] = (
                AddResult(position=ready.position, error=item)
                if isinstance(item, Exception)
                else AddResult(position=ready.position, media=item)
            )
        for ready in batch:
            if ready.error is not None:
                self._results[ready.position] = AddResult(position=ready.position, error=ready.error)
        self._discard(staged)
        self._report(batch)

    def _added(self, batch: Sequence[_Ready]) -> Sequence[Media | Exception]:
        if not batch:
            return []
        context = self._context
        additions = [ready.addition for ready in batch if ready.addition is not None]
        news = [
            adding.prepared(context, ready.staged, ready.addition)
            for ready in batch
            if ready.staged is not None and ready.addition is not None
        ]
        if self._on_duplicate is OnDuplicate.STORE:
            return context.as_member.run(lambda session: adding.add_all(session, news), single=True)

        def work(session: Session) -> list[Media | ConflictError]:
            done: dict[int, Media | ConflictError] = {}
            # In one order for all, so that two that add the same bytes wait for each other rather than collide.
            for at in sorted(range(len(news)), key=lambda at: news[at].staged.sha256):
                done[at] = adding.add_unless_there(session, news[at], additions[at])
            return [done[at] for at in range(len(news))]

        return context.as_member.run(work)

    def _added_alone(self, ready: _Ready) -> Media | Exception:
        try:
            return self._added([ready])[0]
        except MindiaError as error:
            return error

    def _report(self, batch: Sequence[_Ready]) -> None:
        for ready in batch:
            self._done += 1
            self._failed += self._results[ready.position].error is not None
            if self._progress is not None:
                self._progress(Progress(done=self._done, failed=self._failed, total=self._total))

    def _discard(self, batch: Iterable[_Ready]) -> None:
        """Remove the bytes that we have staged and no item was made of."""
        for ready in batch:
            result = self._results.get(ready.position)
            if ready.staged is None or not ready.is_ours:
                continue
            if result is not None and isinstance(result.error, DatabaseUnavailableError):
                continue  # the item may be there
            if result is None or result.media is None or result.media.id != ready.staged.id:
                ingest.discard(self._apart, ready.staged)

    def _left_over(self) -> Iterator[_Ready]:
        while True:
            try:
                yield self._ready.get_nowait()
            except queue.Empty:
                return


def _numbered(sources: Iterable[Source | Staged | MediaInput]) -> Iterator[_Wanted]:
    for position, source in enumerate(sources):
        yield _Wanted(position, source if isinstance(source, MediaInput) else MediaInput(source))
