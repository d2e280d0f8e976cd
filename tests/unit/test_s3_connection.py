"""Clients of an S3 server: made once, however many ask for one at once."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import boto3
import pytest

from mindia.storage._s3_connection import S3Connection


@pytest.fixture
def connection() -> S3Connection:
    return S3Connection(
        session={"aws_access_key_id": "a", "aws_secret_access_key": "b"},
        config={},
        region="us-east-1",
        endpoint="http://127.0.0.1:1",
        public_endpoint=None,
        creates_buckets=True,
    )


def test_many_threads_make_one_client(connection: S3Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    session = boto3.session.Session

    def counted(**arguments: str) -> boto3.session.Session:
        made.append(arguments)
        return session(**arguments)

    monkeypatch.setattr(boto3.session, "Session", counted)
    start = threading.Barrier(8)

    def ask(_: int) -> int:
        start.wait(30)
        return id(connection.client())

    with ThreadPoolExecutor(8) as threads:
        clients = set(threads.map(ask, range(8)))

    assert len(clients) == len(made) == 1


def test_a_process_that_is_forked_while_a_client_is_made_makes_its_own(
    connection: S3Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    session = boto3.session.Session
    children = []

    def forking(**arguments: str) -> boto3.session.Session:
        monkeypatch.setattr(boto3.session, "Session", session)
        child = context.Process(target=_ask, args=(connection, sending))
        child.start()
        children.append(child)
        return session(**arguments)

    monkeypatch.setattr(boto3.session, "Session", forking)
    client = connection.client()

    assert receiving.poll(60)
    assert receiving.recv() == "us-east-1"
    children[0].join()
    assert connection.client() is client


def _ask(connection: S3Connection, sending: Connection) -> None:
    sending.send(connection.client().meta.region_name)
