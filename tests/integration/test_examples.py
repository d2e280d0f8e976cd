"""The services of `examples/` do what they say, asked over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
import yaml
from fastapi.testclient import TestClient
from tests.conftest import Roles
from tests.integration.library_calls import SETTINGS

import mindia
from mindia import Library, LocalStorage, Mindia
from mindia.testing import samples

_EXAMPLES = Path(__file__).parents[2] / "examples"


@attrs.frozen
class Service:
    """A service, asked as a customer who has an API key."""

    client: TestClient
    app: Mindia
    library: Library


def _module(name: str) -> ModuleType:
    spec = spec_from_file_location(name, _EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def service(application_url: str, roles: Roles, tmp_path: Path) -> Iterator[Service]:
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker, public_url="http://testserver/files")
    app = mindia.connect(application_url, storage=LocalStorage(tmp_path / "objects"), settings=settings)
    library = app.library(app.tenants.create("Acme"))
    token = library.api_keys.issue("tests", role="admin").token
    with TestClient(_module("fastapi_app").make_api(app), headers={"Authorization": f"Bearer {token}"}) as client:
        yield Service(client, app, library)
    assert app.closed


def _path(url: str) -> str:
    split = urlsplit(url)
    return f"{split.path}?{split.query}"


def _ok(response: Any, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()


def test_what_is_added_is_found_served_and_deleted(service: Service) -> None:
    picture = samples.image(width=64, height=48)
    added = _ok(service.client.post("/media", params={"filename": "lisbon cat.jpg"}, content=picture), 201)
    assert added["content_type"] == "image/jpeg"

    assert [item["id"] for item in _ok(service.client.get("/media"))["items"]] == [added["id"]]
    assert [hit["id"] for hit in _ok(service.client.get("/search", params={"q": "cats"}))] == [added["id"]]

    got = _ok(service.client.get(f"/media/{added['id']}"))
    served = service.client.get(_path(got["url"]), headers={"Authorization": ""})
    assert (served.status_code, served.content) == (200, picture)

    assert service.client.delete(f"/media/{added['id']}").status_code == 204
    gone = service.client.get(f"/media/{added['id']}")
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


def test_a_form_goes_where_the_service_says(service: Service) -> None:
    picture = samples.image(width=65, height=48)
    place = _ok(service.client.post("/uploads", params={"filename": "cat.jpg", "max_bytes": 100_000}), 201)
    early = service.client.post(f"/uploads/{place['id']}/complete")
    assert (early.status_code, early.json()["code"]) == (409, "upload_incomplete")

    sent = service.client.post(_path(place["url"]), data=place["fields"], files={"file": ("cat.jpg", picture)})
    assert sent.status_code < 300, sent.text

    item = _ok(service.client.post(f"/uploads/{place['id']}/complete"), 201)
    assert [each.filename for each in service.library.media.iterate()] == ["cat.jpg"]
    assert item["size"] == len(picture)


def test_only_who_has_a_key_is_answered_and_as_its_role_allows(service: Service) -> None:
    assert service.client.get("/media", headers={"Authorization": ""}).status_code in {401, 403}
    wrong = service.client.get("/media", headers={"Authorization": "Bearer of_nothing"})
    assert (wrong.status_code, wrong.json()["code"]) == (401, "authentication")

    viewer = service.library.api_keys.issue("looks", role="viewer").token
    refused = service.client.post(
        "/media", params={"filename": "a.jpg"}, content=samples.image(), headers={"Authorization": f"Bearer {viewer}"}
    )
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")


def test_endpoints_are_registered_and_requests_are_logged_for_their_customer(service: Service) -> None:
    answer = _ok(service.client.post("/webhooks", params={"url": "https://example.com/hook"}, json=["image.*"]), 201)
    assert answer["secret"].startswith("whsec_")
    assert [str(each.id) for each in service.library.webhooks.list()] == [answer["id"]]

    service.app.request_log.flush()
    assert "/webhooks" in {each.route for each in service.library.request_log.list()}


def test_an_order_of_django_and_its_picture_are_one_transaction(empty_database_url: str, tmp_path: Path) -> None:
    """Django is configured once in a process: it has one of its own."""
    environment = os.environ | {
        "DATABASE_URL": empty_database_url,
        "SECRET_KEY": "a secret of the tests",
        "PUBLIC_URL": "http://testserver/files",
        "PYTHONPATH": os.pathsep.join([str(_EXAMPLES), os.environ.get("PYTHONPATH", "")]),
    }
    (tmp_path / "quay.jpg").write_bytes(samples.image())
    (tmp_path / "text.jpg").write_bytes(b"no picture")
    for arguments in ([str(_EXAMPLES / "django_app.py")], ["-c", _ASKS_DJANGO]):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


_ASKS_DJANGO = """
from contextlib import closing
from urllib.parse import urlsplit
from unittest.mock import patch
from wsgiref.util import setup_testing_defaults
from django.test import Client
import django_app
from django_app import Order, application, media_layer

client = Client()
library = media_layer.library()

with open("quay.jpg", "rb") as picture:
    made = client.post("/orders", {"title": "poster", "picture": picture})
assert made.status_code == 201, made.content
(order,) = client.get("/orders").json()["orders"]
assert order["title"] == "poster"

url = urlsplit(order["url"])
environ = {"PATH_INFO": url.path, "QUERY_STRING": url.query}
setup_testing_defaults(environ)
answered = []
with closing(application(environ, lambda status, headers, *_: answered.append(status))) as pieces:
    body = b"".join(pieces)
assert answered == ["200 OK"], answered
with open("quay.jpg", "rb") as picture:
    assert body == picture.read()

with open("text.jpg", "rb") as picture:
    refused = client.post("/orders", {"title": "nothing", "picture": picture})
assert refused.status_code == 415, (refused.status_code, refused.content)

with open("quay.jpg", "rb") as picture, patch.object(Order.objects, "create", side_effect=KeyError):
    try:
        client.post("/orders", {"title": "lost", "picture": picture})
    except KeyError:
        pass
    else:
        raise AssertionError("it was not raised")
assert (Order.objects.count(), library.media.count()) == (1, 1)
media_layer.request_log.flush()
assert [each.path.partition('?')[0] for each in media_layer.request_log.list()] == [url.path]
django_app.connection.close()
media_layer.close()
"""


def test_the_files_for_deploying_are_what_their_programs_read() -> None:
    compose = yaml.safe_load((_EXAMPLES / "deploy" / "compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"database", "objects", "migrate", "worker"}
    for name in ("migrate", "worker"):
        assert services[name]["build"]["dockerfile"] == "Dockerfile"
        assert set(services[name]["depends_on"]) <= set(services)
    commands = {tuple(services[name]["command"]) for name in ("migrate", "worker")}
    unit = ConfigParser(strict=False, delimiters=("=",), interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names are told apart by case
    unit.read(_EXAMPLES / "deploy" / "mindia-worker.service")
    commands.add(tuple(unit["Service"]["ExecStart"].split()[1:]))
    assert commands == {("migrate",), ("worker",)}
