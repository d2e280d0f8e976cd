"""Clients of an S3 server, and the buckets there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, TypeVar

from mindia.errors import BucketNotFoundError, StorageAccessDeniedError, StorageError
from mindia.storage._s3_errors import Place, code_of, typed

_FIRST_REGION = "us-east-1"

_TRIES = 10
"""A bucket that was just made may be deleted as empty by another, but not many times in a row."""

_WAIT_S = 0.05
_REFUSED_REGIONS = ("InvalidLocationConstraint", "IllegalLocationConstraintException")

T = TypeVar("T")


class S3Connection:
    """Makes clients when they are needed. Safe for threads, and after a fork.

    Args:
        session: Arguments of boto3's session.
        config: Arguments of the clients' configuration.
        region: Where buckets are made, or None for boto3's own.
        endpoint: The server; None for Amazon's.
        public_endpoint: The same server, as others reach it.
        creates_buckets: Whether missing buckets are made.
    """

    def __init__(
        self,
        *,
        session: Mapping[str, str | None],
        config: Mapping[str, Any],
        region: str | None,
        endpoint: str | None,
        public_endpoint: str | None,
        creates_buckets: bool,
    ) -> None:
        self._session_arguments = session
        self._config = config
        self._region = region
        self._endpoint = endpoint
        self._public_endpoint = public_endpoint
        self.creates_buckets = creates_buckets
        # By process, since a lock could be held at a fork.
        self._locks: dict[int, Lock] = {}
        self._clients: dict[tuple[int, str, str | None], Any] = {}
        self._regions: dict[str, str] = {}

    @property
    def endpoint(self) -> str:
        """The server, for messages."""
        return self._endpoint or "Amazon S3"

    @property
    def region(self) -> str:
        """Where buckets are made."""
        if self._region is None:
            with typed(Place(self.endpoint, ""), "connect to"):
                self._region = str(self._session().region_name or _FIRST_REGION)
        return self._region

    def client(self, region: str | None = None) -> Any:
        """Return a client, made on first use."""
        return self._client(region or self.region, self._endpoint)

    def signing_client(self, place: Place) -> Any:
        """Return a client that signs addresses of a place, which hold for one region."""
        if self._endpoint is not None:
            return self._client(self.region, self._public_endpoint)
        region = self._regions.get(place.bucket)
        if region is None:
            with typed(place, "look at"):
                answer = self.client().head_bucket(Bucket=place.bucket)
            region = str(answer.get("BucketRegion") or self.region)
            self._regions[place.bucket] = region
        return self._client(region, self._public_endpoint)

    def in_bucket(self, place: Place, region: str | None, work: Callable[[], T]) -> T:
        """Do what needs a bucket; where there is none, make it, and do it again.

        Raises:
            BucketNotFoundError: There is none, and none is made.
        """
        for turn in range(_TRIES):
            try:
                return work()
            except BucketNotFoundError:
                if not self.creates_buckets or turn == _TRIES - 1:
                    raise
                self.make_bucket(place, region)
                time.sleep(_WAIT_S * turn)
        raise AssertionError("unreachable")

    def ensure_bucket(self, place: Place, region: str | None) -> None:
        """Make a bucket where there is none."""

        def look() -> None:
            with typed(Place(place.endpoint, place.bucket), "look at"):
                self.client().head_bucket(Bucket=place.bucket)

        self.in_bucket(place, region, look)

    def make_bucket(self, place: Place, region: str | None) -> None:
        """Make a bucket; one that is ours already is fine."""
        region = region if region not in (None, "local") else self.region
        arguments: dict[str, Any] = {"Bucket": place.bucket}
        # Other servers have regions of their own names, and often one without any.
        if region != _FIRST_REGION and (self._endpoint is None or region != self.region):
            arguments["CreateBucketConfiguration"] = {"LocationConstraint": region}
        bucket = Place(place.endpoint, place.bucket)
        try:
            try:
                self._create(bucket, region, arguments)
            except StorageError as error:
                if self._endpoint is None or code_of(error.__cause__) not in _REFUSED_REGIONS:
                    raise
                self._create(bucket, region, {"Bucket": place.bucket})
        except StorageAccessDeniedError as error:
            raise StorageAccessDeniedError(f"{bucket} is missing, and could not be made: {error}") from error

    def _create(self, bucket: Place, region: str | None, arguments: Mapping[str, Any]) -> None:
        try:
            with typed(bucket, "make"):
                self.client(region if self._endpoint is None else None).create_bucket(**arguments)
        except StorageError as error:
            if code_of(error.__cause__) != "BucketAlreadyOwnedByYou":
                raise

    def _session(self) -> Any:
        import boto3

        return boto3.session.Session(**self._session_arguments)

    def _client(self, region: str, endpoint: str | None) -> Any:
        process = os.getpid()
        key = (process, region, endpoint)
        client = self._clients.get(key)
        if client is None:
            # Making one takes some 0.1 s of processor time, and many threads may come at once.
            with self._locks.setdefault(process, Lock()):
                client = self._clients.get(key)
                if client is None:
                    client = self._clients[key] = self._new_client(region, endpoint)
        return client

    def _new_client(self, region: str, endpoint: str | None) -> Any:
        from botocore.config import Config
        from botocore.handlers import add_expect_header

        with typed(Place(self.endpoint, ""), "connect to"):
            client = self._session().client(
                "s3", region_name=region, endpoint_url=endpoint, config=Config(**self._config)
            )
        # What is sent at once is a few megabytes at most: to ask first costs as long as a small object takes.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        return client
