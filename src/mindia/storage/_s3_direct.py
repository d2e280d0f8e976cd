"""What others do with an S3 server themselves, by addresses that are signed for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from mindia.errors import BucketNotFoundError, InvalidError, ObjectNotFoundError
from mindia.storage._s3_connection import S3Connection
from mindia.storage._s3_errors import Place, typed
from mindia.storage.base import MAX_KEY_BYTES, MAX_PARTS, UploadedPart, UploadForm, check_bucket, check_key

_BUCKET = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MAX_LIFETIME = timedelta(days=7)

_FIELDS = {
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "StorageClass": "x-amz-storage-class",
}
"""Arguments of requests, as fields of a form."""


class DirectAccess:
    """The half of `S3Storage` that makes addresses for others.

    Args:
        connection: To the server.
        bucket: The one that all tenants share, or None.
        prefix: In front of the tenants' prefixes there.
        public_url: Where everybody can read the objects.
        presigns: Whether `url` gives addresses of the server.
        extra: Arguments of each request that stores something.
    """

    def __init__(
        self,
        connection: S3Connection,
        *,
        bucket: str | None,
        prefix: str,
        public_url: str | None,
        presigns: bool,
        extra: Mapping[str, str],
    ) -> None:
        self._connection = connection
        self._shared = bucket
        self._prefix = prefix
        self._public_url = public_url
        self._presigns = presigns
        self._extra = extra

    def url(self, bucket: str, key: str, *, expires_in: timedelta, content_type: str, disposition: str) -> str | None:
        """Return an address that gives the object to whoever has it; None where the host is to serve it.

        Raises:
            InvalidError: `expires_in` is longer than the seven days that a signature lasts.
        """
        place = self._place(bucket, key)
        if self._public_url is not None:
            path = place.key if self._shared is not None else f"{place.bucket}/{place.key}"
            return f"{self._public_url.rstrip('/')}/{quote(path)}"
        if not self._presigns:
            return None
        return self._presigned(
            place,
            "get_object",
            expires_in,
            ResponseContentType=content_type,
            ResponseContentDisposition=disposition,
            ResponseCacheControl=f"private, immutable, max-age={int(expires_in.total_seconds())}",
        )

    def upload_form(
        self,
        bucket: str,
        key: str,
        *,
        content_type: str,
        max_bytes: int,
        expires_in: timedelta,
        region: str | None = None,
    ) -> UploadForm:
        """Return what a browser needs to store an object itself; the server refuses another key, type or size."""
        place = self._place(bucket, key)
        fields = {"Content-Type": content_type} | {_FIELDS[name]: value for name, value in self._extra.items()}
        conditions: list[object] = [{name: value} for name, value in fields.items()]
        conditions.append(["content-length-range", 0, max_bytes])
        seconds = _seconds(expires_in)
        self._connection.ensure_bucket(place, region)
        with typed(place, "sign"):
            form = self._connection.signing_client(place).generate_presigned_post(
                place.bucket, place.key, Fields=fields, Conditions=conditions, ExpiresIn=seconds
            )
        return UploadForm(form["url"], form["fields"])

    def begin_parts(self, bucket: str, key: str, *, content_type: str, region: str | None = None) -> str:
        """Begin an upload in parts and return its id."""
        place = self._place(bucket, key)

        def begin() -> str:
            with typed(place, "begin"):
                begun = self._connection.client().create_multipart_upload(
                    Bucket=place.bucket, Key=place.key, ContentType=content_type, **self._extra
                )
            return str(begun["UploadId"])

        return self._connection.in_bucket(place, region, begin)

    def part_url(self, bucket: str, key: str, *, upload_id: str, number: int, size: int, expires_in: timedelta) -> str:
        """Return an address to which a part of exactly so many bytes can be put."""
        if not 1 <= number <= MAX_PARTS:
            raise InvalidError(f"number must be 1 to {MAX_PARTS}, not {number}")
        return self._presigned(
            self._place(bucket, key),
            "upload_part",
            expires_in,
            UploadId=upload_id,
            PartNumber=number,
            ContentLength=size,
        )

    def uploaded_parts(self, bucket: str, key: str, *, upload_id: str) -> Sequence[UploadedPart]:
        """Return the parts that have arrived, in their order."""
        place = self._place(bucket, key)
        parts: list[UploadedPart] = []
        with typed(place, "list parts of"):
            pages = self._connection.client().get_paginator("list_parts")
            for page in pages.paginate(Bucket=place.bucket, Key=place.key, UploadId=upload_id):
                parts += [
                    UploadedPart(part["PartNumber"], part["Size"], part["ETag"].strip('"'))
                    for part in page.get("Parts", ())
                ]
        return parts

    def complete_parts(self, bucket: str, key: str, *, upload_id: str, parts: Sequence[UploadedPart]) -> None:
        """Make the object of its parts."""
        place = self._place(bucket, key)
        named = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
        with typed(place, "complete"):
            self._connection.client().complete_multipart_upload(
                Bucket=place.bucket, Key=place.key, UploadId=upload_id, MultipartUpload={"Parts": named}
            )

    def abort_parts(self, bucket: str, key: str, *, upload_id: str) -> None:
        """Remove an upload with its parts; a missing one is fine."""
        place = self._place(bucket, key)
        try:
            with typed(place, "abort"):
                self._connection.client().abort_multipart_upload(Bucket=place.bucket, Key=place.key, UploadId=upload_id)
        except (ObjectNotFoundError, BucketNotFoundError):
            return

    def _place(self, bucket: str, key: str | None = None) -> Place:
        """Return where an object is on the server; without a key, what the keys of a bucket begin with."""
        check_bucket(bucket)
        if key is not None:
            check_key(key)
        if self._shared is None:
            check_name(bucket)
            return Place(self._connection.endpoint, bucket, key or "")
        full = f"{self._prefix}{bucket}/{key or ''}"
        if len(full.encode()) > MAX_KEY_BYTES:
            raise InvalidError(f"the key {full[:80]!r} has more than {MAX_KEY_BYTES} bytes with its prefix")
        return Place(self._connection.endpoint, self._shared, full)

    def _presigned(self, place: Place, method: str, expires_in: timedelta, **arguments: Any) -> str:
        seconds = _seconds(expires_in)
        with typed(place, "sign"):
            return str(
                self._connection.signing_client(place).generate_presigned_url(
                    method, Params={"Bucket": place.bucket, "Key": place.key, **arguments}, ExpiresIn=seconds
                )
            )


def check_name(bucket: str) -> None:
    """Refuse what S3 takes for no name of a bucket."""
    if not isinstance(bucket, str) or not _BUCKET.fullmatch(bucket):
        raise InvalidError(f"a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens, not {bucket!r}")


def _seconds(expires_in: timedelta) -> int:
    if not timedelta(seconds=1) <= expires_in <= _MAX_LIFETIME:
        raise InvalidError(f"S3 signs for a second to {_MAX_LIFETIME.days} days, not {expires_in}")
    return int(expires_in.total_seconds())
