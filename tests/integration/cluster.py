"""A database whose owner is no superuser, with roles of a test's own, as docs/security.md has them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.integration.library_calls import SETTINGS

import mindia
from mindia import Mindia, Quota
from mindia.testing import samples


@attrs.frozen
class Cluster:
    """A database, and roles whose names nobody else on the server has.

    Attributes:
        url: The database, as a superuser.
        prefix: What the names of the roles begin with.
        password: That of all roles.
    """

    url: str
    prefix: str
    password: str

    def name(self, role: str) -> str:
        return f"{self.prefix}_{role}"

    def at(self, role: str, **options: str) -> str:
        return make_conninfo(self.url, user=self.name(role), password=self.password, **options)

    def run(self, statement: str, *roles: str, role: str | None = None) -> None:
        """Run a statement with the names of roles in place of `{}`, as a superuser or as a role."""
        with psycopg.connect(self.url if role is None else self.at(role), autocommit=True) as connection:
            names = [sql.Identifier(self.name(each)) for each in roles]
            connection.execute(sql.SQL(statement).format(*names))

    def create(self, role: str, attributes: str = "login") -> None:
        self.run(f"create role {{}} {attributes} password '{self.password}'", role)

    def grant_role(self, role: str, purpose: str) -> None:
        with psycopg.connect(self.at("owner"), autocommit=True) as connection:
            connection.execute("select mindia.grant_role(%s, %s)", (self.name(role), purpose))

    def app(self, role: str, *, worker_role: str | None = None, **options: str) -> Mindia:
        """Return an application that logs in as a role."""
        settings = attrs.evolve(SETTINGS, worker_role=worker_role and self.name(worker_role))
        return mindia.connect(self.at(role, **options), storage=mindia.MemoryStorage(), settings=settings)

    def set_up(self) -> None:
        """Make the tables, and the roles of owner, application and worker."""
        for role, attributes in (("owner", "login"), ("app", "login noinherit"), ("worker", "login")):
            self.create(role, attributes)
        self.run("grant {} to {}", "worker", "app")
        self.run("create schema mindia authorization {}", "owner")
        with self.app("owner") as app:
            app.migrate()
        self.grant_role("app", "application")
        self.grant_role("worker", "worker")


@contextmanager
def empty_cluster(server_url: str) -> Iterator[Cluster]:
    """Make an empty database; drop it at the end, and the roles that the test has made."""
    cluster = Cluster("", f"mindia_test_{secrets.token_hex(4)}", secrets.token_hex(16))
    database = sql.Identifier(cluster.prefix)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(database))
        try:
            yield attrs.evolve(cluster, url=make_conninfo(server_url, dbname=cluster.prefix))
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(database))
            made = connection.execute("select rolname from pg_roles where starts_with(rolname, %s)", (cluster.prefix,))
            for (name,) in made.fetchall():
                connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def has_the_main_job_done(app: Mindia) -> bool:
    """Make a tenant, put an item in, have it embedded, find it, delete it, and remove its bytes."""
    library = app.library(app.tenants.create("Acme"))
    app.tenants.set_quota(library.tenant_id, Quota(max_items=1))
    item = library.media.add(samples.image(), filename="cat_on_windowsill.jpg")
    app.run_until_idle()
    (found,) = library.search("cat")
    library.media.delete(item)
    return found.media == item and found.vector_rank == 1 and app.run_until_idle().objects_removed == 1
