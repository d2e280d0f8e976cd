"""A role of the server that may not do what a call takes: an error that tells the way out, and never nothing done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from tests.integration.cluster import Cluster, empty_cluster
from tests.integration.test_lifetimes import CALLS_OF_THE_APPLICATION

from mindia import MediaKind, Mindia
from mindia.domain.tasks import GenerateEmbedding
from mindia.errors import ConflictError, RoleError
from mindia.testing import samples


@pytest.fixture
def empty(server_url: str) -> Iterator[Cluster]:
    with empty_cluster(server_url) as cluster:
        yield cluster


@pytest.fixture
def cluster(empty: Cluster) -> Cluster:
    empty.run("create extension vector")
    empty.set_up()
    return empty


def _run_a_worker(app: Mindia) -> object:
    return app.worker().run()


_ID = uuid4()
_PAYLOAD = GenerateEmbedding(entity_id=_ID, entity_type=MediaKind.IMAGE)

ACROSS_TENANTS: dict[str, Callable[[Mindia], object]] = {
    **{
        name: call
        for name, call in CALLS_OF_THE_APPLICATION.items()
        if name.startswith(("tenants.", "tasks.", "maintenance.", "run_until_idle"))
        and name not in ("tenants.export", "maintenance.index_vectors")  # of one tenant; of the owner of the tables
    },
    "worker().run": _run_a_worker,
    "transaction().tenants.create": lambda app: app.run(lambda tx: tx.tenants.create("Acme")),
    "transaction().tenants.list": lambda app: app.run(lambda tx: list(tx.tenants.list())),
    "transaction().tasks.enqueue": lambda app: app.run(lambda tx: tx.tasks.enqueue(_PAYLOAD)),
}


def _without_a_worker_role(cluster: Cluster) -> Mindia:
    return cluster.app("app")


def _with_one_that_is_not_there(cluster: Cluster) -> Mindia:
    return cluster.app("app", worker_role="nobody")


def _with_one_that_it_is_no_member_of(cluster: Cluster) -> Mindia:
    cluster.run("revoke {} from {}", "worker", "app")
    return cluster.app("app", worker_role="worker")


def _with_one_that_it_may_not_take_on(cluster: Cluster) -> Mindia:
    with psycopg.connect(cluster.url) as connection:
        if connection.info.server_version < 160000:
            pytest.skip("a member may always take on the role before PostgreSQL 16")
    cluster.run("revoke {} from {}", "worker", "app")
    cluster.run("grant {} to {} with inherit false, set false", "worker", "app")
    return cluster.app("app", worker_role="worker")


def _with_one_that_was_never_granted(cluster: Cluster) -> Mindia:
    cluster.create("idle", "nologin")
    cluster.run("grant {} to {}", "idle", "app")
    return cluster.app("app", worker_role="idle")


def _with_one_that_is_an_application(cluster: Cluster) -> Mindia:
    cluster.grant_role("worker", "application")
    return cluster.app("app", worker_role="worker")


REFUSED = {
    _without_a_worker_role: "'{app}' sees one tenant at a time, and this call goes across tenants: name a role .* "
    r"Settings\.worker_role, .* docs/security\.md",
    _with_one_that_is_not_there: r"there is no role '{nobody}', which Settings\.worker_role names",
    _with_one_that_it_is_no_member_of: "'{app}' may not take on the role '{worker}', .*: grant {worker} to {app} with "
    "inherit false, set true",
    _with_one_that_it_may_not_take_on: "'{app}' may not take on the role '{worker}', .*: grant {worker} to {app}",
    _with_one_that_was_never_granted: r"'{idle}', .* one tenant at a time: .*grant_role\('{idle}', 'worker'\)",
    _with_one_that_is_an_application: r"'{worker}', .* one tenant at a time: .*grant_role\('{worker}', 'worker'\)",
}


@pytest.mark.parametrize(("made", "message"), REFUSED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_call_across_tenants_that_would_see_nothing_is_an_error_that_tells_the_way_out(
    cluster: Cluster, made: Callable[[Cluster], Mindia], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with cluster.app("app", worker_role="worker") as able:
        tenant = able.tenants.create("Acme")
        kept = able.library(tenant).media.add(samples.image())
        able.tenants.export(tenant.id, "acme.zip")
    names = {role: cluster.name(role) for role in ("app", "worker", "nobody", "idle")}
    with made(cluster) as app:
        app.check()
        for name, call in ACROSS_TENANTS.items():
            with pytest.raises(RoleError, match=message.format(**names)) as caught:
                call(app)
            assert (caught.value.code, caught.value.retryable, name) == ("role", False, name)
        assert list(app.library(tenant).media.find()) == [kept], "calls of one tenant go on"


def test_a_role_without_any_right_is_told_so(cluster: Cluster) -> None:
    cluster.create("stranger")

    with cluster.app("stranger") as app:
        for call in (app.check, lambda: app.tenants.create("Acme"), lambda: app.library(_ID).media.find()):
            with pytest.raises(RoleError, match=r"permission denied for schema mindia; docs/security\.md"):
                call()


def test_a_role_that_is_refused_by_the_server_is_an_error_of_ours_and_not_a_conflict(cluster: Cluster) -> None:
    with cluster.app("app", worker_role="worker") as app:
        tenant = app.tenants.create("Acme")
        cluster.run("revoke insert on mindia.images from {}", "app", role="owner")

        with pytest.raises(RoleError, match="permission denied for table images") as caught:
            app.library(tenant).media.add(samples.image())
        assert not isinstance(caught.value, ConflictError)
