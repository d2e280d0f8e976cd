"""The commands of `mindia` on a real database, and its processes where signals and pipes matter."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import pytest
from tests.conftest import Roles
from tests.integration.processes import wait_until
from typer.testing import CliRunner

from mindia import Library, LocalStorage, Tenant
from mindia import Mindia as App
from mindia.cli._main import application
from mindia.testing import samples


@attrs.frozen
class Done:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]


Mindia = Callable[..., Done]


@pytest.fixture
def environment(
    application_url: str, roles: Roles, storage: LocalStorage, tenant: Tenant, tmp_path: Path
) -> dict[str, str]:
    (tmp_path / "here").mkdir()
    return {
        "MINDIA_DATABASE_URL": application_url,
        "MINDIA_STORAGE": str(storage.root),
        "MINDIA_TENANT": str(tenant.id),
        "MINDIA_WORKER_ROLE": roles.worker,
        "MINDIA_SECRET_KEY": "not so very secret",
        "MINDIA_ARGON2_TIME_COST": "1",
        "MINDIA_ARGON2_MEMORY_KIB": "8",
        "MINDIA_ARGON2_PARALLELISM": "1",
    }


@pytest.fixture
def mindia(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mindia:
    monkeypatch.chdir(tmp_path / "here")
    commands = application()

    def run(*arguments: object, stdin: str | None = None, **more: str) -> Done:
        result = CliRunner().invoke(commands, [str(each) for each in arguments], input=stdin, env=environment | more)
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for number in range(4):
        (folder / f"cat_{number}.jpg").write_bytes(samples.image(width=64 + number, height=48))
    (folder / "deep" / "again.jpg").write_bytes(samples.image(width=64, height=48))
    (folder / "notes.txt").write_text("nothing to see")
    (folder / ".hidden.jpg").write_bytes(samples.image(width=90, height=48))
    (folder / "link.jpg").symlink_to(folder / "cat_0.jpg")
    return folder


def test_a_folder_becomes_media_once(mindia: Mindia, folder: Path, library: Library) -> None:
    looked = mindia("import", folder, "--dry-run", "--json").lines[-1]
    assert (looked["new"], looked["there"]) == (5, 1)  # that it is no media is not known before it is read
    assert library.media.count() == 0

    done = mindia("import", folder, "--json", "-m", "place=Lisbon", "-m", "year=2026")
    assert done.code == 0, done.stderr
    *results, summary = done.lines
    assert (summary["added"], summary["there"], summary["skipped"], summary["failed"]) == (4, 1, 1, 0)
    assert {result["path"] for result in results if result["outcome"] == "skipped"} == {str(folder / "notes.txt")}
    assert {item.metadata["place"] for item in library.media.iterate()} == {"Lisbon"}
    assert {item.metadata["year"] for item in library.media.iterate()} == {2026}

    again = mindia("import", folder, "--json").lines[-1]
    assert (again["added"], again["there"]) == (0, 5)
    assert library.media.count() == 4


def test_a_damaged_file_is_told_and_holds_up_no_other(mindia: Mindia, folder: Path, library: Library) -> None:
    (folder / "\x1b[31m[red]broken.jpg").write_bytes(samples.image()[:200])
    done = mindia("import", folder)
    assert done.code == 1
    assert r"\x1b[31m[red]broken.jpg" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    assert library.media.count() == 4


def test_media_are_found_and_shown(mindia: Mindia, folder: Path, library: Library, tmp_path: Path) -> None:
    mindia("import", folder)
    *results, page = mindia("search", "cat", "--mode", "text", "--limit", 2, "--json").lines
    assert [result["type"] for result in results] == ["search_result"] * 2
    rest = mindia("search", "cat", "--mode", "text", "--after", page["next"], "--json").lines[:-1]
    assert len({result["media"]["id"] for result in (*results, *rest)}) == 4
    assert mindia("search", "cat", "--mode", "text").stdout.startswith("id\tfilename\t")

    listed = mindia("list", "--kind", "image", "--filename", "cat_*", "--order", "filename", "--json").lines
    assert [item["filename"] for item in listed] == [f"cat_{number}.jpg" for number in range(4)]
    assert mindia("list", "--kind", "video").stdout == ""
    item = next(library.media.iterate())
    assert mindia("show", item.id, "--json").lines[0]["sha256"] == item.sha256
    assert "width" in mindia("show", item.id).stdout
    assert mindia("show", item.id, "--save-to", tmp_path / "saved.jpg").code == 0
    assert (tmp_path / "saved.jpg").read_bytes() == library.media.read(item)
    assert mindia("usage", "--json").lines[0]["item_count"] == 4
    assert mindia("usage").code == 0


def test_a_name_and_a_description_cannot_act_on_the_terminal(mindia: Mindia, library: Library) -> None:
    item = library.media.add(samples.image(), filename="cat.jpg", description="[bold]x[/bold]\x1b]0;title\x07\u202e")
    shown = mindia("show", item.id).stdout
    assert r"[bold]x[/bold]\x1b]0;title\x07\u202e" in shown
    assert "\x1b" not in shown


def test_what_goes_wrong_has_its_exit_code_and_its_line(mindia: Mindia) -> None:
    missing = mindia("show", uuid4(), "--json")
    assert missing.code == 3
    assert missing.lines[0] | {"message": ""} == {
        "type": "error", "code": "not_found", "message": "", "retryable": False, "exit_code": 3,
    }  # fmt: skip
    assert mindia("show", "nonsense").code == 2
    assert mindia("search", "x", "--mode", "nonsense").code == 2
    assert mindia("search").code == 2
    assert mindia("list", "--tenant", "nobody").code == 3
    assert mindia("list", "--database", "postgresql://me:hush@h/db").code == 2
    away = mindia(
        "list", "--set", "pool_timeout_s=1", MINDIA_DATABASE_URL="host=127.0.0.1 port=1 user=me password=hush"
    )
    assert away.code == 6
    assert "hush" not in away.stderr
    assert mindia("tasks", "cancel", uuid4()).code == 3


def test_tasks_are_looked_at_and_steered(mindia: Mindia, library: Library) -> None:
    library.media.add(samples.image(), filename="cat.jpg")
    (task,) = mindia("tasks", "list", "--json").lines
    assert task["status"] == "pending"
    assert mindia("tasks", "list", "--status", "failed").stdout == ""
    assert mindia("tasks", "counts").stdout.splitlines()[1] == "generate_embedding\tpending\t1"
    assert mindia("tasks", "wait", task["id"], "--timeout", "0").code == 6
    assert mindia("tasks", "cancel", task["id"], "--json").lines[0]["status"] == "cancelled"
    assert mindia("tasks", "cancel", task["id"]).code == 5
    assert mindia("tasks", "wait", task["id"]).code == 1
    assert mindia("tasks", "retry", task["id"]).code == 0
    assert "pending" in mindia("tasks", "show", task["id"]).stdout
    assert mindia("tasks", "list", "--system").code == 0
    late = mindia("tasks", "reschedule", task["id"], "2h", "--json").lines[0]["scheduled_for"]
    assert timedelta(minutes=119) < datetime.fromisoformat(late) - datetime.now(UTC) < timedelta(minutes=121)
    exact = mindia("tasks", "reschedule", task["id"], "2126-03-01T03:00+01:00", "--json").lines[0]["scheduled_for"]
    assert datetime.fromisoformat(exact) == datetime(2126, 3, 1, 2, tzinfo=UTC)
    assert mindia("tasks", "reschedule", task["id"], "soon").code == 2
    assert mindia("tasks", "reschedule", uuid4(), "0s").code == 3
    assert mindia("tasks", "cancel", task["id"]).code == 0
    assert mindia("tasks", "reschedule", task["id"], "0s").code == 5


def test_webhooks_are_kept(mindia: Mindia, library: Library) -> None:
    url = "https://93.184.216.34/hook"
    assert mindia("webhooks", "register", url).code == 2
    issued = mindia("webhooks", "register", url, "--event", "image.*", "--json").lines[0]
    assert issued["secret"].startswith("whsec_")
    webhook_id = issued["webhook"]["id"]
    assert "whsec_" not in mindia("webhooks", "list").stdout + mindia("webhooks", "show", webhook_id).stdout
    changed = mindia("webhooks", "update", webhook_id, "--event", "*", "--ordered", "--json").lines[0]
    assert (changed["events"], changed["is_ordered"]) == (["*"], True)
    assert mindia("webhooks", "pause", webhook_id, "--json").lines[0]["status"] == "paused"
    assert mindia("webhooks", "resume", webhook_id, "--json").lines[0]["status"] == "active"
    assert mindia("webhooks", "rotate", webhook_id, "--json").lines[0]["secret"] != issued["secret"]
    delivery = mindia("webhooks", "test", webhook_id, "--json").lines[0]
    assert [each["id"] for each in mindia("webhooks", "deliveries", webhook_id, "--json").lines] == [delivery["id"]]
    assert mindia("webhooks", "attempts", delivery["id"]).stdout == ""
    (shown,) = mindia("webhooks", "delivery", delivery["id"], "--json").lines
    assert (shown["type"], shown["event_id"]) == ("webhook_event", delivery["event_id"])
    assert "payload" in mindia("webhooks", "delivery", delivery["id"]).stdout
    assert mindia("webhooks", "delivery", 2**40).code == 3
    assert mindia("webhooks", "resend", delivery["id"]).code == 0
    assert mindia("webhooks", "recover", webhook_id, "--since", "1h").code == 0
    assert mindia("webhooks", "delete", webhook_id).code == 0
    assert list(library.webhooks.list()) == []


def test_users_get_their_password_from_standard_input_or_the_environment(mindia: Mindia, library: Library) -> None:
    password = "correct horse battery staple"
    assert mindia("users", "create", "a@example.com", "--role", "admin", stdin=f"{password}\n").code == 0
    assert library.users.authenticate("a@example.com", password).role == "admin"
    assert mindia("users", "set-password", "a@example.com", MINDIA_PASSWORD=f"{password}2").code == 0
    user = library.users.authenticate("a@example.com", f"{password}2")
    assert mindia("users", "create", "b@example.com", stdin="").code == 2
    assert mindia("users", "create", "b@example.com", "--no-password").code == 0
    assert mindia("users", "set-role", "b@example.com", "viewer", "--json").lines[0]["role"] == "viewer"
    assert mindia("users", "deactivate", user.id, "--json").lines[0]["is_active"] is False
    assert mindia("users", "activate", user.id, "--json").lines[0]["is_active"] is True
    assert mindia("users", "show", "a@example.com", "--json").lines[0]["id"] == str(user.id)
    listed = mindia("users", "list")
    assert len(listed.stdout.splitlines()) == 3
    assert password not in listed.stdout


def test_a_key_is_shown_once(mindia: Mindia, library: Library, app: App, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    issued = mindia("keys", "issue", "importer", "--role", "member", "--expires", "90d", "--json")
    assert issued.code == 0, issued.stderr
    token, key_id = issued.lines[0]["token"], issued.lines[0]["key"]["id"]
    key = app.api_keys.verify(token)
    assert (str(key.id), key.role) == (key_id, "member")
    assert key.expires_at is not None
    assert timedelta(days=89) < key.expires_at - datetime.now(UTC) < timedelta(days=91)
    secret = token.rpartition("_")[2]
    assert secret not in issued.stderr + caplog.text
    for words in (("list",), ("list", "--json"), ("show", key_id), ("show", key_id, "--json"), ("revoke", key_id)):
        done = mindia("keys", *words)
        assert done.code == 0, done.stderr
        assert key_id in done.stdout
        assert secret not in done.stdout + done.stderr
    assert library.api_keys.get(key.id).revoked_at is not None
    assert "mindia_" in mindia("keys", "issue", "other", "--role", "viewer").stdout
    assert mindia("keys", "issue", "other", "--role", "king").code == 2
    assert mindia("keys", "issue", "other", "--role", "viewer", "--expires", "1999-01-01").code == 2
    assert mindia("keys", "revoke", uuid4()).code == 3


def test_vectors_are_looked_after(mindia: Mindia, library: Library, app: App) -> None:
    library.media.add(samples.image(), filename="cat.jpg")
    stats = mindia("index", "stats", "--json").lines[0]
    assert (stats["type"], stats["items"], stats["missing"]) == ("index_stats", 1, 1)
    task = mindia("index", "reindex", "--all", "--json").lines[0]
    assert (task["kind"], task["payload"]["only"]) == ("mindia.reindex", "all")
    app.run_until_idle()
    done = mindia("index", "stats")
    assert (done.code, "lexical" in done.stdout) == (0, True)
    assert mindia("index", "stats", "--json").lines[0]["missing"] == 0


def test_tenants_are_kept_and_moved(
    mindia: Mindia, library: Library, storage: LocalStorage, tenant: Tenant, tmp_path: Path
) -> None:
    cat = library.media.add(samples.image(), filename="cat.jpg")
    archive = tmp_path / "acme.archive"
    assert mindia("export", archive).code == 0
    assert mindia("export", archive).code == 5
    picture = library.media.thumbnail(cat)
    storage.delete(tenant.s3_bucket, [picture.s3_key])
    assert "derivatives without bytes  1" in mindia("export", tmp_path / "again.archive").stdout
    report = mindia("export", tmp_path / "a.archive", "--json").lines[0]
    assert [each["operations"] for each in report["missing_derivatives"]] == [picture.operations]
    name = f"Copy {uuid4().hex[:8]}"
    assert mindia("tenants", "import", archive, "--name", name, "--no-keep-ids").code == 0
    assert len(mindia("list", "--tenant", name, "--json").lines) == 1
    assert mindia("tenants", "set-quota", name, "--max-items", 1).code == 0
    assert mindia("usage", "--tenant", name, "--json").lines[0]["quota"]["max_items"] == 1
    limited = mindia("tenants", "set-limits", name, "max_image_bytes=5000", "language=german", "--json").lines[0]
    assert (limited["limits"]["max_image_bytes"], limited["limits"]["language"]) == (5000, "german")
    assert "max_image_bytes=5000 language=german" in mindia("tenants", "show", name).stdout
    assert mindia("tenants", "set-limits", name, "max_cats=1").code == 2
    assert mindia("tenants", "set-limits", name, "max_image_bytes=many").code == 2
    assert mindia("tenants", "show", name, "--json").lines == [limited]
    assert mindia("tenants", "suspend", name, "--json").lines[0]["status"] == "suspended"
    assert mindia("list", "--tenant", name).code == 4
    assert mindia("tenants", "reactivate", name).code == 0
    assert mindia("tenants", "delete", name, stdin="no\n").code == 2
    assert mindia("tenants", "rename", name, f"{name} 2").code == 0
    assert mindia("tenants", "delete", f"{name} 2", stdin=f"{name} 2\n").code == 0
    assert mindia("list", "--tenant", f"{name} 2").code == 3
    made = mindia("tenants", "create", name, "--json").lines[0]
    assert made["id"] in mindia("tenants", "list").stdout


def test_maintenance_looks_before_it_removes(
    mindia: Mindia, library: Library, storage: LocalStorage, tenant: Tenant
) -> None:
    for step in ("sweep-staged", "remove-expired", "remove-deleted", "remove-uploads"):
        assert mindia("maintenance", step, "--dry-run", "--json").lines[0]["is_dry_run"] is True
    for step in ("remove-login-failures", "remove-old-deliveries", "remove-old-requests", "renew-webhook-secrets"):
        assert mindia("maintenance", step, "--json").lines[0]["step"] == step
    item = library.media.add(samples.image(), filename="cat.jpg")
    assert mindia("maintenance", "verify", "--tenant", item.tenant_id, "--json").lines[0]["is_clean"] is True
    storage.delete(tenant.s3_bucket, [item.s3_key])
    damaged = mindia("maintenance", "verify", "--tenant", item.tenant_id)
    assert damaged.code == 1
    assert "missing" in damaged.stdout


def test_objects_are_moved_to_another_storage(
    mindia: Mindia, library: Library, storage: LocalStorage, tenant: Tenant, tmp_path: Path
) -> None:
    item = library.media.add(samples.image(), filename="cat.jpg")
    copy = ("maintenance", "copy-objects", "--tenant", tenant.id)
    assert mindia(*copy).code == 2
    moving = {"MINDIA_STORAGE": str(tmp_path / "new"), "MINDIA_OLD_STORAGE": str(storage.root)}
    assert mindia(*copy, "--dry-run", "--json", **moving).lines[0]["copied"] == 1
    assert not list((tmp_path / "new").rglob("*.jpg"))
    report = mindia(*copy, "--json", **moving).lines[0]
    assert (report["type"], report["copied"], report["is_complete"]) == ("copy_report", 1, True)
    assert "there before" in mindia(*copy, **moving).stdout
    moved = tmp_path / "moved.jpg"
    assert mindia("show", item.id, "--save-to", moved, "--storage", tmp_path / "new").code == 0
    assert moved.read_bytes() == samples.image()

    lost = library.media.add(samples.image(width=99), filename="lost.jpg")
    storage.delete(tenant.s3_bucket, [lost.s3_key])
    storage.put(tenant.s3_bucket, lost.s3_key, io.BytesIO(b"other bytes"), content_type="image/jpeg")
    damaged = mindia(*copy, **moving)
    assert (damaged.code, lost.s3_key in damaged.stdout) == (1, True)


def test_the_doctor_says_what_is_there_and_what_to_do(mindia: Mindia, environment: dict[str, str]) -> None:
    done = mindia("doctor", "--json")
    assert done.code == 0, done.stdout
    checks = {check["name"]: check for check in done.lines}
    assert {checks[name]["status"] for name in ("server", "pgvector", "tables", "roles", "storage", "embedder")} == {
        "ok"
    }
    away = mindia(
        "doctor", "--json", "--set", "pool_timeout_s=1", MINDIA_DATABASE_URL="host=127.0.0.1 port=1 password=hush"
    )
    assert away.code == 1
    (failed,) = [check for check in away.lines if check["status"] == "error"]
    assert (failed["name"], bool(failed["advice"])) == ("server", True)
    assert "hush" not in away.stdout + away.stderr
    full = mindia("doctor", "--storage", "/proc/nowhere")
    assert full.code == 1
    assert "to do:" in full.stdout
    assert environment["MINDIA_SECRET_KEY"] not in full.stdout


def test_tables_are_planned_scripted_and_made(mindia: Mindia, empty_database_url: str) -> None:
    def migrate(*more: str) -> Done:
        return mindia("migrate", *more, MINDIA_DATABASE_URL=empty_database_url, MINDIA_WORKER_ROLE="")

    assert mindia("usage", MINDIA_DATABASE_URL=empty_database_url, MINDIA_WORKER_ROLE="").code == 1
    planned = migrate("--plan", "--json").lines
    assert [each["version"] for each in planned] == list(range(1, len(planned) + 1))
    assert "create table" in migrate("--sql").stdout
    assert migrate("--plan", "--sql").code == 2
    assert [each["applied"] for each in migrate("--json").lines] == [True] * len(planned)
    assert migrate("--plan", "--json").lines == []


def test_a_library_is_made_once(mindia: Mindia, empty_database_url: str) -> None:
    done = mindia(
        "init",
        "--name",
        "First",
        "--json",
        MINDIA_DATABASE_URL=empty_database_url,
        MINDIA_WORKER_ROLE="",
        MINDIA_TENANT="",
    )
    assert done.code == 0, done.stderr
    assert done.lines[0]["was_made"] is True
    assert mindia("init", MINDIA_DATABASE_URL="", MINDIA_STORAGE="", MINDIA_WORKER_ROLE="", MINDIA_TENANT="").code == 0
    listed = mindia("tenants", "list", "--json", MINDIA_DATABASE_URL="", MINDIA_STORAGE="", MINDIA_WORKER_ROLE="")
    assert [each["name"] for each in listed.lines] == ["First"]


def started(environment: dict[str, str], *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "mindia.cli", *map(str, arguments)],
        env=os.environ | environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_worker_works_until_sigterm(environment: dict[str, str], library: Library) -> None:
    library.media.add(samples.image(), filename="cat.jpg")
    with started(environment, "worker", "--json", "--no-webhooks") as worker:
        try:
            wait_until(lambda: library.index.stats().missing == 0)
            worker.send_signal(signal.SIGTERM)
            stdout, stderr = worker.communicate(timeout=30)
        finally:
            worker.kill()
    assert worker.returncode == 0, stderr
    assert json.loads(stdout)["type"] == "work_report"


def test_an_import_that_was_killed_goes_on(environment: dict[str, str], library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03}.jpg").write_bytes(samples.image(width=40 + number, height=30))
    with started(environment, "import", folder, "--concurrency", 2) as first:
        wait_until(lambda: library.media.count() > 0)
        first.kill()
        first.communicate()
    there = library.media.count()
    with started(environment, "import", folder, "--json") as second:
        stdout, stderr = second.communicate(timeout=60)
    summary = json.loads(stdout.splitlines()[-1])
    assert second.returncode == 0, stderr
    assert summary["there"] >= there
    assert summary["added"] + summary["there"] == 300
    assert library.media.count() == 300
    assert len({item.sha256 for item in library.media.iterate()}) == 300


def test_an_import_is_interrupted_between_files(environment: dict[str, str], library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03}.jpg").write_bytes(samples.image(width=40 + number, height=30))
    with started(environment, "import", folder, "--concurrency", 1, "--json") as done:
        wait_until(lambda: library.media.count() > 0)
        done.send_signal(signal.SIGINT)
        stdout, stderr = done.communicate(timeout=60)
    summary = json.loads(stdout.splitlines()[-1])
    assert done.returncode == 130, stderr
    assert summary["interrupted"] is True
    assert summary["added"] == library.media.count() < 300


def test_a_reader_that_goes_away_is_no_error(environment: dict[str, str], library: Library) -> None:
    report = library.media.add_many([samples.image(width=40 + number, height=30) for number in range(100)])
    assert len(report.added) == 100
    with started(environment, "list", "--json") as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        writer.stdout.readline()
        writer.stdout.close()
        stderr = writer.stderr.read()
        writer.wait(timeout=30)
    assert (writer.returncode, stderr) == (141, "")
