"""An object store on Amazon S3, or on a server that is compatible with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Literal
from urllib.parse import urlsplit

import attrs

from mindia.errors import BucketNotEmptyError, BucketNotFoundError, InvalidError, NotPicklableError, ObjectNotFoundError
from mindia.storage._s3_connection import S3Connection
from mindia.storage._s3_direct import DirectAccess, check_name
from mindia.storage._s3_errors import Place, of_code, typed
from mindia.storage.base import StoredObject, check_prefix

if TYPE_CHECKING:
    from mindia.storage._s3_parts import Writer

_PAGE = 1000
"""As many keys as one request lists or deletes."""

_MAX_COPY_BYTES = 5 << 30
"""What one request copies at most."""

_COPY_PART_BYTES = 512 << 20
_MIB = 1 << 20


class S3Storage(DirectAccess):
    """Objects on Amazon S3, or on a compatible server: Ceph, MinIO, Cloudflare R2 and others. See docs/storage.md.

    A tenant has a bucket of its own, made with its first object; with `bucket`, all tenants share one, and each has a
    prefix there. Objects are streamed both ways, large ones in parts. Requests that fail for a passing reason are tried
    again. No connection is opened before the first call; safe for threads, and after a fork.

    Args:
        bucket: One bucket for all tenants; by default each has its own.
        prefix: Before the tenants' prefixes in the shared bucket: `media/`.
        region: Where buckets are made; by default what boto3 finds in environment and profile, else `us-east-1`.
        endpoint_url: The server, where it is not Amazon's: `https://s3.example.org`.
        public_endpoint_url: The same server as others reach it, for the addresses that `url` and uploads give.
        access_key_id: With `secret_access_key`; by default boto3 finds credentials: environment, profile, role.
        secret_access_key: Never shown.
        session_token: Of temporary credentials.
        profile: Of the configuration files that boto3 reads.
        addressing: `path` for `https://server/bucket/key`, `virtual` for `https://bucket.server/key`; `auto` is the
            former with `endpoint_url` and the latter without.
        create_buckets: Whether missing buckets are made.
        server_side_encryption: `AES256` or `aws:kms`; by default as the bucket says.
        kms_key_id: For `aws:kms`; by default the account's.
        storage_class: `STANDARD_IA` and the like.
        public_url: Where everybody can read the objects, as from a CDN: `https://cdn.example.org`, to which
            `/bucket/key` is added, or in a shared bucket the key. Then `url` gives these addresses, which neither
            expire nor carry a signature.
        presigned_urls: Whether `library.media.url` gives addresses of the server; otherwise the host serves media, as
            it does from a local store.
        part_bytes: Larger objects are stored in parts of this size; at least 5 MiB.
        part_concurrency: How many parts of an object are on their way at once.
        confirm_puts: Whether the server is asked after each `put` for what it has. Its answer to the `put` itself is
            checked in any case.
        connect_timeout: How long a connection may take to come about.
        read_timeout: How long the server may be silent.
        max_attempts: How often a request is tried, at most.
        max_connections: How many are kept open.

    Raises:
        InvalidError: An argument is not allowed.
    """

    def __init__(
        self,
        *,
        bucket: str | None = None,
        prefix: str = "",
        region: str | None = None,
        endpoint_url: str | None = None,
        public_endpoint_url: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        profile: str | None = None,
        addressing: Literal["auto", "path", "virtual"] = "auto",
        create_buckets: bool = True,
        server_side_encryption: str | None = None,
        kms_key_id: str | None = None,
        storage_class: str | None = None,
        public_url: str | None = None,
        presigned_urls: bool = True,
        part_bytes: int = 8 * _MIB,
        part_concurrency: int = 4,
        confirm_puts: bool = False,
        connect_timeout: timedelta = timedelta(seconds=10),
        read_timeout: timedelta = timedelta(seconds=60),
        max_attempts: int = 4,
        max_connections: int = 64,
    ) -> None:
        if bucket is not None:
            check_name(bucket)
        if prefix and bucket is None:
            raise InvalidError("prefix is for a bucket that tenants share: give bucket, too")
        if not isinstance(prefix, str) or (prefix and not prefix.endswith("/")):
            raise InvalidError(f"prefix must end with a slash, not {prefix!r}")
        check_prefix(prefix)
        if (access_key_id is None) != (secret_access_key is None):
            raise InvalidError("access_key_id and secret_access_key belong together: give both, or neither")
        for name, address in (
            ("endpoint_url", endpoint_url),
            ("public_endpoint_url", public_endpoint_url),
            ("public_url", public_url),
        ):
            _check_address(name, address)
        if addressing not in ("auto", "path", "virtual"):
            raise InvalidError(f"addressing must be 'auto', 'path' or 'virtual', not {addressing!r}")
        if kms_key_id is not None and server_side_encryption != "aws:kms":
            raise InvalidError("kms_key_id needs server_side_encryption='aws:kms'")
        if part_bytes < 5 * _MIB:
            raise InvalidError(f"part_bytes must be at least {5 * _MIB}, not {part_bytes}")
        for name, count in (
            ("part_concurrency", part_concurrency),
            ("max_attempts", max_attempts),
            ("max_connections", max_connections),
        ):
            if count < 1:
                raise InvalidError(f"{name} must be at least 1, not {count}")
        style = addressing if addressing != "auto" else ("path" if endpoint_url else "virtual")
        extra = {
            "ServerSideEncryption": server_side_encryption,
            "SSEKMSKeyId": kms_key_id,
            "StorageClass": storage_class,
        }
        connection = S3Connection(
            session={
                "aws_access_key_id": access_key_id,
                "aws_secret_access_key": secret_access_key,
                "aws_session_token": session_token,
                "profile_name": profile,
            },
            config={
                "connect_timeout": connect_timeout.total_seconds(),
                "read_timeout": read_timeout.total_seconds(),
                "retries": {"mode": "standard", "total_max_attempts": max_attempts},
                "max_pool_connections": max_connections,
                # The MD5 of each body is signed: there is no need to hash it once more, for us and for the server.
                "s3": {"addressing_style": style, "payload_signing_enabled": False},
                "signature_version": "s3v4",
                "tcp_keepalive": True,
                # Servers other than Amazon's know neither the newer checksums nor the encoding that they come in.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
            region=region,
            endpoint=endpoint_url,
            public_endpoint=public_endpoint_url or endpoint_url,
            creates_buckets=create_buckets,
        )
        super().__init__(
            connection,
            bucket=bucket,
            prefix=prefix,
            public_url=public_url,
            presigns=presigned_urls,
            extra={name: value for name, value in extra.items() if value is not None},
        )
        self._part_bytes = part_bytes
        self._part_concurrency = part_concurrency
        self._confirms = confirm_puts
        self._max_copy_bytes, self._copy_part_bytes = _MAX_COPY_BYTES, _COPY_PART_BYTES

    def __repr__(self) -> str:
        what = "a bucket for each tenant" if self._shared is None else f"{self._shared}/{self._prefix}"
        return f"<S3Storage {self._connection.endpoint}, {what}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise NotPicklableError("an S3Storage has credentials, and is not pickled: make one in the other process")

    @property
    def region(self) -> str:
        """The region that new buckets are in."""
        return self._connection.region

    def put(
        self,
        bucket: str,
        key: str,
        source: BinaryIO,
        *,
        content_type: str,
        disposition: str | None = None,
        region: str | None = None,
    ) -> None:
        """Store an object."""
        place = self._place(bucket, key)
        described = {"ContentType": content_type} | ({"ContentDisposition": disposition} if disposition else {})
        self._writer(place, region).write(place, source, {**self._extra, **described})

    def open(self, bucket: str, key: str) -> BinaryIO:
        """Open an object for reading: seekable, buffered, and streamed."""
        from mindia.storage._s3_reader import opened

        place = self._place(bucket, key)
        try:
            return opened(self._connection.client(), place)
        except BucketNotFoundError as error:
            if self._is_required:
                raise
            raise ObjectNotFoundError(f"there is no object {key!r} in bucket {bucket!r}") from error

    def size(self, bucket: str, key: str) -> int:
        """Return the size in bytes."""
        return int(self._head(self._place(bucket, key))["ContentLength"])

    def exists(self, bucket: str, key: str) -> bool:
        """Tell whether the object is there."""
        try:
            self.size(bucket, key)
        except ObjectNotFoundError:
            return False
        return True

    def copy(self, bucket: str, key: str, *, to_bucket: str, to_key: str, region: str | None = None) -> None:
        """Copy an object, on the server."""
        source, target = self._place(bucket, key), self._place(to_bucket, to_key)
        found = self._head(source)
        if source == target:
            return
        self._connection.in_bucket(target, region, lambda: self._copy(source, target, found))

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete objects, and the parts of unfinished uploads of them; a missing one is fine."""
        self._place(bucket)
        rest = iter(keys)
        while batch := list(dict.fromkeys(islice(rest, _PAGE))):
            places = [self._place(bucket, key) for key in batch]
            try:
                self._delete(places)
                common = os.path.commonprefix([place.key for place in places])  # noqa: RUF071 - no paths
                self._abort_uploads(_at(places[0], common), {place.key for place in places})
            except BucketNotFoundError:
                if self._is_required:
                    raise

    def delete_prefix(self, bucket: str, prefix: str) -> None:
        """Delete all objects whose keys begin with `prefix`, and the parts of unfinished uploads of such."""
        if not prefix:
            raise InvalidError("prefix must not be empty")
        check_prefix(prefix)
        place = self._place(bucket)
        try:
            objects = self._listed(_at(place, place.key + prefix), "")
            while batch := [_at(place, key) for key, _ in islice(objects, _PAGE)]:
                self._delete(batch)
            self._abort_uploads(_at(place, place.key + prefix), None)
        except BucketNotFoundError:
            if self._is_required:
                raise

    def delete_bucket(self, bucket: str) -> None:
        """Delete a bucket without objects, and the parts of unfinished uploads in it; a missing one is fine."""
        place = self._place(bucket)
        try:
            if next(self._listed(place, ""), None) is not None:
                raise BucketNotEmptyError(f"the bucket {bucket!r} has objects: delete them first")
            self._abort_uploads(place, None)
            if self._shared is None:
                with typed(place, "delete"):
                    self._connection.client().delete_bucket(Bucket=place.bucket)
        except BucketNotFoundError:
            if self._is_required:
                raise

    def list(self, bucket: str, *, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with `prefix` and come after `after`."""
        check_prefix(prefix)
        place = self._place(bucket)
        try:
            for key, size in self._listed(_at(place, place.key + prefix), after and place.key + after):
                yield StoredObject(key.removeprefix(place.key), size)
        except BucketNotFoundError:
            if self._is_required:
                raise

    @property
    def _is_required(self) -> bool:
        """Whether it is a mistake that the bucket is missing, rather than a bucket without its first object."""
        return self._shared is not None and not self._connection.creates_buckets

    def _writer(self, place: Place, region: str | None) -> Writer:
        from mindia.storage._s3_parts import Writer

        return Writer(
            self._connection.client(),
            self._part_bytes,
            self._part_concurrency,
            self._confirms,
            lambda begin: self._connection.in_bucket(place, region, begin),
        )

    def _head(self, place: Place) -> Mapping[str, Any]:
        with typed(place, "look at"):
            found: Mapping[str, Any] = self._connection.client().head_object(Bucket=place.bucket, Key=place.key)
        return found

    def _copy(self, source: Place, target: Place, found: Mapping[str, Any]) -> None:
        from mindia.storage._s3_parts import tag_of_parts, upload_of

        client, origin = self._connection.client(), {"Bucket": source.bucket, "Key": source.key}
        same = {"CopySourceIfMatch": found["ETag"]} if found.get("ETag") else {}
        size = int(found["ContentLength"])
        if size <= self._max_copy_bytes:
            with typed(source, "copy"):
                client.copy_object(Bucket=target.bucket, Key=target.key, CopySource=origin, **same, **self._extra)
            return
        kept = {name: found[name] for name in ("ContentType", "ContentDisposition") if found.get(name)}
        with typed(target, "copy"):
            begun = client.create_multipart_upload(Bucket=target.bucket, Key=target.key, **kept, **self._extra)
        upload = upload_of(client, target, begun)

        def copy_part(number: int) -> str:
            start = (number - 1) * self._copy_part_bytes
            last = min(start + self._copy_part_bytes, size) - 1
            with typed(source, "copy"):
                answer = client.upload_part_copy(
                    PartNumber=number, CopySource=origin, CopySourceRange=f"bytes={start}-{last}", **same, **upload
                )
            return str(answer["CopyPartResult"]["ETag"]).strip('"')

        try:
            numbers = range(1, -(-size // self._copy_part_bytes) + 1)
            with ThreadPoolExecutor(self._part_concurrency, thread_name_prefix="mindia-s3") as pool:
                tags = list(pool.map(copy_part, numbers))
            self._writer(target, None).complete(target, upload, tags, tag_of_parts(tags), size)
        except BaseException:
            self._abort(target, upload["UploadId"])
            raise

    def _delete(self, places: Sequence[Place]) -> None:
        if len(places) == 1:
            with suppress(ObjectNotFoundError), typed(places[0], "delete"):
                self._connection.client().delete_object(Bucket=places[0].bucket, Key=places[0].key)
            return
        wanted = {"Objects": [{"Key": place.key} for place in places], "Quiet": True}
        with typed(places[0], "delete"):
            answer = self._connection.client().delete_objects(Bucket=places[0].bucket, Delete=wanted)
        for error in answer.get("Errors", ()):
            if error.get("Code") != "NoSuchKey":
                place = _at(places[0], str(error.get("Key", "")))
                raise of_code(str(error.get("Code", "")), str(error.get("Message", "")), place, "delete")

    def _listed(self, place: Place, after: str) -> Iterator[tuple[str, int]]:
        """Yield keys, as the server knows them, and sizes; pages are asked for by key, so that they bear deletions."""
        while True:
            with typed(place, "list"):
                page = self._connection.client().list_objects_v2(
                    Bucket=place.bucket, Prefix=place.key, StartAfter=after, MaxKeys=_PAGE
                )
            found = page.get("Contents", ())
            yield from ((each["Key"], each["Size"]) for each in found)
            if not page.get("IsTruncated") or not found:
                return
            after = found[-1]["Key"]

    def _abort_uploads(self, place: Place, keys: set[str] | None) -> None:
        """Remove unfinished uploads whose keys begin with that of the place; of `keys` alone, if given."""
        with typed(place, "list uploads to"):
            pages = self._connection.client().get_paginator("list_multipart_uploads")
            found = [
                (upload["Key"], upload["UploadId"])
                for page in pages.paginate(Bucket=place.bucket, Prefix=place.key)
                for upload in page.get("Uploads", ())
                if keys is None or upload["Key"] in keys
            ]
        for key, upload_id in found:
            self._abort(_at(place, key), upload_id)

    def _abort(self, place: Place, upload_id: str) -> None:
        with suppress(ObjectNotFoundError), typed(place, "abort"):
            self._connection.client().abort_multipart_upload(Bucket=place.bucket, Key=place.key, UploadId=upload_id)


def _at(place: Place, key: str) -> Place:
    return attrs.evolve(place, key=key)


def _check_address(name: str, address: str | None) -> None:
    if address is None:
        return
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidError(f"{name} must be an address like https://s3.example.org")
    if parts.username is not None or parts.password is not None:
        raise InvalidError(f"{name} must have no credentials: give access_key_id and secret_access_key")
