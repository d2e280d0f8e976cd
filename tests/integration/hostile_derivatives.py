"""Archives in which what was made of items means harm: each with what it is refused with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from tests.integration.archives import DERIVATIVES, Parts
from tests.integration.hostile_archives import Hostile, _raw, _sealed

from mindia._ids import uuid7
from mindia.errors import CorruptMediaError, UnsupportedTypeError
from mindia.testing import samples

PICTURE, STREAM = "resize", "hls"


def _set(which: str, /, **values: Any) -> Callable[[Parts], bytes]:
    return _sealed(lambda parts: parts.made(which).update(values))


def _picture(content: bytes) -> Callable[[Parts], bytes]:
    """Have a picture of these bytes, with all that an archive says of them."""
    return _sealed(lambda parts: parts.set_content(parts.made(PICTURE), content))


def _stream(change: Callable[[dict[str, bytes]], object]) -> Callable[[Parts], bytes]:
    """Have a stream of other files, with all that an archive says of them."""

    def make(parts: Parts) -> None:
        made = parts.made(STREAM)
        files = files_of(parts)
        change(files)
        parts.set_content(made, b"".join(files.values()))
        made["files"] = [{"name": name, "size": len(content)} for name, content in files.items()]

    return _sealed(make)


def files_of(parts: Parts) -> dict[str, bytes]:
    """Return the files of the stream in an archive."""
    made = parts.made(STREAM)
    content, at, files = parts.objects[made["sha256"]], 0, {}
    for file in made["files"]:
        files[file["name"]] = content[at : at + file["size"]]
        at += file["size"]
    return files


def _named(name: str) -> Callable[[Parts], bytes]:
    """Have a file of a stream that is called otherwise."""
    return _sealed(lambda parts: parts.made(STREAM)["files"][1].update(name=name))


def _playlist(name: str, old: bytes, new: bytes) -> Callable[[Parts], bytes]:
    """Have a playlist that says something else."""

    def change(files: dict[str, bytes]) -> None:
        assert old in files[name]
        files[name] = files[name].replace(old, new, 1)

    return _stream(change)


def _false(which: str) -> Callable[[Parts], bytes]:
    """Have an object that is not of its hash, and all else in order."""

    def change(parts: Parts) -> None:
        sha256 = parts.made(which)["sha256"]
        content = bytearray(parts.objects[sha256])
        # Within a segment, where there is one: nothing but the hash tells.
        at = content.find(b"\x47\x40") + 100 if which == STREAM else len(content) // 2
        content[at] ^= 1
        parts.objects[sha256] = bytes(content)

    return _sealed(change)


def _again(**values: Any) -> Callable[[Parts], bytes]:
    def change(parts: Parts) -> None:
        assert parts.derivatives is not None
        parts.derivatives.append(parts.made(PICTURE) | values)

    return _sealed(change)


def _of_another(which: str, kind: str) -> Callable[[Parts], bytes]:
    """Have something that was made of an item of another kind."""
    return _sealed(lambda parts: parts.made(which).update(media_id=parts.item(kind)["id"]))


INDEX = "48p/index.m3u8"

DERIVED: dict[str, Hostile] = {
    "a picture of another hash": Hostile(_false(PICTURE), "line 1 of derivatives.jsonl: the object .* has the hash"),
    "a picture of a hash without an object": Hostile(
        _sealed(lambda parts: parts.made(PICTURE).update(sha256="0" * 64)), "the archive has no object 000"
    ),
    "a picture whose hash is a path": Hostile(_set(PICTURE, sha256="../../../etc/passwd"), "sha256"),
    "a picture of another size": Hostile(_set(PICTURE, file_size=1), "file_size is 1, and the object has"),
    "a picture of no bytes": Hostile(_set(PICTURE, file_size=0), "'file_size' must be >= 1"),
    "a picture of a size that is a text": Hostile(_set(PICTURE, file_size="7"), "must be a whole number, not str"),
    "a picture of an item that is not there": Hostile(
        _set(PICTURE, media_id=str(uuid7())), "line 1 of derivatives.jsonl: the archive has no item"
    ),
    "a picture of no item": Hostile(_set(PICTURE, media_id=None), "media_id"),
    "the same picture twice": Hostile(_again(), "line 6 of derivatives.jsonl: the item .* had 'resize_width-20"),
    "an unknown operation": Hostile(
        _set(PICTURE, operations="explode~to_format-webp_quality-80"),
        "line 1 of derivatives.jsonl: there is no operation 'explode'",
    ),
    "operations that are code": Hostile(_set(PICTURE, operations="__import__('os')"), "there is no operation"),
    "no operations": Hostile(_set(PICTURE, operations=""), "leaves open what the picture is encoded as"),
    "operations without a format": Hostile(_set(PICTURE, operations="resize_width-20"), "leaves open"),
    "operations that begin with a preset": Hostile(
        _set(PICTURE, operations="preset_called-card~to_format-webp_quality-80"), "'card' is not known here"
    ),
    "operations in another form": Hostile(
        _set(PICTURE, operations="resize_width-020~to_format-webp_quality-80"), "the same is written"
    ),
    "operations that are a list": Hostile(_set(PICTURE, operations=["hls"]), "operations: must be a text, not list"),
    "operations that are too long": Hostile(_set(PICTURE, operations="blur~" * 1_000), "has at most 1000 characters"),
    "a picture of a video that is no thumbnail": Hostile(
        _of_another(PICTURE, "video"), "'resize_width-20.*' is not made of the kind video"
    ),
    "a stream of an image": Hostile(_of_another(STREAM, "image"), "'hls' is not made of the kind image"),
    "a picture with files": Hostile(_set(PICTURE, files=[{"name": "master.m3u8", "size": 1}]), "a picture has none"),
    "a picture in another format": Hostile(
        _picture(samples.image("PNG")), "the bytes are image/png, and not image/webp"
    ),
    "a picture that is a web page": Hostile(
        _picture(b"<script>alert(1)</script>"), "none of the allowed types", UnsupportedTypeError
    ),
    "a picture that is a document": Hostile(_picture(samples.pdf()), "the bytes are application/pdf"),
    "a picture that is cut off": Hostile(_picture(samples.image("WEBP")[:60]), "picture", CorruptMediaError),
    "a picture with a side of nothing": Hostile(_set(PICTURE, width=0), "width"),
    "a picture of no time zone": Hostile(_set(PICTURE, created_at="2026-01-01T00:00:00"), "without time zone"),
    "a picture with a field more": Hostile(_set(PICTURE, s3_key="../../x"), "there is no field 's3_key'"),
    "a picture with a field less": Hostile(
        _sealed(lambda parts: parts.made(PICTURE).pop("files")), "files: is missing"
    ),
    "an object of nothing": Hostile(
        _sealed(lambda parts: parts.objects.update({hashlib.sha256(b"x").hexdigest(): b"x"})), "that are of no item"
    ),
    "what was made is not JSON": Hostile(_raw(DERIVATIVES, b"x\n"), "line 1 of derivatives.jsonl is not JSON"),
    "a stream of another hash": Hostile(_false(STREAM), "line 5 of derivatives.jsonl: the object .* has the hash"),
    "a stream without files": Hostile(_set(STREAM, files=[]), "line 5 of derivatives.jsonl: files: the stream has no"),
    "files that are a text": Hostile(_set(STREAM, files="master.m3u8"), "files"),
    "a file of a negative size": Hostile(
        _sealed(lambda parts: parts.made(STREAM)["files"][0].update(size=-1)), "'size' must be >= 1"
    ),
    "files of another size together": Hostile(
        _sealed(lambda parts: parts.made(STREAM)["files"][0].update(size=1 << 40)), "and the files have|limit is"
    ),
    "a path upwards": Hostile(_named("../../../evil.ts"), r"files: a stream has no file '\.\./\.\./\.\./evil\.ts'"),
    "a path upwards in a folder": Hostile(_named("48p/../../evil.ts"), "a stream has no file"),
    "an absolute path": Hostile(_named("/tmp/evil.ts"), "a stream has no file '/tmp/evil.ts'"),
    "a path of Windows": Hostile(_named("48p\\segment_000.ts"), "a stream has no file"),
    "a name with a NUL character": Hostile(_named("48p/segment_000.ts\0"), "NUL character"),
    "a name that ends a line": Hostile(_named("48p/segment_000.ts\n"), "a stream has no file"),
    "a name of digits of another script": Hostile(_named("48p/segment_\u0660\u0660.ts"), "a stream has no file"),
    "a web page in a stream": Hostile(_named("48p/index.html"), "a stream has no file '48p/index.html'"),
    "the same file twice": Hostile(_named("master.m3u8"), "the file 'master.m3u8' was there before"),
    "a stream without a beginning": Hostile(
        _stream(lambda files: files.pop("master.m3u8")), "the stream has no master.m3u8"
    ),
    "a segment that is missing": Hostile(
        _stream(lambda files: files.pop("48p/segment_001.ts")), "48p/index.m3u8 leads to '48p/segment_001.ts', which"
    ),
    "a segment that no playlist leads to": Hostile(
        _stream(lambda files: files.update({"48p/segment_999.ts": files["48p/segment_000.ts"]})),
        "no playlist leads to 48p/segment_999.ts",
    ),
    "a segment that is a web page": Hostile(
        _stream(lambda files: files.update({"48p/segment_000.ts": b"<script>alert(1)</script>"})),
        "48p/segment_000.ts is no segment",
    ),
    "a segment that is cut off": Hostile(
        _stream(lambda files: files.update({"48p/segment_000.ts": files["48p/segment_000.ts"][:-1]})),
        "48p/segment_000.ts is no segment",
    ),
    "a playlist that leads to another site": Hostile(
        _playlist(INDEX, b"segment_000.ts", b"https://evil.example/a.ts"), "leads to '48p/https://evil.example/a.ts'"
    ),
    "a playlist that leads upwards": Hostile(
        _playlist(INDEX, b"segment_000.ts", b"../master.m3u8"), "leads to '48p/\\.\\./master"
    ),
    "a playlist that leads to a query": Hostile(
        _playlist(INDEX, b"segment_000.ts", b"segment_000.ts?x"), r"leads to '48p/segment_000.ts\?x'"
    ),
    "a playlist that leads to a playlist": Hostile(
        _playlist(INDEX, b"segment_000.ts", b"index.m3u8"), "leads to '48p/index.m3u8', which is none of its files"
    ),
    "a master playlist that leads to another site": Hostile(
        _playlist("master.m3u8", INDEX.encode(), b"//evil.example/index.m3u8"), "leads to '//evil"
    ),
    "a playlist with a key from another site": Hostile(
        _playlist(INDEX, b"#EXTINF", b'#EXT-X-KEY:METHOD=AES-128,URI="https://evil.example/k"\n#EXTINF'),
        "48p/index.m3u8 has a line that is none of ours: '#EXT-X-KEY",
    ),
    "a playlist with an advertisement": Hostile(
        _playlist(INDEX, b"#EXTINF", b'#EXT-X-DATERANGE:ID="a",X-ASSET-URI="https://evil.example"\n#EXTINF'),
        "has a line that is none of ours",
    ),
    "a playlist that begins with a file from another site": Hostile(
        _playlist(INDEX, b"#EXTINF", b'#EXT-X-MAP:URI="https://evil.example/init.mp4"\n#EXTINF'), "leads to '48p/https"
    ),
    "a master playlist that is steered by another site": Hostile(
        _playlist("master.m3u8", b"#EXT-X-STREAM", b'#EXT-X-CONTENT-STEERING:SERVER-URI="//e"\n#EXT-X-STREAM'),
        "master.m3u8 has a line that is none of ours",
    ),
    "a playlist with a hidden line": Hostile(
        _playlist(INDEX, b"#EXTINF", b"#EXT-X-VERSION:3\rhttps://evil.example/a.ts\n#EXTINF"), "is no playlist"
    ),
    "a playlist that is a web page": Hostile(
        _stream(lambda files: files.update({INDEX: b"<html>"})), "48p/index.m3u8 is no playlist"
    ),
    "a playlist that is cut off": Hostile(_playlist(INDEX, b"#EXT-X-ENDLIST\n", b""), "48p/index.m3u8 is cut off"),
    "a playlist that is not text": Hostile(_playlist(INDEX, b"#EXTINF", b"\xff\n#EXTINF"), "is no playlist"),
    "a playlist that is too long": Hostile(
        _stream(lambda files: files.update({INDEX: files[INDEX] + b"\n" * (1 << 22)})), "the limit is 4194304"
    ),
}
