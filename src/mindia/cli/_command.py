"""What all commands have in common: their options, the library they work on, and how they end."""

from __future__ import annotations

import functools
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from mindia.cli._exit_codes import ExitCode, exit_code_of
from mindia.cli._output import Output, close_output
from mindia.cli._settings import Configuration, Flags

if TYPE_CHECKING:
    from mindia import Library, Mindia, Tenant
    from mindia.services.task_queue import TaskQueue

P = ParamSpec("P")

_COMMON: dict[str, tuple[Any, object]] = {
    "as_json": (Annotated[bool, typer.Option("--json", help="Print lines of JSON.")], False),
    "is_quiet": (Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors alone.")], False),
    "config": (
        Annotated[str | None, typer.Option("--config", metavar="FILE", help="TOML file. [mindia.toml]")],
        None,
    ),
    "home": (
        Annotated[str | None, typer.Option("--home", metavar="FOLDER", help="Folder of an embedded library.")],
        None,
    ),
    "database_url": (
        Annotated[
            str | None,
            typer.Option("--database", metavar="URL", help="PostgreSQL server, without a password."),
        ],
        None,
    ),
    "ask_password": (
        Annotated[bool, typer.Option("--ask-password", "-W", help="Ask for the password of the database.")],
        False,
    ),
    "storage": (
        Annotated[
            str | None,
            typer.Option("--storage", metavar="ADDRESS", help="Folder, or s3://bucket/prefix?endpoint=URL."),
        ],
        None,
    ),
    "app": (
        Annotated[
            str | None,
            typer.Option("--app", metavar="MODULE:NAME", help="The host's own Mindia, or a function that makes it."),
        ],
        None,
    ),
    "tenant": (
        Annotated[str | None, typer.Option("--tenant", "-t", metavar="NAME", help="Name or id of the tenant.")],
        None,
    ),
    "settings": (
        Annotated[
            list[str] | None,
            typer.Option("--set", metavar="NAME=VALUE", help="A field of Settings; may be repeated."),
        ],
        None,
    ),
}


class Cli:
    """What a command works with. What it opens is closed when the command ends.

    Attributes:
        out: Where results go.
        flags: What the command line says of the library.
        undo: What is done at the end.
    """

    def __init__(self, *, out: Output, flags: Flags, ask_password: bool, undo: ExitStack) -> None:
        self.out = out
        self.flags = flags
        self.undo = undo
        self._ask_password = ask_password

    @functools.cached_property
    def configuration(self) -> Configuration:
        """What is in force."""
        return Configuration.read(self.flags)

    @functools.cached_property
    def app(self) -> Mindia:
        """The application."""
        from mindia.cli._connect import opened
        from mindia.cli._values import secret_of

        configuration = self.configuration
        password = None
        if self._ask_password:
            password = secret_of("Password of the database", variable="PGPASSWORD")
        return self.undo.enter_context(opened(configuration, password=password))

    @functools.cached_property
    def tenant(self) -> Tenant:
        """The tenant that is meant."""
        from mindia.cli._connect import tenant_of

        return tenant_of(self.app, self.configuration.tenant)

    @property
    def library(self) -> Library:
        """All that belongs to that tenant."""
        return self.app.library(self.tenant)

    def tasks(self, *, of_system: bool) -> TaskQueue:
        """Return the tasks of the tenant, or those without one."""
        return self.app.tasks if of_system else self.library.tasks


def command(
    group: typer.Typer, name: str
) -> Callable[[Callable[Concatenate[Cli, P], object]], Callable[Concatenate[Cli, P], object]]:
    """Add a function to a group of commands, with the options that all have; it may return an exit code.

    Args:
        group: The group.
        name: Of the command.
    """

    def register(function: Callable[Concatenate[Cli, P], object]) -> Callable[Concatenate[Cli, P], object]:
        def run(**given: Any) -> None:
            common = {option: given.pop(option) for option in _COMMON}
            sys.exit(_run(lambda cli: function(cli, **given), **common))  # type: ignore[call-arg]  # by their names

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        shared = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for option, (annotation, default) in _COMMON.items()
        ]
        # Typer reads the signature: what a command takes by itself, then what all take.
        run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        group.command(name)(run)
        return function

    return register


def _run(
    work: Callable[[Cli], object], *, as_json: bool, is_quiet: bool, ask_password: bool, settings: Any, **flags: Any
) -> ExitCode:
    out = Output(as_json=as_json, is_quiet=is_quiet)
    try:
        with ExitStack() as undo:
            cli = Cli(
                out=out,
                flags=Flags(**flags, settings=tuple(settings or ())),
                ask_password=ask_password,
                undo=undo,
            )
            code = work(cli)
            sys.stdout.flush()
    except BrokenPipeError:
        close_output()
        return ExitCode.BROKEN_PIPE
    except KeyboardInterrupt:
        out.warn("interrupted")
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - told, and the exit code says of which kind it was
        return _failed(out, error)
    return code if isinstance(code, ExitCode) else ExitCode.OK


def _failed(out: Output, error: Exception) -> ExitCode:
    from mindia.cli._json import error_fields
    from mindia.errors import MindiaError

    code = exit_code_of(error)
    if not isinstance(error, MindiaError | OSError | ImportError):
        import traceback

        out.warn(traceback.format_exc().rstrip())
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    out.warn(f"mindia: {str(error) or type(error).__name__}{notes}")
    if out.as_json:
        try:
            out.item(error_fields(error) | {"exit_code": int(code)}, kind="error", shown=())
            sys.stdout.flush()
        except BrokenPipeError:
            close_output()
    return code


@contextmanager
def interruptible(out: Output, *, what: str) -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets, so that what is under way is finished; the second one breaks off.

    Args:
        out: Where that is said.
        what: What is finished.
    """
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()
        out.warn(f"finishing {what}; once more breaks off")

    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGINT, before)
