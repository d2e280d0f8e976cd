"""Where the calls of an asyncio host run: in threads of the application's own, as many as it has connections.

They run in a copy of the caller's context, as with `asyncio.to_thread`: what they do belongs to its trace.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, suppress
from contextvars import copy_context
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar, overload
from weakref import WeakKeyDictionary

from mindia._handles import Handle
from mindia.domain.media import Staged
from mindia.errors import ClosedError
from mindia.services.sources import Source

T = TypeVar("T")

AsyncSource = Source | AsyncIterable[bytes]
"""What the synchronous calls take, or something that yields bytes asynchronously, as the body of a request does."""

_AT_ONCE = 100
_LOOK_S = 1.0


class Lane(Protocol):
    """Where calls run."""

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in a thread, and return what it returns. Who is cancelled returns at once."""


class Threads(Handle):
    """Threads of an application's own; what finds none free waits, without a thread, until it is its turn.

    Args:
        size: How many there are at most.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._by_process: dict[int, ThreadPoolExecutor] = {}
        self._answers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Answers] = WeakKeyDictionary()
        self._closed = False

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in a thread. A call that is cancelled while it waits is not begun."""
        loop = asyncio.get_running_loop()
        answers = self._answers.get(loop)
        if answers is None:
            answers = self._answers[loop] = _Answers(loop)
        waiter: asyncio.Future[T] = loop.create_future()
        future = self._submit(function)
        future.add_done_callback(partial(answers.give, waiter))
        try:
            return await waiter
        except asyncio.CancelledError:
            future.cancel()
            raise

    def one(self) -> OneThread:
        """Return a thread for the calls of one transaction: it must not wait for those who wait for its connection."""
        self._check_open()
        return OneThread()

    def close(self) -> None:
        """Begin no further calls; those that are under way end by themselves."""
        self._closed = True
        executor = self._by_process.pop(os.getpid(), None)
        if executor is not None:
            executor.shutdown(wait=False)

    def _submit(self, function: Callable[[], T]) -> Future[T]:
        self._check_open()
        process = os.getpid()  # the threads of a parent are not in its forked child
        executor = self._by_process.get(process)
        if executor is None:
            executor = self._by_process[process] = ThreadPoolExecutor(self._size, thread_name_prefix="mindia-aio")
        return executor.submit(copy_context().run, function)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(
                "this application is closed: make another one with mindia.aio.connect() or mindia.aio.local()"
            )


class _Answers:
    """Gives a loop what threads found out, all that there is at once.

    Waking a loop for each answer makes a thread give up the interpreter's lock each time, for which all of them wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._given: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._is_told = False

    def give(self, waiter: asyncio.Future[T], future: Future[T]) -> None:
        """Answer who waits; called in any thread."""
        self._given.append((waiter, future))
        loop = self._loop()
        if not self._is_told and loop is not None:
            self._is_told = True
            _tell(loop, self._answer)

    def _answer(self) -> None:
        self._is_told = False  # before looking: who comes from now on tells anew
        while self._given:
            waiter, future = self._given.popleft()
            if waiter.done() or future.cancelled():
                continue  # has gone
            error = future.exception()
            if isinstance(error, StopIteration):  # which no future takes
                error = RuntimeError(f"a call raised {error!r}")
            if error is None:
                waiter.set_result(future.result())
            else:
                waiter.set_exception(error)


class OneThread(Handle):
    """A thread of one transaction, which runs its calls one after the other."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="mindia-aio-transaction")
        self._lock: asyncio.Lock | None = None
        self._before: Callable[[], None] = lambda: None
        self._last: Future[Any] | None = None

    def take(self, lock: asyncio.Lock, *, before: Callable[[], None]) -> None:
        """Hold a lock while a call runs, also where its caller has gone.

        Args:
            lock: That of the connection that the calls are on.
            before: Raises where a call would wait for one who holds the lock for longer than a statement.
        """
        self._lock, self._before = lock, before

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function after those before it."""
        lock = self._lock
        if lock is None:
            return await asyncio.wrap_future(self.submit(function))
        if self._last is None or self._last.done():
            self._before()
        await lock.acquire()
        try:
            future = self.submit(function)
        except BaseException:
            lock.release()
            raise
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: _tell(loop, lock.release))
        return await asyncio.shield(asyncio.wrap_future(future))

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Have a function run after those before it, whether or not anybody waits for it."""
        try:
            future = self._executor.submit(copy_context().run, function)
        except RuntimeError as error:
            raise ClosedError("this transaction has ended: begin another one with library.transaction()") from error
        self._last = future
        return future

    def close(self) -> None:
        """End the thread, once it has run what it was given."""
        self._executor.shutdown(wait=False)


