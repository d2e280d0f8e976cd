"""What hosts' tests are given: fixtures, and a clock that can be moved."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration.queue_jobs import Handler, Job, Owner

from mindia import Library, Mindia
from mindia.errors import InvalidError, NotFoundError
from mindia.testing.clock import Clock
from mindia.testing.samples import image

TESTS_OF_A_HOST = """
from datetime import timedelta

import attrs
import pytest


@attrs.frozen
class Reminder:
    text: str


def test_a_reminder_comes_after_a_day(mindia_app, mindia_library, mindia_clock):
    sent = []
    mindia_app.register_task("reminder", Reminder, lambda context, reminder: sent.append(reminder.text))
    mindia_library.tasks.enqueue(Reminder("milk"), delay=timedelta(days=1))

    mindia_app.run_until_idle()
    assert sent == []
    mindia_clock.advance(timedelta(days=1))
    mindia_app.run_until_idle()
    assert sent == ["milk"]


@pytest.mark.parametrize("number", [1, 2])
def test_each_begins_with_nothing(mindia_app, mindia_library, number):
    assert [tenant.name for tenant in mindia_app.tenants.list()] == ["Test"]
    assert mindia_library.tasks.counts() == ()
"""


def test_a_hosts_tests_run_with_the_fixtures(tmp_path: Path, server_url: str) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["mindia.testing.fixtures"]\n')
    (tmp_path / "test_host.py").write_text(TESTS_OF_A_HOST)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "error",
            "--rootdir",
            ".",
            "test_host.py",
        ],
        cwd=tmp_path,
        env=os.environ | {"MINDIA_TEST_DATABASE_URL": server_url},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_time_passes_for_what_waits(queue_app: Mindia, queue: Library, handler: Handler, owner: Owner) -> None:
    hour = (datetime.now(UTC) + timedelta(hours=12)).hour  # once in what passes, whatever time of the day it is
    queue_app.schedule("daily", f"0 {hour} * * *", Job("periodic"))
    late = queue.tasks.enqueue(Job("late"), delay=timedelta(hours=2))
    item = queue.media.add(image(), filename="a.jpg", expires_at=datetime.now(UTC) + timedelta(hours=2))
    queue_app.run_until_idle()
    clock = Clock(queue_app)

    clock.advance(timedelta(hours=1))
    queue_app.run_until_idle()
    assert "late" not in handler.names
    assert queue.media.get(item.id).filename == "a.jpg"

    clock.advance(timedelta(hours=25))
    queue_app.run_until_idle()
    assert sorted(handler.names) == ["late", "periodic"]
    assert queue.tasks.get(late.id).is_finished
    with pytest.raises(NotFoundError):
        queue.media.get(item.id)
    assert owner.execute("select count(*) from mindia.images").fetchone() == (0,)


def test_time_does_not_go_back(queue_app: Mindia) -> None:
    with pytest.raises(InvalidError, match="does not go back"):
        Clock(queue_app).advance(timedelta(seconds=-1))
