"""One large case of `benchmarks.storage`, in a process of its own: `python -m benchmarks._storage_case '{"way": …}'`.

Prints how long it took, how much more memory the process had at its peak than before, and its processor time.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import attrs
import boto3
from botocore.config import Config

import mindia
from mindia import S3Storage, Settings

CHUNK = 1 << 20


@attrs.frozen(kw_only=True)
class Case:
    """What is measured.

    Attributes:
        way: A key of `_WAYS`.
        url: The database.
        endpoint: The S3 server.
        access_key: Likewise.
        secret_key: Likewise.
        tenant_id: Whose library.
        bucket: Its bucket.
        key: Of the object that is written or read.
        path: The file that is written.
        media_id: The item that is read.
    """

    way: str
    url: str
    endpoint: str
    access_key: str = attrs.field(repr=False)
    secret_key: str = attrs.field(repr=False)
    tenant_id: str
    bucket: str
    key: str = ""
    path: str = ""
    media_id: str = ""

    def client(self) -> Any:
        """Return a client of boto3 as its users make it for a server of their own."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(
                s3={"addressing_style": "path"},
                max_pool_connections=32,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def storage(self) -> S3Storage:
        """Return ours."""
        return S3Storage(
            endpoint_url=self.endpoint,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            region="us-east-1",
        )


def main() -> None:
    """Measure a case."""
    case = Case(**json.loads(sys.argv[1]))
    with _WAYS[case.way](case) as work:
        before = _peak_from_now_on()
        cpu, began = time.process_time(), time.perf_counter()
        work()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        print(json.dumps({"seconds": seconds, "memory": _peak() - before, "cpu": cpu}))


def _peak_from_now_on() -> int:
    """Forget the peak so far, in which that of the parent may be, and return what is used now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@contextmanager
def _upload_raw(case: Case) -> Iterator[Callable[[], object]]:
    client = case.client()
    client.head_bucket(Bucket=case.bucket)  # connected, as ours is
    with Path(case.path).open("rb") as file:
        yield lambda: client.upload_fileobj(file, case.bucket, case.key)


@contextmanager
def _upload_storage(case: Case) -> Iterator[Callable[[], object]]:
    storage = case.storage()
    storage.exists(case.bucket, "a")
    with Path(case.path).open("rb") as file:
        yield lambda: storage.put(case.bucket, case.key, file, content_type="audio/x-wav")


@contextmanager
def _upload_item(case: Case) -> Iterator[Callable[[], object]]:
    with mindia.connect(case.url, storage=case.storage(), settings=Settings()) as app:
        library = app.library(UUID(case.tenant_id))
        library.media.add(mindia.testing.samples.image(), filename="first.jpg")  # connected, parsers started
        yield lambda: library.media.add(Path(case.path))


@contextmanager
def _read_raw(case: Case) -> Iterator[Callable[[], object]]:
    client = case.client()
    client.head_bucket(Bucket=case.bucket)
    yield lambda: _read_all(client.get_object(Bucket=case.bucket, Key=case.key)["Body"])


@contextmanager
def _read_item(case: Case) -> Iterator[Callable[[], object]]:
    with mindia.connect(case.url, storage=case.storage(), settings=Settings()) as app:
        library = app.library(UUID(case.tenant_id))
        library.media.count()
        app.storage.exists(case.bucket, "a")

        def work() -> None:
            with library.media.open(UUID(case.media_id)) as file:
                _read_all(file)

        yield work


def _read_all(file: BinaryIO) -> None:
    while file.read(CHUNK):
        pass


_WAYS = {
    "upload_fileobj": _upload_raw,
    "put": _upload_storage,
    "add": _upload_item,
    "get_object": _read_raw,
    "open": _read_item,
}

if __name__ == "__main__":
    import mindia.testing.samples

    main()
