"""All errors that Mindia raises, as one tree under `MindiaError`.

Every error has a stable `code`, an `http_status` for hosts that serve HTTP, and `retryable`: whether the same call may
succeed later without being changed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import ClassVar

_LONGEST_WAIT = timedelta(days=3660)


class MindiaError(Exception):
    """Anything that Mindia raises."""

    code: ClassVar[str] = "mindia_error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False


class InvalidError(MindiaError, ValueError):
    """An argument has a value that is not allowed."""

    code = "invalid"
    http_status = 400


class ForbiddenAddressError(InvalidError):
    """A URL, a name or an address leads where nothing may be sent: a private network, another protocol's port."""

    code = "forbidden_address"


class HostNotFoundError(MindiaError, ConnectionError):
    """A host name has no address, or cannot be looked up now."""

    code = "host_not_found"
    http_status = 503
    retryable = True


class DownloadError(MindiaError):
    """A URL does not give a file."""

    code = "download"
    http_status = 422


class DownloadFailedError(DownloadError, ConnectionError):
    """A URL does not give a file now: its server cannot be reached, is too slow, breaks off, or refuses for a while."""

    code = "download_failed"
    http_status = 503
    retryable = True


class ArchiveError(InvalidError):
    """The file is no archive of a tenant, or one that was damaged or made to do harm."""

    code = "invalid_archive"
    http_status = 422


class NotFoundError(MindiaError, LookupError):
    """There is no such thing, or it belongs to another tenant."""

    code = "not_found"
    http_status = 404


class ConflictError(MindiaError):
    """The call contradicts what is stored."""

    code = "conflict"
    http_status = 409


class AlreadyExistsError(ConflictError):
    """A value that must be unique is taken."""

    code = "already_exists"


class DuplicateError(AlreadyExistsError):
    """The tenant has an item of the same bytes, and `on_duplicate` is `error`."""

    code = "duplicate"


class StagedObjectExpiredError(ConflictError):
    """The staged object was swept, already added, or belongs to another tenant."""

    code = "staged_object_expired"


class StreamNotReadyError(ConflictError):
    """A video has no streaming form yet, or none could be made."""

    code = "stream_not_ready"


class UploadIncompleteError(ConflictError):
    """Not all bytes of an upload are there, or not as many as were announced."""

    code = "upload_incomplete"


class UploadClosedError(ConflictError):
    """The upload was completed or aborted before."""

    code = "upload_closed"


class UploadExpiredError(ConflictError):
    """The time of the upload is over."""

    code = "upload_expired"
    http_status = 410


class TenantInactiveError(MindiaError):
    """The tenant is suspended or deleted."""

    code = "tenant_inactive"
    http_status = 403


class PermissionDeniedError(MindiaError, PermissionError):
    """The user or API key on whose behalf the call is made may not do that, or is not active."""

    code = "permission_denied"
    http_status = 403


class AuthenticationError(MindiaError):
    """The e-mail address and the password, or the API key, are not those of somebody who may log in."""

    code = "authentication"
    http_status = 401


class LockedOutError(AuthenticationError):
    """There were too many failed attempts; later ones may succeed.

    Attributes:
        until: From when on, in UTC.
    """

    code = "locked_out"
    http_status = 429
    retryable = True

    def __init__(self, message: str, *, until: datetime | None = None) -> None:
        super().__init__(message)
        self.until = until


class QuotaExceededError(ConflictError):
    """The tenant would have more items or bytes than its quota allows."""

    code = "quota_exceeded"


class MediaError(InvalidError):
    """The bytes cannot be taken in as media."""

    code = "invalid_media"
    http_status = 422


class EmptyFileError(MediaError):
    """The source has no bytes."""

    code = "empty_file"


class UnsupportedTypeError(MediaError):
    """The bytes are of a type that is not allowed."""

    code = "unsupported_type"
    http_status = 415


class TypeMismatchError(MediaError):
    """The bytes are of another type than the filename or the declared type says."""

    code = "type_mismatch"


class TooLargeError(MediaError):
    """The source exceeds a limit: bytes, pixels, duration or pages."""

    code = "too_large"
    http_status = 413


class CorruptMediaError(MediaError):
    """The parser of the format refuses the bytes."""

    code = "corrupt_media"


class RejectedError(MediaError):
    """Raised by the scan hook of the host: the bytes are not to be stored."""

    code = "rejected"


class SignatureError(MindiaError, PermissionError):
    """A signed URL has expired, was changed, or was signed with another key."""

    code = "signature"
    http_status = 403


class WebhookSignatureError(MindiaError):
    """What came as a webhook was not signed with the secret of its receiver, or too long ago, or is no webhook."""

    code = "webhook_signature"
    http_status = 401


class ClosedError(MindiaError, RuntimeError):
    """The handle or the transaction has ended."""

    code = "closed"


class TransactionError(MindiaError, RuntimeError):
    """A transaction is used in a way that could not keep its promise."""

    code = "transaction"


class NotPicklableError(MindiaError, TypeError):
    """A handle cannot move to another process."""

    code = "not_picklable"


class MissingExtraError(MindiaError, ImportError):
    """An optional dependency is not installed."""

    code = "missing_extra"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(what, extra)  # as they are: an exception is pickled by its arguments
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.args[0]} needs an optional dependency: pip install 'mindia[{self.extra}]'"


class DatabaseError(MindiaError):
    """PostgreSQL refused a statement of ours."""

    code = "database"


class RoleError(DatabaseError):
    """The role on the server may not do what the call takes."""

    code = "role"


