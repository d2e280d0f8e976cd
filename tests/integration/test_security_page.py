"""docs/security.md: what it has an operator run makes an application that row-level security holds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from tests.integration.cluster import Cluster, empty_cluster, has_the_main_job_done
from tests.integration.test_permissions import LEAST_ROLE

from mindia import UserRole

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(sql|python)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)

ROLES = ("owner", "app", "worker", "web", "jobs")


@pytest.fixture
def cluster(server_url: str) -> Iterator[Cluster]:
    with empty_cluster(server_url) as cluster:
        yield cluster


def run_sql(cluster: Cluster, statements: str) -> None:
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        if "with inherit false" in statements and connection.info.server_version < 160000:
            return
        if statements.startswith("select mindia.grant_role"):
            connection.execute(sql.SQL("set role {}").format(sql.Identifier(cluster.name("owner"))))
        connection.execute(statements.encode())
        connection.execute("reset role")
        made = connection.execute("select rolname from pg_roles where starts_with(rolname, %s)", (cluster.prefix,))
        for (name,) in made.fetchall():
            password = sql.SQL("alter role {} password {}")
            connection.execute(password.format(sql.Identifier(name), sql.Literal(cluster.password)))


def run_python(cluster: Cluster, code: str, folder: Path) -> None:
    urls = {f"{role.upper()}_URL": cluster.at(role) for role in ROLES}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=os.environ | urls | {"SECRET_KEY": "not so very secret"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_an_operator_is_told_to_run_works_from_top_to_bottom(cluster: Cluster, tmp_path: Path) -> None:
    for language, block in BLOCKS:
        mine = re.sub(rf"\bmindia_({'|'.join(ROLES)})\b", lambda match: cluster.name(match[1]), block)
        if language == "sql":
            run_sql(cluster, mine)
        else:
            run_python(cluster, mine, tmp_path)

    assert {language for language, _ in BLOCKS} == {"sql", "python"}
    with cluster.app("app", worker_role="worker") as app:
        assert app.check().role.is_isolated
        assert has_the_main_job_done(app)
    with cluster.app("web") as web, cluster.app("jobs") as jobs:
        assert web.check().role.is_isolated
        assert not jobs.check().role.is_isolated
        assert has_the_main_job_done(jobs)


def test_the_table_of_roles_says_what_the_calls_take() -> None:
    rows = dict(re.findall(r"^\| (admin|member|viewer) \| ((?:yes|no)(?: \| (?:yes|no))*) \|$", PAGE, re.MULTILINE))
    may = {role: [answer == "yes" for answer in rows[role].split(" | ")] for role in UserRole}

    def takes(group: str) -> UserRole:
        roles = {role for name, role in LEAST_ROLE.items() if re.match(group, name)}
        assert len(roles) == 1, group
        return roles.pop()

    least = [
        takes(
            r"media\.(get(?!_upload)|find|iterate|count|exists|open|read|save_to|url)|search|index\.search|tasks\.get"
        ),
        takes(r"media\.(add|update|copy|delete|stage|\w+_upload)|index\.embed|tasks\.enqueue|usage"),
        takes(r"users|api_keys"),
    ]
    in_order = list(UserRole)  # from the one that may do most
    assert may == {role: [in_order.index(role) <= in_order.index(each) for each in least] for role in UserRole}
