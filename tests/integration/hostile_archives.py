"""Archives that mean harm, or are damaged: each with what it is refused with."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import attrs
from tests.integration.archives import DERIVATIVES, MANIFEST, MEDIA, PRESETS, USERS, Parts, zipped

from mindia.errors import ArchiveError, CorruptMediaError, MindiaError, TooLargeError, TypeMismatchError
from mindia.errors import UnsupportedTypeError as UnsupportedError
from mindia.testing import samples


@attrs.frozen
class Hostile:
    """An archive that is refused.

    Attributes:
        make: Returns it, of the parts of a good one.
        says: What the error says.
        error: Of which class it is.
    """

    make: Callable[[Parts], bytes]
    says: str
    error: type[MindiaError] = ArchiveError


def _sealed(change: Callable[[Parts], object]) -> Callable[[Parts], bytes]:
    """Change the parts, and have the manifest agree."""

    def make(parts: Parts) -> bytes:
        change(parts)
        return parts.seal().build()

    return make


def _unsealed(change: Callable[[Parts], object]) -> Callable[[Parts], bytes]:
    """Change the parts, and have the manifest say what was there before."""

    def make(parts: Parts) -> bytes:
        change(parts.seal())
        return parts.build()

    return make


def _set(which: str, /, **values: Any) -> Callable[[Parts], bytes]:
    """Have the first item of a kind say something else."""
    return _sealed(lambda parts: parts.item(which).update(values))


def _set_fact(which: str, /, **values: Any) -> Callable[[Parts], bytes]:
    return _sealed(lambda parts: parts.item(which)["facts"].update(values))


def _set_user(**values: Any) -> Callable[[Parts], bytes]:
    return _sealed(lambda parts: parts.users[0].update(values))


def _set_preset(name: str = "card", /, **values: Any) -> Callable[[Parts], bytes]:
    return _sealed(lambda parts: parts.preset(name).update(values))


def _add_preset(**values: Any) -> Callable[[Parts], bytes]:
    """Have a preset more, like the first one but for what is said."""
    return _sealed(lambda parts: parts.presets.append(parts.preset("card") | values) if parts.presets else None)


def _first_version(change: Callable[[Parts], object]) -> Callable[[Parts], bytes]:
    """Have an archive that says that it is of the first version, with something changed."""

    def make(parts: Parts) -> bytes:
        parts.set_first_version()
        parts.seal()
        change(parts)
        return parts.build()

    return make


def _second_version(change: Callable[[Parts], object]) -> Callable[[Parts], bytes]:
    """Have an archive that says that it is of the second version, with something changed."""

    def make(parts: Parts) -> bytes:
        parts.set_second_version()
        parts.seal()
        change(parts)
        return parts.build()

    return make


def _set_manifest(**values: Any) -> Callable[[Parts], bytes]:
    return _unsealed(lambda parts: parts.manifest.update(values))


def _set_tenant(**values: Any) -> Callable[[Parts], bytes]:
    return _unsealed(lambda parts: parts.manifest["tenant"].update(values))


_HASHES = {
    USERS: "users_sha256",
    MEDIA: "media_sha256",
    PRESETS: "presets_sha256",
    DERIVATIVES: "derivatives_sha256",
}


def _raw(name: str, content: bytes) -> Callable[[Parts], bytes]:
    """Have a member that is just these bytes, with its hash in the manifest."""

    def make(parts: Parts) -> bytes:
        parts.seal()
        parts.raw[name] = content
        field = _HASHES.get(name)
        if field is not None:
            parts.manifest[field] = hashlib.sha256(content).hexdigest()
        return parts.build()

    return make


def _line_instead(text: bytes) -> Callable[[Parts], bytes]:
    """Have a line of media that is just these bytes."""
    return lambda parts: _raw(MEDIA, parts.contents()[MEDIA] + text)(parts)


def _with_object(content: bytes, kind: str = "image", **values: Any) -> Callable[[Parts], bytes]:
    """Have an item of these bytes."""

    def change(parts: Parts) -> None:
        item = parts.item(kind)
        parts.set_content(item, content)
        item.update(values)

    return _sealed(change)


def _written(parts: Parts, change: Callable[[zipfile.ZipFile, dict[str, bytes]], object]) -> bytes:
    """Write an archive whose members `change` writes, all or some."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        change(archive, parts.contents())
    return buffer.getvalue()


