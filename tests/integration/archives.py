"""Archives of tenants: what is in them, and the installations that they go between."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.conftest import Roles
from tests.integration.library_calls import SETTINGS

import mindia
from mindia import Library, LocalStorage, Media, Mindia, Preset, Settings, User
from mindia.db.roles import set_up

NOBODY = UUID(int=0)

MANIFEST, USERS, MEDIA, PRESETS = "manifest.json", "users.jsonl", "media.jsonl", "presets.jsonl"
DERIVATIVES = "derivatives.jsonl"


@contextmanager
def installation(
    url: str, roles: Roles, folder: Path, *, settings: Settings = SETTINGS, **options: Any
) -> Iterator[Mindia]:
    """Connect to a database of its own, as a role that row-level security holds to one tenant."""
    with psycopg.connect(url, autocommit=True) as connection:
        set_up(connection, application=roles.application, worker=roles.worker)
    application = make_conninfo(url, user=roles.application, password=conninfo_to_dict(url).get("password"))
    storage = LocalStorage(folder)
    with mindia.connect(
        application, storage=storage, settings=attrs.evolve(settings, worker_role=roles.worker), **options
    ) as app:
        yield app


def plain(item: Media, **changes: Any) -> Media:
    """Return an item without what is another one after an import: its tenant and where its bytes are."""
    return attrs.evolve(item, tenant_id=NOBODY, s3_key="", **changes)


def plain_user(user: User, **changes: Any) -> User:
    return attrs.evolve(user, tenant_id=NOBODY, **changes)


def media_of(library: Library) -> list[Media]:
    """Return all items, the oldest first."""
    return [plain(item) for item in library.media.iterate(order="uploaded_at")]


def users_of(library: Library) -> list[User]:
    return [plain_user(user) for user in library.users.list()]


def presets_of(library: Library) -> list[Preset]:
    """Return all presets, by their names."""
    return [attrs.evolve(preset, tenant_id=NOBODY) for preset in library.presets.list()]


def members(path: Path) -> dict[str, bytes]:
    """Return the members of an archive, with their contents."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def lines(content: bytes) -> list[dict[str, Any]]:
    """Return what the lines of a member say."""
    return [json.loads(line) for line in content.splitlines()]


@attrs.define
class Parts:
    """An archive, taken apart to be changed.

    Attributes:
        manifest: What it says of itself.
        users: Its users.
        media: Its items.
        presets: Its presets; None where there is no such member, as in the first version of the format.
        derivatives: What was made of its items; None where there is no such member, as in the first two versions.
        objects: Contents, by the hash that names them.
        raw: Members as they are, in place of those that would be written, or beside them.
    """

    manifest: dict[str, Any]
    users: list[dict[str, Any]]
    media: list[dict[str, Any]]
    presets: list[dict[str, Any]] | None
    derivatives: list[dict[str, Any]] | None
    objects: dict[str, bytes]
    raw: dict[str, bytes] = attrs.field(factory=dict)

    @classmethod
    def of(cls, path: Path) -> Self:
        there = members(path)
        return cls(
            manifest=json.loads(there[MANIFEST]),
            users=lines(there[USERS]),
            media=lines(there[MEDIA]),
            presets=lines(there[PRESETS]),
            derivatives=lines(there[DERIVATIVES]),
            objects={name.removeprefix("objects/"): there[name] for name in there if name.startswith("objects/")},
        )

    def item(self, kind: str) -> dict[str, Any]:
        """Return the first item of a kind."""
        return next(item for item in self.media if item["kind"] == kind)

    def preset(self, name: str) -> dict[str, Any]:
        """Return the preset of a name."""
        return next(preset for preset in self.presets or () if preset["name"] == name)

    def set_first_version(self) -> None:
        """Have it be as those were that had no presets."""
        self.set_second_version()
        self.presets = None
        self.manifest["version"] = 1
        del self.manifest["preset_count"], self.manifest["presets_sha256"]

    def set_second_version(self) -> None:
        """Have it be as those were that had nothing that was made of items."""
        made = {each["sha256"] for each in self.derivatives or ()} - {item["sha256"] for item in self.media}
        self.objects = {sha256: content for sha256, content in self.objects.items() if sha256 not in made}
        self.derivatives = None
        self.manifest["version"] = 2
        del self.manifest["derivative_count"], self.manifest["derivatives_sha256"]

    def made(self, operations: str) -> dict[str, Any]:
        """Return the first line of what was made whose operations begin so."""
        return next(each for each in self.derivatives or () if each["operations"].startswith(operations))

    def set_content(self, item: dict[str, Any], content: bytes) -> None:
        """Give an item other bytes, with all that an archive says of them."""
        self.objects.pop(item["sha256"])
        item["sha256"], item["file_size"] = hashlib.sha256(content).hexdigest(), len(content)
        self.objects[item["sha256"]] = content

    def seal(self) -> Self:
        """Have the manifest say what is there now."""
        there = self.contents()
        self.manifest |= {
            "user_count": len(self.users),
            "media_count": len(self.media),
            "object_count": len(self.objects),
            "object_bytes": sum(map(len, self.objects.values())),
            "users_sha256": hashlib.sha256(there[USERS]).hexdigest(),
            "media_sha256": hashlib.sha256(there[MEDIA]).hexdigest(),
        }
        if self.presets is not None:
            self.manifest |= {
                "preset_count": len(self.presets),
                "presets_sha256": hashlib.sha256(there[PRESETS]).hexdigest(),
            }
        if self.derivatives is not None:
            self.manifest |= {
                "derivative_count": len(self.derivatives),
                "derivatives_sha256": hashlib.sha256(there[DERIVATIVES]).hexdigest(),
            }
        return self

    def contents(self) -> dict[str, bytes]:
        """Return the members."""
        objects = {f"objects/{sha256}": content for sha256, content in self.objects.items()}
        there = {USERS: _lines(self.users), MEDIA: _lines(self.media)}
        if self.presets is not None:
            there[PRESETS] = _lines(self.presets)
        if self.derivatives is not None:
            there[DERIVATIVES] = _lines(self.derivatives)
        return objects | there | {MANIFEST: json.dumps(self.manifest).encode()} | self.raw

    def build(self) -> bytes:
        """Return the archive as it is now, sealed or not."""
        return zipped(self.contents())


def zipped(contents: dict[str, bytes]) -> bytes:
    """Return a ZIP file, whose members are stored as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _lines(values: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)
