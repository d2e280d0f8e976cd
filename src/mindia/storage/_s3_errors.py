"""What goes wrong with an S3 server, as errors of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from mindia.errors import (
    BucketNotEmptyError,
    BucketNotFoundError,
    ObjectNotFoundError,
    StorageAccessDeniedError,
    StorageError,
    StorageUnavailableError,
)

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

_KINDS: dict[type[StorageError], frozenset[str]] = {
    # Answers to HEAD have no body: their code is the status.
    ObjectNotFoundError: frozenset({"NoSuchKey", "NoSuchUpload", "404", "NotFound"}),
    BucketNotFoundError: frozenset({"NoSuchBucket"}),
    BucketNotEmptyError: frozenset({"BucketNotEmpty"}),
    StorageAccessDeniedError: frozenset(
        {
            "401",
            "403",
            "AccessDenied",
            "AccountProblem",
            "AllAccessDisabled",
            "AuthorizationHeaderMalformed",
            "BucketAlreadyExists",
            "ExpiredToken",
            "Forbidden",
            "InvalidAccessKeyId",
            "InvalidSecurity",
            "InvalidToken",
            "RequestExpired",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
            "TokenRefreshRequired",
            "TooManyBuckets",
        }
    ),
    StorageUnavailableError: frozenset(
        {
            "BadDigest",
            "ConditionalRequestConflict",
            "IncompleteBody",
            "InternalError",
            "OperationAborted",
            "QuotaExceeded",
            "RequestTimeout",
            "ServiceUnavailable",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "TooManyRequests",
            "XMinioStorageFull",
        }
    ),
}

_HINTS = {
    "InvalidAccessKeyId": "the server does not know the access key",
    "SignatureDoesNotMatch": "the secret access key is not right, or something on the way changes requests",
    "RequestTimeTooSkewed": "the clock of this machine and that of the server differ too much: set it",
    "ExpiredToken": "the temporary credentials have expired",
    "BucketAlreadyExists": "a bucket of this name belongs to somebody else: give the tenant another s3_bucket",
    "TooManyBuckets": "the account may have no more buckets: use one for all tenants, S3Storage(bucket=...)",
    "AccessDenied": "the account may not do this",
    "403": "the account may not do this, or the credentials are wrong",
    "NoSuchBucket": "there is no such bucket",
    "BucketNotEmpty": "the bucket has objects: delete them first",
}


@attrs.frozen
class Place:
    """What a call to the server is about, for messages.

    Attributes:
        endpoint: The server.
        bucket: The bucket, as the server knows it.
        key: The key, as the server knows it, or a prefix; empty where the call is about the bucket.
    """

    endpoint: str
    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return (
            f"{self.bucket}/{self.key} at {self.endpoint}" if self.key else f"bucket {self.bucket} at {self.endpoint}"
        )


@contextmanager
def typed(place: Place, what: str) -> Iterator[None]:
    """Turn what the library of the server's makers raises into errors of ours; the cause is kept.

    Args:
        place: What it is about.
        what: What was tried: "put", "list".
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise _of_answer(error, place, what) from error
    except BotoCoreError as error:
        raise _of_client(error, place, what) from error
    except ResponseParserError as error:
        raise StorageUnavailableError(f"{what} {place}: the answer is not that of an S3 server") from error


def code_of(error: BaseException | None) -> str:
    """Return the server's code of an error that was caused by an answer of the server, or nothing."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def of_code(code: str, message: str, place: Place, what: str, *, status: int = 400) -> StorageError:
    """Return the error that a code of the server stands for."""
    if place.key and code in _KINDS[ObjectNotFoundError]:
        return ObjectNotFoundError(f"{what}: there is no object {place.key!r} in bucket {place.bucket!r}")
    kind: type[StorageError] = next((kind for kind, codes in _KINDS.items() if code in codes), StorageError)
    if kind is ObjectNotFoundError:  # a bucket, of which the answer has no body
        kind = BucketNotFoundError
    if kind is StorageError and (status >= 500 or status == 429):
        kind = StorageUnavailableError
    hint = _HINTS.get(code, "")
    said = ": ".join(dict.fromkeys(part for part in (code, message[:300].strip()) if part and part != "None"))
    return kind(f"{what} {place} was refused: {hint}{' ' if hint else ''}({said or f'status {status}'})")


def _of_answer(error: ClientError, place: Place, what: str) -> StorageError:
    answer = error.response.get("Error", {})
    metadata = error.response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 400))
    return of_code(str(answer.get("Code", status)), str(answer.get("Message", "")), place, what, status=status)


def _of_client(error: BotoCoreError, place: Place, what: str) -> StorageError:
    from botocore import exceptions

    if isinstance(
        error,
        exceptions.NoCredentialsError
        | exceptions.PartialCredentialsError
        | exceptions.CredentialRetrievalError
        | exceptions.ProfileNotFound
        | exceptions.TokenRetrievalError
        | exceptions.UnauthorizedSSOTokenError,
    ):
        return StorageAccessDeniedError(
            f"{what} {place}: no credentials ({type(error).__name__}); give access_key_id and secret_access_key to "
            "S3Storage, or let boto3 find them in the environment, a profile or the machine's role"
        )
    passing = (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.ResponseStreamingError,
    )
    if isinstance(error, passing) and not isinstance(error, exceptions.SSLError):
        return StorageUnavailableError(f"{what} {place}: the server cannot be reached, or broke off ({_short(error)})")
    return StorageError(f"{what} {place} is not possible: {_short(error)}")


def _short(error: BaseException) -> str:
    """Return what an error says, without the query of an address, which may be signed."""
    text = " ".join(word.partition("?")[0] if "?" in word and "://" in word else word for word in str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
