"""The S3 server of the tests, and what the report says of it.

`MINDIA_TEST_S3_ENDPOINT` names one that runs already, with `MINDIA_TEST_S3_ACCESS_KEY`, `MINDIA_TEST_S3_SECRET_KEY`,
and those of an account without permission in `MINDIA_TEST_S3_OTHER_ACCESS_KEY`, `MINDIA_TEST_S3_OTHER_SECRET_KEY`.
Where none can be had, its tests are skipped; with `MINDIA_TEST_S3_REQUIRED=1`, as on CI, they fail.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.s3.packages import NotAvailableError
from tests.s3.radosgw import S3Server, server

from mindia import S3Storage

_NAMED = "MINDIA_TEST_S3_ENDPOINT"


def _folder(factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the processes of one run share."""
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "s3"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server."""
    folder = _folder(tmp_path_factory)
    if endpoint := os.environ.get(_NAMED):
        keys = ("ACCESS_KEY", "SECRET_KEY", "OTHER_ACCESS_KEY", "OTHER_SECRET_KEY")
        access, secret, other_access, other_secret = (os.environ.get(f"MINDIA_TEST_S3_{key}", "") for key in keys)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ran").write_text(f"{endpoint}, by {_NAMED}")
        yield S3Server(endpoint, access, secret, other_access, other_secret, endpoint)
        return
    try:
        running = server(folder)
        found = running.__enter__()
    except NotAvailableError as error:
        reason = f"no S3 server: {error}"
        if os.environ.get("MINDIA_TEST_S3_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        (folder / "ran").write_text(f"{found.what} at {found.endpoint}")
        yield found
    finally:
        running.__exit__(None, None, None)


def storage_of(found: S3Server, **arguments: object) -> S3Storage:
    """Return a storage on the server of the tests, with a bucket for each tenant unless `bucket` is given."""
    given = {
        "endpoint_url": found.endpoint,
        "access_key_id": found.access_key,
        "secret_access_key": found.secret_key,
        "region": "us-east-1",
    }
    return S3Storage(**(given | arguments))  # type: ignore[arg-type]  # as the constructor has them


def new_bucket() -> str:
    """Return the name of a bucket that nobody else has."""
    return f"test-{uuid.uuid4().hex[:20]}"


def pytest_report_header() -> str:
    """Say which S3 server there will be."""
    named = os.environ.get(_NAMED)
    return f"S3 server: {named or 'radosgw of Debian, started when a test needs it'}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which S3 server there was."""
    factory: pytest.TempPathFactory | None = getattr(config, "_tmp_path_factory", None)
    ran = _folder(factory) / "ran" if factory is not None else None
    if ran is not None and ran.exists():
        terminalreporter.write_line(f"S3 tests ran against {ran.read_text()}")
