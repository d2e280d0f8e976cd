"""Calls a handler in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any

from mindia.errors import ProcessDiedError

if TYPE_CHECKING:
    from mindia.worker.context import Control

_POLL_S = 0.1


def call(handler: Callable[[Any], object], payload: object, control: Control) -> object:
    """Return what a handler returns, or raise what it raises; the process is killed where the task is to end.

    Raises:
        ProcessDiedError: The process ended without an answer: it was killed, or has left by itself.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(theirs, handler, payload), daemon=True)
    process.start()
    theirs.close()
    answer: bytes | None = None
    try:
        with control.killing(lambda: _kill(process)):
            # Not until the pipe is closed: what the handler has started may hold it open.
            while not ours.poll(_POLL_S) and not _has_ended(process):
                pass
            if ours.poll():
                with suppress(EOFError):
                    answer = ours.recv_bytes()
    finally:
        ours.close()
        _kill(process)
        process.join()
    control.check()
    if answer is None:
        raise ProcessDiedError(f"the process of the handler ended without an answer, with exit code {process.exitcode}")
    returned, error = pickle.loads(answer)  # noqa: S301 - of our own process
    if error is not None:
        raise error
    result: object = returned
    return result


def _has_ended(process: SpawnProcess) -> bool:
    try:
        return os.waitid(os.P_PID, _pid_of(process), os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # somebody else has waited for it
        return True


def _kill(process: SpawnProcess) -> None:
    """Kill a process, with what it has started; until it is waited for, its number is nobody else's."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(_pid_of(process), signal.SIGKILL)
    process.kill()


def _pid_of(process: SpawnProcess) -> int:
    assert process.pid is not None, "it was started"
    return process.pid


def _main(answer: Connection, handler: Callable[[Any], object], payload: object) -> None:
    os.setsid()  # so that what it starts can be ended with it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result: tuple[object, BaseException | None] = (handler(payload), None)
    except BaseException as error:  # noqa: BLE001 - goes on in the worker
        with suppress(Exception):
            error.add_note("".join(traceback.format_exception(error)))  # which is not pickled
        result = (None, error)
    answer.send_bytes(_pickled(result))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


def _pickled(result: tuple[object, BaseException | None]) -> bytes:
    """Return what goes to the worker; where that could not read it, an error that says so."""
    try:
        pickled = pickle.dumps(result)
        pickle.loads(pickled)  # noqa: S301 - our own; an exception may be written and yet not be read
    except Exception as error:  # noqa: BLE001 - of the host's own class; what it says goes on
        returned, raised = result
        what = f"{returned!r:.1000}" if raised is None else f"{type(raised).__name__}: {raised!s:.1000}"
        pickled = pickle.dumps((None, RuntimeError(f"{what} (which cannot be handed back: {error})")))
    return pickled
