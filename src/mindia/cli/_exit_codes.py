"""What the command line ends with."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes, as docs/cli.md has them.

    Attributes:
        OK: All went well.
        ERROR: Something failed, and nothing below says it better.
        USAGE: The command line, a setting or a value is not what it should be.
        NOT_FOUND: There is no such thing.
        REFUSED: It may not be done: by this user, with these rights, for this tenant.
        CONFLICT: It contradicts what is stored.
        UNAVAILABLE: The database or the object store cannot be used now; the same command may succeed later.
        INTERRUPTED: By Ctrl-C.
        BROKEN_PIPE: Nobody reads what is written any more, as with `mindia list | head`.
    """

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    CONFLICT = 5
    UNAVAILABLE = 6
    INTERRUPTED = 130
    BROKEN_PIPE = 141


def exit_code_of(error: BaseException) -> ExitCode:
    """Return what the command line ends with for an error."""
    from mindia import errors

    refused = (
        errors.PermissionDeniedError,
        errors.AuthenticationError,
        errors.TenantInactiveError,
        errors.RoleError,
        errors.SignatureError,
        errors.StorageAccessDeniedError,
    )
    # The first that fits counts: files that are refused are no mistakes on the command line.
    codes: tuple[tuple[tuple[type[BaseException], ...], ExitCode], ...] = (
        ((KeyboardInterrupt,), ExitCode.INTERRUPTED),
        ((BrokenPipeError,), ExitCode.BROKEN_PIPE),
        (refused, ExitCode.REFUSED),
        ((errors.MediaError, errors.ArchiveError), ExitCode.ERROR),
        ((errors.NotFoundError, errors.ObjectNotFoundError, errors.BucketNotFoundError), ExitCode.NOT_FOUND),
        ((errors.ConflictError, errors.BucketNotEmptyError), ExitCode.CONFLICT),
        ((errors.InvalidError,), ExitCode.USAGE),
        ((errors.EmbeddedServerError,), ExitCode.UNAVAILABLE),
    )
    for kinds, code in codes:
        if isinstance(error, kinds):
            return code
    if isinstance(error, errors.MindiaError):
        return ExitCode.UNAVAILABLE if error.retryable else ExitCode.ERROR
    return ExitCode.UNAVAILABLE if isinstance(error, TimeoutError) else ExitCode.ERROR
