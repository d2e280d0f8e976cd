"""Storing streams on an S3 server: small ones at once, others in parts, and nothing is left of a failure."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

import attrs

from mindia.errors import MindiaError, ObjectNotFoundError, StorageUnavailableError
from mindia.storage._s3_errors import Place, typed

_PARTS_OF_A_SIZE = 1000
"""After so many, parts become twice as large: 10,000 of them are enough for the largest object."""

_log = logging.getLogger("mindia.storage")


@attrs.frozen
class _Part:
    """A part that is stored.

    Attributes:
        tag: That the server gave to it.
        digest: Its MD5.
    """

    tag: str
    digest: bytes


@attrs.frozen
class Writer:
    """Stores objects.

    Attributes:
        client: Of boto3.
        part_bytes: What has no more is stored by one request; others in parts of this size.
        concurrency: How many parts are on their way at once. One more is read meanwhile.
        confirms: Whether the server is asked afterwards for what was stored by one request; for parts it always is.
        in_bucket: Does what needs the bucket, again where that had to be made first.
    """

    client: Any
    part_bytes: int
    concurrency: int
    confirms: bool
    in_bucket: Callable[[Callable[[], Mapping[str, Any]]], Mapping[str, Any]]

    def write(self, place: Place, source: BinaryIO, extra: Mapping[str, str]) -> None:
        """Store what `source` gives, to its end; what it raises passes through.

        Args:
            place: Where.
            source: The bytes.
            extra: Arguments of the request: content type, encryption.
        """
        first = read_exactly(source, self.part_bytes)
        second = read_exactly(source, self.part_bytes) if len(first) >= self.part_bytes else b""
        if second:
            self._write_parts(place, deque([first, second]), source, extra)
            return
        tag = self._write_whole(place, first, extra)
        if self.confirms:
            self._confirm(place, tag, len(first))

    def _write_whole(self, place: Place, content: bytes, extra: Mapping[str, str]) -> str:
        digest = hashlib.md5(content, usedforsecurity=False)

        def put() -> Mapping[str, Any]:
            with typed(place, "put"):
                answer: Mapping[str, Any] = self.client.put_object(
                    Bucket=place.bucket, Key=place.key, Body=content, ContentMD5=_encoded(digest), **extra
                )
            return answer

        return self._checked(self.in_bucket(put), digest.hexdigest(), place)

    def _write_parts(self, place: Place, ahead: deque[bytes], source: BinaryIO, extra: Mapping[str, str]) -> None:
        def begin() -> Mapping[str, Any]:
            with typed(place, "put"):
                answer: Mapping[str, Any] = self.client.create_multipart_upload(
                    Bucket=place.bucket, Key=place.key, **extra
                )
            return answer

        begun: Future[dict[str, str]] = Future()
        size = sum(map(len, ahead))
        digests = hashlib.md5(usedforsecurity=False)
        tags: list[str] = []
        under_way: deque[Future[_Part]] = deque()

        def wait_for_one() -> None:
            part = under_way.popleft().result()
            digests.update(part.digest)
            tags.append(part.tag)

        try:
            with ThreadPoolExecutor(self.concurrency, thread_name_prefix="mindia-s3") as pool:
                # The first parts are hashed meanwhile.
                begun = pool.submit(lambda: upload_of(self.client, place, self.in_bucket(begin)))
                try:
                    number = 0
                    while True:
                        if ahead:
                            part = ahead.popleft()
                        else:
                            wanted = self.part_bytes << (number // _PARTS_OF_A_SIZE)
                            part = read_exactly(source, wanted)
                            size += len(part)
                        if not part:
                            break
                        number += 1
                        if len(under_way) >= self.concurrency:
                            wait_for_one()
                        under_way.append(pool.submit(self._write_part, begun, number, part, place))
                        del part
                    while under_way:
                        wait_for_one()
                except BaseException:
                    for future in under_way:
                        future.cancel()
                    raise
            self.complete(place, begun.result(), tags, f"{digests.hexdigest()}-{len(tags)}", size)
        except BaseException:
            if begun.done() and begun.exception() is None:
                _abort(self.client, place, begun.result())
            raise

    def _write_part(self, begun: Future[dict[str, str]], number: int, content: bytes, place: Place) -> _Part:
        digest = hashlib.md5(content, usedforsecurity=False)
        target = begun.result()
        try:
            with typed(place, "put"):
                answer = self.client.upload_part(PartNumber=number, Body=content, ContentMD5=_encoded(digest), **target)
        except ObjectNotFoundError as error:
            raise _removed(place) from error
        return _Part(self._checked(answer, digest.hexdigest(), place), digest.digest())

    def complete(self, place: Place, target: Mapping[str, str], tags: Sequence[str], expected: str, size: int) -> None:
        """Make an object of the parts of an upload.

        Args:
            place: Where.
            target: The arguments that name the upload.
            tags: Of the parts.
            expected: The tag that the object has then.
            size: How many bytes it has then.

        Raises:
            StorageUnavailableError: The server has not done it, or has something else.
        """
        parts = [{"PartNumber": number, "ETag": f'"{tag}"'} for number, tag in enumerate(tags, 1)]
        try:
            with typed(place, "put"):
                self.client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **target)
        except (ObjectNotFoundError, StorageUnavailableError) as error:
            # It may have been completed by a try whose answer was lost: what servers say to the next one differs.
            found = self._head(place)
            if found is None or _tag(found) != expected:
                if isinstance(error, StorageUnavailableError):
                    raise
                raise _removed(place) from error
        # Not every server names the tag in its answer.
        self._confirm(place, expected, size)

    def _checked(self, answer: Mapping[str, Any], expected: str, place: Place) -> str:
        """Return the tag that the server gave to what it says that it has."""
        found = _tag(answer)
        if not found:
            raise StorageUnavailableError(
                f"put {place}: the answer has no ETag. Something has taken the object that is no S3 server, or has "
                "dropped it"
            )
        if _differs(answer, expected):
            raise StorageUnavailableError(f"put {place}: the server has other bytes than it was sent")
        return found

    def _confirm(self, place: Place, tag: str, size: int) -> None:
        found = self._head(place)
        if found is None or int(found["ContentLength"]) != size or _differs(found, tag):
            raise StorageUnavailableError(
                f"put {place}: the server said that it has stored the object, and has "
                f"{'none' if found is None else 'another one'}"
            )

    def _head(self, place: Place) -> Mapping[str, Any] | None:
        try:
            with typed(place, "put"):
                found: Mapping[str, Any] = self.client.head_object(Bucket=place.bucket, Key=place.key)
        except ObjectNotFoundError:
            return None
        return found


def _removed(place: Place) -> StorageUnavailableError:
    """Return the error of an upload that was aborted under its writer, as the sweep does with one of an old key."""
    return StorageUnavailableError(f"put {place}: its upload was removed by another before its end")


def read_exactly(source: BinaryIO, count: int) -> bytes:
    """Return so many bytes, or all that there are."""
    content = source.read(count)
    if len(content) == count or not content:
        return content
    pieces, left = [content], count - len(content)
    while left and (content := source.read(left)):
        pieces.append(content)
        left -= len(content)
    return b"".join(pieces)


def _tag(answer: Mapping[str, Any]) -> str:
    return str(answer.get("ETag") or "").strip('"')


def _differs(answer: Mapping[str, Any], expected: str) -> bool:
    """Tell whether the tag of an object shows that it has other bytes; it is a hash where none of ours is encrypted."""
    found = _tag(answer)
    is_hash = [len(part) for part in found.split("-")][:1] == [32] and ("-" in found) == ("-" in expected)
    return is_hash and found != expected and answer.get("ServerSideEncryption", "AES256") == "AES256"


def _encoded(digest: Any) -> str:
    return base64.b64encode(digest.digest()).decode()


def tag_of_parts(tags: Sequence[str]) -> str:
    """Return the tag of an object whose parts have these: the MD5 of theirs, where they are such; else nothing."""
    try:
        digest = hashlib.md5(b"".join(map(bytes.fromhex, tags)), usedforsecurity=False)
    except ValueError:
        return ""
    return f"{digest.hexdigest()}-{len(tags)}"


def upload_of(client: Any, place: Place, begun: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments that name an upload in parts that has just begun; it is the only one of its object then.

    Raises:
        StorageUnavailableError: The answer to the beginning is none.
    """
    upload_id = begun.get("UploadId")
    if not upload_id:
        raise StorageUnavailableError(f"put {place}: the answer has no UploadId: what has answered is no S3 server")
    if begun.get("ResponseMetadata", {}).get("RetryAttempts"):
        _abort_others(client, place, upload_id)
    return {"Bucket": place.bucket, "Key": place.key, "UploadId": upload_id}


def _abort_others(client: Any, place: Place, upload_id: str) -> None:
    """Remove what a try to begin has left whose answer was lost: nothing looks for it once the object is there."""
    try:
        with typed(place, "list uploads to"):
            pages = client.get_paginator("list_multipart_uploads")
            found = [
                upload["UploadId"]
                for page in pages.paginate(Bucket=place.bucket, Prefix=place.key)
                for upload in page.get("Uploads", ())
                if upload["Key"] == place.key and upload["UploadId"] != upload_id
            ]
    except MindiaError as error:
        _log.warning("an upload that was begun twice may be left, until the object is deleted: %s", error)
        return
    for other in found:
        _abort(client, place, {"Bucket": place.bucket, "Key": place.key, "UploadId": other})


def _abort(client: Any, place: Place, target: Mapping[str, str]) -> None:
    try:
        with typed(place, "abort"):
            client.abort_multipart_upload(**target)
    except ObjectNotFoundError:
        pass
    except MindiaError as error:
        _log.warning("parts of an upload were left, until the object is deleted: %s", error)