class DatabaseUnavailableError(DatabaseError, ConnectionError):
    """PostgreSQL cannot be reached, or the connection was lost."""

    code = "database_unavailable"
    http_status = 503
    retryable = True


class ConnectionLostError(DatabaseUnavailableError):
    """The connection broke while it was in use."""

    code = "connection_lost"


class TransactionConflictError(DatabaseError):
    """The transaction collided with another one (serialization failure or deadlock)."""

    code = "transaction_conflict"
    http_status = 503
    retryable = True


class DatabaseTooOldError(DatabaseError):
    """PostgreSQL or pgvector is older than Mindia supports."""

    code = "database_too_old"


class SchemaError(DatabaseError):
    """The tables of the database do not fit this version of Mindia."""

    code = "schema"


class SchemaOutOfDateError(SchemaError):
    """Migrations of this version have not been applied."""

    code = "schema_out_of_date"


class SchemaTooNewError(SchemaError):
    """A newer version of Mindia has migrated this database."""

    code = "schema_too_new"


class MigrationDriftError(SchemaError):
    """A migration that was applied differs from the one in this version."""

    code = "migration_drift"


class EmbeddedServerError(DatabaseUnavailableError):
    """The embedded PostgreSQL server cannot be made or started."""

    code = "embedded_server"
    retryable = False


class ParserUnavailableError(MindiaError):
    """The child process that would parse a file cannot be started."""

    code = "parser_unavailable"
    http_status = 503
    retryable = True


class StorageError(MindiaError):
    """The object store failed."""

    code = "storage"
    http_status = 503


class StorageUnavailableError(StorageError):
    """The object store cannot be reached, or refuses for now."""

    code = "storage_unavailable"
    retryable = True


class StorageAccessDeniedError(StorageError):
    """The object store refuses the credentials, what they may do, or the time that the clock of this machine tells."""

    code = "storage_access_denied"


class BucketNotFoundError(StorageError, LookupError):
    """There is no such bucket, and it is not to be made, or may not."""

    code = "bucket_not_found"


class ObjectNotFoundError(StorageError, LookupError):
    """There is no object under that key."""

    code = "object_not_found"
    http_status = 404


class BucketNotEmptyError(StorageError):
    """A bucket that is to be deleted has objects, or something is being put into it."""

    code = "bucket_not_empty"
    http_status = 409


class EmbeddingError(MindiaError):
    """An embedder returned something that is not a usable vector."""

    code = "embedding"


class ProviderError(MindiaError):
    """The server of a model refused, or answered with what is no answer.

    Attributes:
        status: The status of its HTTP response, or None.
    """

    code = "provider"
    http_status = 502

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ProviderUnavailableError(ProviderError):
    """The server of a model cannot be reached, is busy, or has failed.

    Attributes:
        retry_after: After which time it wants to be asked again, or None.
    """

    code = "provider_unavailable"
    http_status = 503
    retryable = True

    @property
    def is_outage(self) -> bool:
        """Whether it says nothing of what was asked: some servers answer 500 to a text that is too long."""
        return self.status != 500

    def __init__(self, message: str, *, status: int | None = None, retry_after: timedelta | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class SpaceMismatchError(ConflictError):
    """The vectors that are there and the embedder are of different models, and so cannot be compared."""

    code = "space_mismatch"


class TaskTimedOutError(MindiaError, TimeoutError):
    """The attempt took longer than the task may."""

    code = "task_timed_out"


class TaskCancelledError(MindiaError):
    """The task was called off while it ran, or was taken away from this worker."""

    code = "task_cancelled"
    http_status = 409


class ProcessDiedError(MindiaError):
    """The process of a handler ended without an answer: it was killed, or has left by itself."""

    code = "process_died"


class TranscodingError(MindiaError):
    """A video could not be encoded.

    Attributes:
        is_final: Whether the video is at fault, so that trying again would not help.
    """

    code = "transcoding"

    def __init__(self, message: str, *, is_final: bool = True) -> None:
        super().__init__(message)
        self.is_final = is_final

    def __reduce__(self) -> tuple[partial[TranscodingError], tuple[object, ...]]:
        return partial(type(self), is_final=self.is_final), self.args


class DiscardTask(MindiaError):  # noqa: N818 - an instruction to the worker, not a failure of ours
    """Raised by a handler: the task can never succeed, so do not retry it."""

    code = "discard_task"


class SnoozeTask(MindiaError):  # noqa: N818 - an instruction to the worker, not a failure of ours
    """Raised by a handler: not now. The task runs again after a time, and no retry is used up."""

    code = "snooze_task"

    def __init__(self, delay: timedelta) -> None:
        super().__init__(_checked_wait(delay))
        self.delay = delay


class RetryTask(MindiaError):  # noqa: N818 - an instruction to the worker, not a failure of ours
    """Raised by a handler: this attempt has failed, and the next one is to come after a time of its choice."""

    code = "retry_task"

    def __init__(self, message: str, *, after: timedelta) -> None:
        super().__init__(message)
        self.after = _checked_wait(after)

    def __reduce__(self) -> tuple[partial[RetryTask], tuple[object, ...]]:
        return partial(type(self), after=self.after), self.args


def _checked_wait(wait: timedelta) -> timedelta:
    if not isinstance(wait, timedelta) or not timedelta() <= wait <= _LONGEST_WAIT:
        raise InvalidError(f"a task waits for nothing to {_LONGEST_WAIT.days} days, not {wait!r}")
    return wait