def _member(name: str, *, mode: int = stat.S_IFREG | 0o600, content: bytes = b"x") -> Callable[[Parts], bytes]:
    """Have a further member, or one in place of another."""

    def change(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
        for each, there in contents.items():
            if each != name:
                archive.writestr(zipfile.ZipInfo(each), there)
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, mode << 16
        archive.writestr(info, contents.get(name, content))

    return lambda parts: _written(parts, change)


def _twice(name: str) -> Callable[[Parts], bytes]:
    def make(parts: Parts) -> bytes:
        contents = parts.contents()
        wanted = name if name in contents else next(each for each in contents if each.startswith("objects/"))
        other = wanted[:-1] + "~"  # of the same length, renamed afterwards: writers refuse to write a name twice
        return zipped(contents | {other: contents[wanted]}).replace(other.encode(), wanted.encode())

    return make


def _compressed(parts: Parts) -> bytes:
    def change(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED if name == MEDIA else None)

    return _written(parts, change)


def _bomb(parts: Parts) -> bytes:
    """Return an archive of a few kilobytes, one of whose members would be a gigabyte."""

    def change(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
        for name, content in contents.items():
            if name != MEDIA:
                archive.writestr(zipfile.ZipInfo(name), content)
        info = zipfile.ZipInfo(MEDIA)
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w", force_zip64=True) as member:
            for _ in range(64):
                member.write(bytes(1 << 20))

    content = bytearray(_written(parts, change))
    # The directory says that it is larger still.
    at = content.rindex(b"PK\1\2", 0, content.rindex(MEDIA.encode()))
    struct.pack_into("<L", content, at + 24, 1 << 30)
    return bytes(content)


def _overlapping(parts: Parts) -> bytes:
    """Return an archive whose entries all lead to the same bytes, as in the bomb of Fifield, 2019."""
    content = bytearray(parts.build())
    entries = _entries(content)
    first = _offset(content, entries[0])
    for entry in entries[1:2]:
        struct.pack_into("<L", content, entry + 42, first)
    return bytes(content)


def _quoting(parts: Parts) -> bytes:
    """Return an archive, one member of which holds the next one, header and all."""
    content = bytearray(parts.build())
    first, second = _entries(content)[:2]
    size = struct.unpack_from("<L", content, second + 24)[0] + _offset(content, second) + 104 - _offset(content, first)
    struct.pack_into("<LL", content, first + 20, size, size)
    return bytes(content)


def _entries(content: bytes | bytearray) -> list[int]:
    """Return where the entries of the directory begin."""
    found, at = [], content.find(b"PK\1\2")
    while at >= 0:
        found.append(at)
        at = content.find(b"PK\1\2", at + 4)
    return found


def _offset(content: bytes | bytearray, entry: int) -> int:
    offset: int = struct.unpack_from("<L", content, entry + 42)[0]
    return offset


def _patched(at: int, form: str, value: int, *, entry: int = 0) -> Callable[[Parts], bytes]:
    """Have a field of an entry of the directory say something else."""

    def make(parts: Parts) -> bytes:
        content = bytearray(parts.build())
        struct.pack_into(form, content, _entries(content)[entry] + at, value)
        return bytes(content)

    return make


def _end(at: int, form: str, change: Callable[[int], int]) -> Callable[[Parts], bytes]:
    """Have a field of the end of the directory say something else."""

    def make(parts: Parts) -> bytes:
        content = bytearray(parts.build())
        place = len(content) - 22 + at
        struct.pack_into(form, content, place, change(struct.unpack_from(form, content, place)[0]))
        return bytes(content)

    return make


def _local_name(parts: Parts) -> bytes:
    """Return an archive, one of whose members has another name in the directory than before its bytes."""
    content = parts.build()
    return content.replace(b"users.jsonl", b"../evil.txt", 1)


def _broken_object(parts: Parts) -> bytes:
    """Return an archive with a byte changed that the checksum of ZIP tells."""
    first = next(iter(parts.objects.values()))
    content = parts.seal().build()
    at = content.index(first) + len(first) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _false_object(parts: Parts) -> bytes:
    """Return an archive with an object that is not of its hash, and all else in order."""
    sha256, content = next(iter(parts.objects.items()))
    parts.objects[sha256] = content[:-1] + bytes([content[-1] ^ 1])
    return parts.seal().build()


def _many_entries(parts: Parts) -> bytes:
    """Return an archive with a directory of more entries than it says."""
    content = parts.build()
    directory = content[_entries(content)[0] : -22]
    end = bytearray(content[-22:])
    struct.pack_into("<L", end, 12, len(directory) * 50)
    return content[:-22] + directory * 49 + end


def _zip64(*, count: int = 8, further: int = 0) -> Callable[[Parts], bytes]:
    """Have the records for large archives tell the directory, and that it begins so much further on."""

    def make(parts: Parts) -> bytes:
        content = parts.build()
        at = len(content) - 22
        size, offset = struct.unpack_from("<LL", content, at + 12)
        offset += further
        end = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
        return content[:at] + end + struct.pack("<4sLQL", b"PK\6\7", 0, at, 1) + content[at:]

    return make


FILES: dict[str, Hostile] = {
    "an empty file": Hostile(lambda _: b"", "too short to be an archive"),
    "a text": Hostile(lambda _: b"I am no archive at all, I am afraid.", "does not end as an archive"),
    "an archive without its last byte": Hostile(lambda parts: parts.build()[:-1], "does not end as an archive"),
    "the first half of an archive": Hostile(
        lambda parts: parts.build()[: len(parts.build()) // 2], "does not end as an archive"
    ),
    "the second half of an archive": Hostile(
        lambda parts: parts.build()[len(parts.build()) // 2 :], "directory is not where it should be"
    ),
    "an archive behind something else": Hostile(
        lambda parts: b"#!/bin/sh\n" + parts.build(), "directory is not where it should be"
    ),
    "an archive with a comment": Hostile(
        lambda parts: parts.build()[:-2] + b"\x05\0hello", "does not end as an archive"
    ),
    "an archive of nothing": Hostile(lambda _: zipped({}), "has no manifest.json"),
    "an archive of something else": Hostile(lambda _: zipped({"letter.txt": b"Dear all"}), "member 'letter.txt'"),
    "a compressed member": Hostile(_compressed, "'media.jsonl' is compressed"),
    "a bomb": Hostile(_bomb, "'media.jsonl' is compressed"),
    "a stored member that says it is larger": Hostile(_patched(24, "<L", 1 << 31), "is compressed"),
    "an unknown way of storing": Hostile(_patched(10, "<H", 99), "is compressed"),
    "members that are the same bytes": Hostile(_overlapping, "overlaps with what follows it"),
    "a member that holds the next one": Hostile(_quoting, "overlaps with what follows it"),
    "a member that begins in the directory": Hostile(_patched(42, "<L", 1 << 30), "overlaps with what follows it"),
    "an encrypted member": Hostile(_patched(8, "<H", 0x1), "is encrypted"),
    "a strongly encrypted member": Hostile(_patched(8, "<H", 0x41), "is encrypted"),
    "a version of ZIP that never was": Hostile(_patched(6, "<H", 200), "the archive is damaged"),
    "a member more": Hostile(_member("evil.txt"), "member 'evil.txt', which is none of an export"),
    "a path upwards": Hostile(_member("../evil.txt"), r"member '\.\./evil.txt'"),
    "a path upwards below objects": Hostile(_member("objects/../../evil.txt"), "which is none of an export"),
    "an absolute path": Hostile(_member("/tmp/evil.txt"), "member '/tmp/evil.txt'"),
    "a path of Windows": Hostile(_member("..\\evil.txt"), "which is none of an export"),
    "a device of Windows": Hostile(_member("C:\\evil.txt"), "which is none of an export"),
    "a name in capitals": Hostile(_member("MANIFEST.JSON"), "which is none of an export"),
    "a hash in capitals": Hostile(_member("objects/" + "A" * 64), "which is none of an export"),
    "a name with a NUL character": Hostile(
        lambda parts: _member("manifest.jsonXevil")(parts).replace(b"manifest.jsonXevil", b"manifest.json\0evil"),
        r"member 'manifest.json\\x00evil'",
    ),
    "a name that is no text": Hostile(
        lambda parts: _member("ä.txt")(parts).replace("ä.txt".encode(), b"\xff\xff.txt"), "the archive is damaged"
    ),
    "a folder": Hostile(_member("objects/", content=b""), "which is none of an export"),
    "a symbolic link": Hostile(
        _member(MEDIA, mode=stat.S_IFLNK | 0o777), "'media.jsonl' is no file, but a link or the like"
    ),
    "a symbolic link as object": Hostile(
        _member("objects/" + "0" * 64, mode=stat.S_IFLNK | 0o777, content=b"/etc/passwd"), "is no file, but a link"
    ),
    "a pipe": Hostile(_member(USERS, mode=stat.S_IFIFO | 0o600), "is no file, but a link or the like"),
    "two manifests": Hostile(_twice(MANIFEST), "'manifest.json' more than once"),
    "two lists of media": Hostile(_twice(MEDIA), "'media.jsonl' more than once"),
    "the same object twice": Hostile(_twice("an object"), "more than once"),
    "another name before the bytes": Hostile(_local_name, "users.jsonl is damaged"),
    "an entry too many": Hostile(_end(10, "<H", lambda count: count - 1), "more or less than"),
    "an entry too few": Hostile(_end(10, "<H", lambda count: count + 1), "has 8 entries, not 9"),
    "a directory that is shorter": Hostile(_end(12, "<L", lambda size: size - 1), "not where it should be"),
    "a directory that begins elsewhere": Hostile(_end(16, "<L", lambda offset: offset + 1), "not where it should be"),
    "a directory of many entries": Hostile(_many_entries, "more or less than 8 entries"),
    "an entry with much behind it": Hostile(_patched(32, "<H", 60_000), "is none that was exported"),
    "members beyond number": Hostile(_zip64(count=1 << 40), "raise max_items"),
    "a directory beyond the end": Hostile(_zip64(further=1 << 62), "not where it should be"),
    "no manifest": Hostile(
        lambda parts: zipped({k: v for k, v in parts.contents().items() if k != MANIFEST}), MANIFEST
    ),
    "no users": Hostile(lambda parts: zipped({k: v for k, v in parts.contents().items() if k != USERS}), USERS),
    "no media": Hostile(lambda parts: zipped({k: v for k, v in parts.contents().items() if k != MEDIA}), MEDIA),
    "no presets": Hostile(
        lambda parts: zipped({k: v for k, v in parts.contents().items() if k != PRESETS}), "has no presets.jsonl"
    ),
    "no list of what was made": Hostile(
        lambda parts: zipped({k: v for k, v in parts.contents().items() if k != DERIVATIVES}),
        "has no derivatives.jsonl",
    ),
    "what was made in the second version": Hostile(
        _second_version(lambda parts: parts.raw.update({DERIVATIVES: b""})),
        "member 'derivatives.jsonl', which is none of version 2",
    ),
    "two lists of presets": Hostile(_twice(PRESETS), "'presets.jsonl' more than once"),
    "presets in the first version": Hostile(
        _first_version(lambda parts: parts.raw.update({PRESETS: b""})),
        "member 'presets.jsonl', which is none of version 1",
    ),
    "a byte changed in an object": Hostile(_broken_object, "is damaged: Bad CRC-32"),
}
"""What is wrong with the file."""


MANIFESTS: dict[str, Hostile] = {
    "a manifest that is not JSON": Hostile(_raw(MANIFEST, b"{"), "manifest.json is not JSON"),
    "a manifest that is a list": Hostile(_raw(MANIFEST, b"[]"), "manifest.json is no JSON object, but list"),
    "a manifest of another format": Hostile(_set_manifest(format="tar"), "the format is 'tar', not 'mindia-tenant'"),
    "a manifest without a format": Hostile(lambda parts: _raw(MANIFEST, b"{}")(parts), "the format is None"),
    "a manifest of a newer format": Hostile(_set_manifest(version=4), "version 4 of the format.*update it"),
    "a manifest of format 0": Hostile(_set_manifest(version=0), "which never was"),
    "a manifest of a format that is a text": Hostile(_set_manifest(version="1"), "which never was"),
    "a manifest of a format that is true": Hostile(_set_manifest(version=True), "which never was"),
    "a manifest that is too large": Hostile(_raw(MANIFEST, b" " * (1 << 17)), "manifest.json has more than"),
    "a manifest that is nested deeply": Hostile(_raw(MANIFEST, b"[" * 60_000), "manifest.json is not JSON"),
    "a manifest with a field more": Hostile(_set_manifest(admin=True), "there is no field 'admin'"),
    "a manifest with a field less": Hostile(
        _unsealed(lambda parts: parts.manifest.pop("media_sha256")), "media_sha256: is missing"
    ),
    "a manifest without the presets": Hostile(
        _unsealed(lambda parts: parts.manifest.pop("preset_count")), "preset_count: is missing"
    ),
    "a manifest of the first version with presets": Hostile(
        _first_version(lambda parts: parts.manifest.update(preset_count=0)), "no field 'preset_count' in version 1"
    ),
    "a manifest without what was made": Hostile(
        _unsealed(lambda parts: parts.manifest.pop("derivatives_sha256")), "derivatives_sha256: is missing"
    ),
    "a manifest of the second version with what was made": Hostile(
        _second_version(lambda parts: parts.manifest.update(derivative_count=0)),
        "no field 'derivative_count' in version 2",
    ),
    "more of what was made than there is": Hostile(_set_manifest(derivative_count=99), "derivative_count is 99"),
    "another hash of what was made": Hostile(
        _set_manifest(derivatives_sha256="0" * 64), "derivatives.jsonl has the hash"
    ),
    "a manifest of a version that is not whole": Hostile(_set_manifest(version=3.0), "which never was"),
    "more presets than there are": Hostile(_set_manifest(preset_count=99), "preset_count is 99"),
    "another hash of presets": Hostile(_set_manifest(presets_sha256="0" * 64), "presets.jsonl has the hash"),
    "more media than there are": Hostile(_set_manifest(media_count=99), "media_count is 99"),
    "more users than there are": Hostile(_set_manifest(user_count=99), "user_count is 99"),
    "more objects than there are": Hostile(_set_manifest(object_count=99), "object_count is 99"),
    "more bytes than there are": Hostile(_set_manifest(object_bytes=1 << 40), "object_bytes is"),
    "less than nothing": Hostile(_set_manifest(media_count=-1), "'media_count' must be >= 0"),
    "a hash of media that is none": Hostile(_set_manifest(media_sha256="../../evil"), "media_sha256"),
    "another hash of media": Hostile(_set_manifest(media_sha256="0" * 64), "media.jsonl has the hash"),
    "another hash of users": Hostile(_set_manifest(users_sha256="0" * 64), "users.jsonl has the hash"),
    "a tenant without a name": Hostile(_set_tenant(name=""), "name"),
    "a tenant whose name is blank": Hostile(_set_tenant(name="  "), "name"),
    "a tenant whose name is too long": Hostile(_set_tenant(name="a" * 256), "name"),
    "a tenant whose name has a NUL character": Hostile(_set_tenant(name="a\0b"), "NUL character"),
    "a limit below nothing": Hostile(
        _unsealed(lambda parts: parts.manifest["tenant"]["limits"].update(max_image_bytes=-1)), "max_image_bytes"
    ),
    "a limit that is a text": Hostile(
        _unsealed(lambda parts: parts.manifest["tenant"]["limits"].update(max_image_bytes="1")), "max_image_bytes"
    ),
    "a limit that is infinite": Hostile(
        _unsealed(lambda parts: parts.manifest["tenant"]["limits"].update(max_video_seconds=float("inf"))),
        "Infinity is no number of JSON",
    ),
    "a limit of something else": Hostile(
        _unsealed(lambda parts: parts.manifest["tenant"]["limits"].update(pool_size=1)), "there is no field 'pool_size'"
    ),
    "a quota below nothing": Hostile(
        _unsealed(lambda parts: parts.manifest["tenant"]["quota"].update(max_items=-1)), "max_items"
    ),
    "a quota that is true": Hostile(
        _unsealed(lambda parts: parts.manifest["tenant"]["quota"].update(max_items=True)), "must be a whole number"
    ),
}
"""What is wrong with the manifest."""


_COSTLY = "$argon2id$v=19$m=2097152,t=100,p=4$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b4dWRWJTmaaJObG"

USER_LINES: dict[str, Hostile] = {
    "a role that there is not": Hostile(_set_user(role="root"), "line 1 of users.jsonl: role: 'root' is not a valid"),
    "a role that is a list": Hostile(_set_user(role=["admin"]), "role: must be a text, not list"),
    "no e-mail address": Hostile(_set_user(email="ann"), "line 1 of users.jsonl: an e-mail address has"),
    "an e-mail address with a line break": Hostile(_set_user(email="a@b.c\nBcc: d@e.f"), "an e-mail address has"),
    "an e-mail address with a NUL character": Hostile(_set_user(email="a\0@b.c"), "email: has a NUL character"),
    "an e-mail address with white space": Hostile(_set_user(email=" a@b.c"), "white space around it"),
    "an e-mail address that is too long": Hostile(_set_user(email="a" * 300 + "@b.c"), "email"),
    "the same e-mail address twice": Hostile(
        _sealed(lambda parts: parts.users[1].update(email=parts.users[0]["email"].upper())),
        "line 2 of users.jsonl: another user has the e-mail address",
    ),
    "the same user twice": Hostile(
        _sealed(lambda parts: parts.users.append(parts.users[0] | {"email": "other@example.org"})),
        "line 3 of users.jsonl: the id .* was there before",
    ),
    "a password in place of its hash": Hostile(_set_user(password_hash="correct horse"), "is no hash by argon2id"),
    "a weak hash": Hostile(_set_user(password_hash="5f4dcc3b5aa765d61d8327deb882cf99"), "is no hash by argon2id"),
    "a hash that takes an hour to verify": Hostile(_set_user(password_hash=_COSTLY), "argon2_memory_kib 2097152"),
    "a hash that is too long": Hostile(_set_user(password_hash="$" * 256), "password_hash"),
    "a user who is active by the number 1": Hostile(
        _set_user(is_active=1), "is_active: must be true or false, not int"
    ),
    "a user of no time zone": Hostile(_set_user(created_at="2026-01-01T00:00:00"), "without time zone"),
    "a user who knows more": Hostile(_set_user(tenant_id="0" * 32), "there is no field 'tenant_id'"),
    "a user without a role": Hostile(_sealed(lambda parts: parts.users[0].pop("role")), "role: is missing"),
    "users that are not JSON": Hostile(_raw(USERS, b"Ann\nBob\n"), "line 1 of users.jsonl is not JSON"),
}
"""What is wrong with the users."""


PRESET_LINES: dict[str, Hostile] = {
    "a preset that is called otherwise": Hostile(
        _set_preset(name="Card/../x"), "line 1 of presets.jsonl: .*the name of a preset has"
    ),
    "a preset without a name": Hostile(_set_preset(name=""), "the name of a preset has"),
    "a preset whose name is too long": Hostile(_set_preset(name="a" * 65), "the name of a preset has"),
    "a preset whose name ends a line": Hostile(_set_preset(name="card\n"), "the name of a preset has"),
    "a preset whose name is a number": Hostile(_set_preset(name=1), "name: must be a text, not int"),
    "a preset whose name has a NUL character": Hostile(_set_preset(name="a\0"), "name: has a NUL character"),
    "the same preset twice": Hostile(_add_preset(), "line 4 of presets.jsonl: the preset 'card' was there before"),
    "a preset that does what there is not": Hostile(
        _set_preset(transformation="explode"), "line 1 of presets.jsonl: transformation: there is no operation"
    ),
    "a preset of code": Hostile(
        _set_preset(transformation="blur_radius-__import__('os')"), "line 1 of presets.jsonl: transformation"
    ),
    "a preset beyond the limits": Hostile(
        _set_preset(transformation="resize_width-999999999"), "must be 1 to 16383 pixels"
    ),
    "a preset of too many operations": Hostile(
        _set_preset(transformation="~".join(["grayscale"] * 31)), "there are 31 operations; the limit is 30"
    ),
    "a preset that is too long": Hostile(_set_preset(transformation="blur~" * 1_000_000), "has at most 1000 char"),
    "a preset in another form": Hostile(
        _set_preset(transformation="resize_height-20_width-10"), "the same is written 'resize_width-10_height-20'"
    ),
    "a preset with a NUL character": Hostile(_set_preset(transformation="blur\0"), "has a NUL character"),
    "a preset that does a list": Hostile(_set_preset(transformation=["blur"]), "must be a text, not list"),
    "a preset whose watermark is no id": Hostile(
        _set_preset(transformation="watermark_image-../../etc/passwd"), "image of 'watermark' cannot be"
    ),
    "a preset that goes on from none": Hostile(
        _set_preset("card-gray", transformation="preset_called-nowhere~grayscale"),
        "line 2 of presets.jsonl: there is no preset 'nowhere' to go on from",
    ),
    "a preset that others go on from is left out": Hostile(
        _sealed(lambda parts: parts.presets.remove(parts.preset("card")) if parts.presets else None),
        "line 1 of presets.jsonl: there is no preset 'card' to go on from",
    ),
    "a preset that goes on from what is no name": Hostile(
        _set_preset(transformation="preset_called-A~blur"), "the name of a preset has"
    ),
    "a preset that goes on from itself": Hostile(
        _set_preset(transformation="preset_called-card~blur"), "line 1 of .*the preset 'card' names itself"
    ),
    "presets that go round in circles": Hostile(
        _set_preset(transformation="preset_called-card-gray~blur"), r"the preset 'card(-gray)?' names itself, be it by"
    ),
    "a preset of no time zone": Hostile(_set_preset(created_at="2026-01-01T00:00:00"), "without time zone"),
    "a preset of another tenant": Hostile(_set_preset(tenant_id="0" * 32), "there is no field 'tenant_id'"),
    "a preset that does nothing": Hostile(
        _sealed(lambda parts: parts.preset("card").pop("transformation")), "transformation: is missing"
    ),
    "presets that are not JSON": Hostile(_raw(PRESETS, b"card\n"), "line 1 of presets.jsonl is not JSON"),
}
"""What is wrong with the presets."""


_BOMB_PIXELS = 60_000


def _pixel_bomb() -> bytes:
    """Return a small PNG of 3.6 thousand million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))

    header = struct.pack(">LLBBBBB", _BOMB_PIXELS, _BOMB_PIXELS, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


MEDIA_LINES: dict[str, Hostile] = {
    "a line that is too long": Hostile(
        lambda parts: _line_instead(b'{"kind":"' + b"a" * (9 << 20) + b'"}\n')(parts),
        "line 4 of media.jsonl is longer than 8388608 bytes",
    ),
    "a line without an end": Hostile(_line_instead(b"{}"), "line 4 of media.jsonl has no end"),
    "an empty line": Hostile(_line_instead(b"\n"), "line 4 of media.jsonl is not JSON"),
    "a line that is not JSON": Hostile(_line_instead(b"<xml/>\n"), "line 4 of media.jsonl is not JSON"),
    "a line that is not UTF-8": Hostile(_line_instead(b'{"a":"\xff"}\n'), "line 4 of media.jsonl is not JSON"),
    "a line of UTF-16": Hostile(_line_instead('{"a":1}'.encode("utf-16-be") + b"\n"), "line 4 of media.jsonl is not"),
    "a line of a list": Hostile(_line_instead(b"[1]\n"), "line 4 of media.jsonl is no JSON object, but list"),
    "a line that is nested deeply": Hostile(
        _line_instead(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}\n"), "line 4 of media.jsonl is not JSON"
    ),
    "a number of a million digits": Hostile(
        _line_instead(b'{"kind":' + b"9" * 1_000_000 + b"}\n"), "line 4 of media.jsonl is not JSON"
    ),
    "an unknown kind": Hostile(_set("image", kind="program"), "kind must be one of image, video, audio, document"),
    "no kind": Hostile(_sealed(lambda parts: parts.item("image").pop("kind")), "kind must be one of"),
    "a kind that is a list": Hostile(_set("image", kind=["image"]), "kind must be one of"),
    "a negative size": Hostile(_set("image", file_size=-1), "'file_size' must be >= 1: -1"),
    "no bytes": Hostile(_set("image", file_size=0), "'file_size' must be >= 1: 0"),
    "a size that is not whole": Hostile(_set("image", file_size=1.5), "file_size: must be a whole number, not float"),
    "a size that is a text": Hostile(_set("image", file_size="700"), "file_size: must be a whole number, not str"),
    "a size that is true": Hostile(_set("image", file_size=True), "file_size: must be a whole number, not bool"),
    "a size beyond number": Hostile(_set("image", file_size=1 << 70), "'file_size' must be <="),
    "another size": Hostile(_set("image", file_size=1), "file_size is 1, and the object has"),
    "a hash that is a path": Hostile(_set("image", sha256="../../../etc/passwd"), "sha256"),
    "a hash without an object": Hostile(_set("image", sha256="0" * 64), "the archive has no object 000"),
    "an object of no item": Hostile(
        _sealed(lambda parts: parts.objects.update({"0" * 64: b"x"})), "objects that are of no item, such as 000"
    ),
    "an object that is missing": Hostile(
        _sealed(lambda parts: parts.objects.pop(parts.item("image")["sha256"])), "the archive has no object"
    ),
    "an object of another hash": Hostile(_false_object, "the object .* has the hash"),
    "the same id twice": Hostile(
        _sealed(lambda parts: parts.media.append(dict(parts.item("image")))),
        "line 4 of media.jsonl: the id .* was there",
    ),
    "the same id for two kinds": Hostile(
        _sealed(lambda parts: parts.item("image").update(id=parts.item("document")["id"])), "was there before"
    ),
    "an id that is none": Hostile(_set("image", id="1; drop table mindia.tenants"), "id"),
    "an id in another form": Hostile(
        _sealed(lambda parts: parts.item("image").update(id="{" + parts.item("image")["id"] + "}")), "must be an id as"
    ),
    "an image that says that it is a video": Hostile(
        _set(
            "image",
            kind="video",
            content_type="video/mp4",
            facts={"duration": 1.0, "width": 1, "height": 1},
        ),
        "are of the image type image/jpeg, and not of the video type 'video/mp4'",
    ),
    "an image of another type": Hostile(_set("image", content_type="image/png"), "are of the image type image/jpeg"),
    "an image that may be run": Hostile(_set("image", content_type="text/html"), "not of the image type 'text/html'"),
    "facts of another kind": Hostile(_set("image", facts={"page_count": 1, "text": "", "title": None}), "facts"),
    "facts that are a list": Hostile(_set("image", facts=[]), "facts: must be a JSON object, not list"),
    "no facts": Hostile(_sealed(lambda parts: parts.item("image").pop("facts")), "facts: must be a JSON object"),
    "a filename with a NUL character": Hostile(_set("image", filename="a\0.jpg"), "filename: has a NUL character"),
    "a filename with half a character": Hostile(_set("image", filename="a\ud800.jpg"), "half a character"),
    "a filename that is too long": Hostile(_set("image", filename="a" * 256), "Length of 'filename' must be <= 255"),
    "no filename": Hostile(_set("image", filename=""), "Length of 'filename'"),
    "a filename that is null": Hostile(_set("image", filename=None), "filename: must be a text, not NoneType"),
    "a filename of another type": Hostile(_set("image", filename="a.pdf"), "is not application/pdf", TypeMismatchError),
    "a description with a NUL character": Hostile(_set("image", description="a\0b"), "description: has a NUL"),
    "a description that is too long": Hostile(
        _set("image", description="ä" * 40_000), "the description has 80000 bytes"
    ),
    "a text with a NUL character": Hostile(_set_fact("document", text="a\0b"), "text: has a NUL character"),
    "metadata with a NUL character": Hostile(_set("image", metadata={"a": "b\0"}), "NUL character"),
    "metadata with half a character": Hostile(_set("image", metadata={"a": ["\ud800"]}), "metadata value of 'a'"),
    "metadata that are a list": Hostile(_set("image", metadata=[]), "metadata: must be a JSON object"),
    "metadata of too many keys": Hostile(_set("image", metadata={str(k): 1 for k in range(51)}), "has 51 keys"),
    "metadata that are too long": Hostile(_set("image", metadata={"a": "b" * 600}), "the limit is 512"),
    "metadata that are no number": Hostile(_set("image", metadata={"a": float("nan")}), "NaN is no number of JSON"),
    "metadata that are nested deeply": Hostile(
        lambda parts: _line_instead(
            json.dumps(parts.item("image"))
            .replace('"metadata": {', '"metadata": {"a":' + "[" * 900 + "]" * 900 + ",")
            .encode()
            + b"\n"
        )(parts),
        "line 4 of media.jsonl",
    ),
    "a time of no zone": Hostile(_set("image", uploaded_at="2026-01-01T00:00:00"), "without time zone"),
    "a time that is a number": Hostile(_set("image", uploaded_at=1767225600), "uploaded_at: must be a text, not int"),
    "a time that never was": Hostile(_set("image", updated_at="2026-02-30T00:00:00+00:00"), "updated_at"),
    "a time before the first": Hostile(_set("image", uploaded_at="0001-01-01T00:00:00+14:00"), "out of range"),
    "a time behind the last": Hostile(_set("image", expires_at="9999-12-31T23:59:59-14:00"), "out of range"),
    "a place that is none": Hostile(
        _set_fact("image", location={"latitude": 91.0, "longitude": 0.0, "altitude": None}), "latitude must be between"
    ),
    "a place that is a text": Hostile(_set_fact("image", location="Lisbon"), "location"),
    "a camera that is too long": Hostile(_set_fact("image", camera="a" * 201), "camera has 201 characters"),
    "a title that is too long": Hostile(_set_fact("document", title="a" * 501), "title has 501 characters"),
    "a moment that is none": Hostile(_set_fact("image", taken_at="yesterday"), "taken_at"),
    "a fact more": Hostile(_set_fact("image", password="x"), "there is no field 'password'"),
    "an item with a field more": Hostile(_set("image", s3_key="../../other/originals/1"), "there is no field 's3_key'"),
    "an item without a name": Hostile(
        _sealed(lambda parts: parts.item("image").pop("filename")), "filename: is missing"
    ),
    "an item that shares its bytes by a text": Hostile(_set("image", shares_bytes="yes"), "must be true or false"),
    "bytes that are no media": Hostile(
        _with_object(b"#!/bin/sh\nrm -rf /\n"), "none of the allowed types", UnsupportedError
    ),
    "a web page": Hostile(_with_object(b"<script>alert(1)</script>"), "none of the allowed types", UnsupportedError),
    "bytes that the parser refuses": Hostile(_with_object(samples.image()[:200]), "cat.jpg", CorruptMediaError),
    "a picture of too many pixels": Hostile(
        _with_object(_pixel_bomb(), filename="bomb.png", content_type="image/png"), "pixels", TooLargeError
    ),
    "more bytes than an image may have": Hostile(
        _with_object(samples.image() + bytes(11_000_000)), "max_image_bytes", TooLargeError
    ),
}
"""What is wrong with the media."""

ARCHIVES: dict[str, Hostile] = FILES | MANIFESTS | USER_LINES | PRESET_LINES | MEDIA_LINES