async def to_the_end(function: Callable[[], T]) -> T:
    """Run a function in a thread of its own, to its end, whoever is cancelled meanwhile."""
    return await asyncio.wrap_future(_apart(function))


async def opened(make: Callable[[], T], close: Callable[[T], object]) -> T:
    """Return what a function makes in a thread of its own; what it makes for nobody any more is closed there.

    Args:
        make: The function.
        close: Is called with what it has made, where the caller was cancelled meanwhile.
    """
    making = _apart(make)
    try:
        return await asyncio.wrap_future(making)
    except asyncio.CancelledError:
        _apart(lambda: _closed(making, close))
        raise


def _closed(making: Future[T], close: Callable[[T], object]) -> None:
    if making.exception() is None:  # waits until it is known
        close(making.result())


def _apart(function: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # so that who is cancelled does not cancel it
    context = copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            future.set_exception(error)

    threading.Thread(target=work, name="mindia-aio-apart").start()
    return future


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop was closed, and nobody waits any more
        loop.call_soon_threadsafe(function)


@asynccontextmanager
async def entered(thread: OneThread, manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a context manager in a thread; what was entered is left, whoever is cancelled meanwhile."""
    stack = ExitStack()
    try:
        yield await thread.run(lambda: stack.enter_context(manager))
    except asyncio.CancelledError as error:
        thread.submit(partial(stack.__exit__, type(error), error, None))  # it is rolled back without being waited for
        raise
    except BaseException as error:
        await thread.run(partial(stack.__exit__, type(error), error, error.__traceback__))
        raise
    else:
        await thread.run(stack.close)


async def iterate(lane: Lane, begin: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """Yield what an iterator yields that waits for the database, some at a time."""
    iterator = await lane.run(begin)

    def some() -> tuple[list[T], BaseException | None]:
        items: list[T] = []
        try:
            items.extend(islice(iterator, _AT_ONCE))
        except Exception as error:  # noqa: BLE001 - raised behind the items that came before it
            return items, error
        return items, None

    while True:
        items, error = await lane.run(some)
        for item in items:
            yield item
        if error is not None:
            raise error
        if len(items) < _AT_ONCE:
            return


@overload
def as_source(source: AsyncSource) -> Source: ...
@overload
def as_source(source: AsyncSource | Staged) -> Source | Staged: ...
def as_source(source: AsyncSource | Staged) -> Source | Staged:
    """Return a source that a thread can read, of one that yields asynchronously."""
    if not isinstance(source, AsyncIterable):
        return source
    return _pulled(source, asyncio.get_running_loop())


def _pulled(source: AsyncIterable[bytes], loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    pieces = aiter(source)

    async def piece() -> bytes | None:
        return await anext(pieces, None)

    while True:
        waiting = piece()
        try:
            future = asyncio.run_coroutine_threadsafe(waiting, loop)
        except RuntimeError:
            waiting.close()
            raise
        while not future.done() and not loop.is_closed():
            try:
                future.result(_LOOK_S)
            except TimeoutError:
                continue
        if not future.done():
            raise RuntimeError("the event loop was closed while a source was read from it")
        found = future.result()
        if found is None:
            return
        yield found
