"""The tree of errors, as hosts catch and map it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest

import mindia
from mindia import errors
from mindia.errors import MindiaError

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__]
ERRORS = [value for value in CLASSES if issubclass(value, MindiaError)]

INSTRUCTIONS = (errors.DiscardTask, errors.RetryTask, errors.SnoozeTask)
"""What a handler raises to tell its worker what to do."""


def test_every_error_is_a_mindia_error() -> None:
    assert ERRORS == CLASSES
    assert mindia.MindiaError is MindiaError


def test_no_error_is_defined_elsewhere() -> None:
    for module in pkgutil.walk_packages(mindia.__path__, prefix="mindia."):
        importlib.import_module(module.name)
    pending, found = [MindiaError], set()
    while pending:
        error = pending.pop()
        found.add(error)
        pending += error.__subclasses__()
    assert {error for error in found if error.__module__.startswith("mindia.")} == set(ERRORS)


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_has_a_code_of_its_own(error: type[MindiaError]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", vars(error)["code"])
    assert [other for other in ERRORS if other.code == error.code] == [error]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_maps_to_an_http_error(error: type[MindiaError]) -> None:
    assert HTTPStatus(error.http_status) >= HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("error", ERRORS)
def test_every_name_ends_in_error(error: type[MindiaError]) -> None:
    assert error.__name__.endswith("Error") or error in INSTRUCTIONS


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_says_what_it_means_in_its_own_words(error: type[MindiaError]) -> None:
    assert vars(error)["__doc__"]
    assert error.__doc__ is not None
    assert error.__doc__.splitlines()[0].endswith(".")


def test_the_codes_are_stable() -> None:
    """Hosts store and translate them: a code may be added here, never changed."""
    assert {error.__name__: (error.code, error.http_status, error.retryable) for error in ERRORS} == {
        "AlreadyExistsError": ("already_exists", 409, False),
        "ArchiveError": ("invalid_archive", 422, False),
        "AuthenticationError": ("authentication", 401, False),
        "BucketNotEmptyError": ("bucket_not_empty", 409, False),
        "BucketNotFoundError": ("bucket_not_found", 503, False),
        "ClosedError": ("closed", 500, False),
        "ConflictError": ("conflict", 409, False),
        "ConnectionLostError": ("connection_lost", 503, True),
        "CorruptMediaError": ("corrupt_media", 422, False),
        "DatabaseError": ("database", 500, False),
        "DatabaseTooOldError": ("database_too_old", 500, False),
        "DatabaseUnavailableError": ("database_unavailable", 503, True),
        "DownloadError": ("download", 422, False),
        "DownloadFailedError": ("download_failed", 503, True),
        "DuplicateError": ("duplicate", 409, False),
        "RejectedError": ("rejected", 422, False),
        "SignatureError": ("signature", 403, False),
        "DiscardTask": ("discard_task", 500, False),
        "EmbeddedServerError": ("embedded_server", 503, False),
        "EmbeddingError": ("embedding", 500, False),
        "EmptyFileError": ("empty_file", 422, False),
        "ForbiddenAddressError": ("forbidden_address", 400, False),
        "HostNotFoundError": ("host_not_found", 503, True),
        "InvalidError": ("invalid", 400, False),
        "LockedOutError": ("locked_out", 429, True),
        "MediaError": ("invalid_media", 422, False),
        "MigrationDriftError": ("migration_drift", 500, False),
        "MindiaError": ("mindia_error", 500, False),
        "MissingExtraError": ("missing_extra", 500, False),
        "NotFoundError": ("not_found", 404, False),
        "NotPicklableError": ("not_picklable", 500, False),
        "ObjectNotFoundError": ("object_not_found", 404, False),
        "ParserUnavailableError": ("parser_unavailable", 503, True),
        "PermissionDeniedError": ("permission_denied", 403, False),
        "ProcessDiedError": ("process_died", 500, False),
        "ProviderError": ("provider", 502, False),
        "ProviderUnavailableError": ("provider_unavailable", 503, True),
        "QuotaExceededError": ("quota_exceeded", 409, False),
        "RetryTask": ("retry_task", 500, False),
        "RoleError": ("role", 500, False),
        "SchemaError": ("schema", 500, False),
        "SchemaOutOfDateError": ("schema_out_of_date", 500, False),
        "SchemaTooNewError": ("schema_too_new", 500, False),
        "SnoozeTask": ("snooze_task", 500, False),
        "SpaceMismatchError": ("space_mismatch", 409, False),
        "StreamNotReadyError": ("stream_not_ready", 409, False),
        "StagedObjectExpiredError": ("staged_object_expired", 409, False),
        "StorageAccessDeniedError": ("storage_access_denied", 503, False),
        "StorageError": ("storage", 503, False),
        "StorageUnavailableError": ("storage_unavailable", 503, True),
        "TaskCancelledError": ("task_cancelled", 409, False),
        "TaskTimedOutError": ("task_timed_out", 500, False),
        "TenantInactiveError": ("tenant_inactive", 403, False),
        "TooLargeError": ("too_large", 413, False),
        "TranscodingError": ("transcoding", 500, False),
        "TransactionConflictError": ("transaction_conflict", 503, True),
        "TransactionError": ("transaction", 500, False),
        "TypeMismatchError": ("type_mismatch", 422, False),
        "UnsupportedTypeError": ("unsupported_type", 415, False),
        "WebhookSignatureError": ("webhook_signature", 401, False),
        "UploadClosedError": ("upload_closed", 409, False),
        "UploadExpiredError": ("upload_expired", 410, False),
        "UploadIncompleteError": ("upload_incomplete", 409, False),
    }


@pytest.mark.parametrize(
    ("error", "built_in"),
    [
        (errors.InvalidError, ValueError),
        (errors.MediaError, ValueError),
        (errors.ArchiveError, ValueError),
        (errors.NotFoundError, LookupError),
        (errors.BucketNotFoundError, LookupError),
        (errors.ObjectNotFoundError, LookupError),
        (errors.ClosedError, RuntimeError),
        (errors.TransactionError, RuntimeError),
        (errors.NotPicklableError, TypeError),
        (errors.PermissionDeniedError, PermissionError),
        (errors.MissingExtraError, ImportError),
        (errors.DatabaseUnavailableError, ConnectionError),
        (errors.HostNotFoundError, ConnectionError),
        (errors.ConnectionLostError, ConnectionError),
        (errors.TaskTimedOutError, TimeoutError),
    ],
)
def test_an_error_is_also_the_built_in_one_that_means_the_same(
    error: type[MindiaError], built_in: type[Exception]
) -> None:
    assert issubclass(error, built_in)


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (errors.AlreadyExistsError, errors.ConflictError),
        (errors.StagedObjectExpiredError, errors.ConflictError),
        (errors.QuotaExceededError, errors.ConflictError),
        (errors.ForbiddenAddressError, errors.InvalidError),
        (errors.LockedOutError, errors.AuthenticationError),
        (errors.RoleError, errors.DatabaseError),
        (errors.CorruptMediaError, errors.MediaError),
        (errors.ConnectionLostError, errors.DatabaseUnavailableError),
        (errors.TransactionConflictError, errors.DatabaseError),
        (errors.SchemaOutOfDateError, errors.DatabaseError),
        (errors.EmbeddedServerError, errors.DatabaseUnavailableError),
        (errors.StorageUnavailableError, errors.StorageError),
        (errors.StorageAccessDeniedError, errors.StorageError),
        (errors.BucketNotFoundError, errors.StorageError),
    ],
)
def test_what_is_handled_alike_has_one_parent(error: type[MindiaError], parent: type[MindiaError]) -> None:
    assert issubclass(error, parent)


def test_an_error_that_may_pass_by_itself_is_one_of_the_servers_or_of_too_many_attempts() -> None:
    passing = {error.http_status for error in ERRORS if error.retryable}

    assert passing == {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}


def test_a_missing_extra_names_the_command_that_installs_it() -> None:
    error = errors.MissingExtraError("Reading video", extra="video")

    assert str(error) == "Reading video needs an optional dependency: pip install 'mindia[video]'"
    assert error.extra == "video"


@pytest.mark.parametrize("wait", [timedelta(seconds=-1), timedelta(days=4000), 5, None])
def test_a_task_waits_for_a_time_that_makes_sense(wait: Any) -> None:
    with pytest.raises(errors.InvalidError, match="a task waits for"):
        errors.SnoozeTask(wait)
    with pytest.raises(errors.InvalidError, match="a task waits for"):
        errors.RetryTask("busy", after=wait)


OF_ARGUMENTS = (errors.MissingExtraError, errors.RetryTask, errors.SnoozeTask)
"""Made of more, or of something else, than a message."""


@pytest.mark.parametrize("error", [error for error in ERRORS if error not in OF_ARGUMENTS])
def test_every_error_carries_its_message(error: type[MindiaError]) -> None:
    assert str(error("what was wrong")) == "what was wrong"
