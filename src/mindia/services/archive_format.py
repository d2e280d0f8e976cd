"""The archive of a tenant: what is in the file, and its lines of JSON."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any, NoReturn, TypeVar
from uuid import UUID

import attrs
from cattrs import Converter, transform_error
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError

from mindia.domain.archives import FACTS, ArchivedDerivative, ArchivedMedia, ArchivedPreset, ArchivedUser, Manifest
from mindia.domain.media import Facts, MediaKind
from mindia.domain.transformations import Transformation
from mindia.errors import ArchiveError, InvalidError
from mindia.media.hls_files import MAX_PLAYLIST_BYTES, StreamFiles, is_playlist
from mindia.repositories._text import storable
from mindia.services._metadata import checked_metadata
from mindia.services._named import shown
from mindia.services.adding import MAX_DESCRIPTION_BYTES

FORMAT = "mindia-tenant"
VERSION = 3
"""That is written. An archive of version 1 has no presets, and one of version 2 nothing that was made of items."""

MANIFEST = "manifest.json"
USERS = "users.jsonl"
MEDIA = "media.jsonl"
PRESETS = "presets.jsonl"
DERIVATIVES = "derivatives.jsonl"
SINCE = {MANIFEST: 1, USERS: 1, MEDIA: 1, PRESETS: 2, DERIVATIVES: 3}
"""In which version each member came."""
OBJECT = re.compile(r"objects/([0-9a-f]{64})")
"""The name of an object is the hash of its bytes."""

MAX_LINE_BYTES = 1 << 23
"""More than any line has that is written: the text of a document, and what is said about it."""
MAX_MANIFEST_BYTES = 1 << 16

_NOTHING = hashlib.sha256().hexdigest()
_LATER: dict[int, dict[str, object]] = {
    2: {"preset_count": 0, "presets_sha256": _NOTHING},
    3: {"derivative_count": 0, "derivatives_sha256": _NOTHING},
}
"""Fields that came with a version, and what earlier manifests would have said there."""

_MAX_DETAIL_CHARS = {"camera": 200, "title": 500, "artist": 500, "album": 500}
"""As parsers cut them."""

T = TypeVar("T")


def object_name(sha256: str) -> str:
    """Return the name of the object that has this hash."""
    return f"objects/{sha256}"


def manifest_line(manifest: Manifest) -> bytes:
    """Return a manifest as JSON."""
    return _line(_converter().unstructure(manifest))


def user_line(user: ArchivedUser) -> bytes:
    """Return a user as a line of JSON."""
    return _line(_converter().unstructure(user))


def media_line(media: ArchivedMedia) -> bytes:
    """Return an item as a line of JSON."""
    return _line({"kind": media.kind, **_converter().unstructure(media)})


def preset_line(preset: ArchivedPreset) -> bytes:
    """Return a preset as a line of JSON."""
    return _line(_converter().unstructure(preset))


def derivative_line(made: ArchivedDerivative) -> bytes:
    """Return what was made of an item as a line of JSON."""
    return _line(_converter().unstructure(made))


def read_manifest(content: bytes) -> Manifest:
    """Return the manifest of an archive.

    Raises:
        ArchiveError: It is none, or that of a newer format.
    """
    values = _object(content, MANIFEST)
    if values.get("format") != FORMAT:
        raise ArchiveError(f"{MANIFEST}: the format is {shown(values.get('format'))}, not {FORMAT!r}")
    version = values.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ArchiveError(
            f"the archive is of version {shown(version)} of the format, and this Mindia reads {VERSION}: update it"
        )
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ArchiveError(f"{MANIFEST}: the version is {shown(version)}, which never was")
    for since, fields in _LATER.items():
        if since <= version:
            continue
        later = sorted(fields.keys() & values.keys())
        if later:
            raise ArchiveError(f"{MANIFEST}: there is no field {shown(later[0])} in version {version} of the format")
        values |= fields
    return _structured(values, Manifest, MANIFEST)


def read_user(line: bytes, where: str) -> ArchivedUser:
    """Return the user of a line.

    Args:
        line: The line.
        where: Which one that is, for messages.

    Raises:
        ArchiveError: It is none.
    """
    return _structured(_object(line, where), ArchivedUser, where)


def read_media(line: bytes, where: str) -> ArchivedMedia:
    """Return the item of a line.

    Args:
        line: The line.
        where: Which one that is, for messages.

    Raises:
        ArchiveError: It is none.
    """
    values = _object(line, where)
    kind = values.pop("kind", None)
    if kind not in list(MediaKind):
        raise ArchiveError(f"{where}: kind must be one of {', '.join(MediaKind)}, not {shown(kind)}")
    told = _structured(values.get("facts"), FACTS[kind], f"{where}, facts")
    for name, most in _MAX_DETAIL_CHARS.items():
        length = len(getattr(told, name, None) or "")
        if length > most:
            raise ArchiveError(f"{where}: {name} has {length} characters; the limit is {most}")
    media = _structured(values | {"facts": told}, ArchivedMedia, where)
    size = len(media.description.encode())
    if size > MAX_DESCRIPTION_BYTES:
        raise ArchiveError(f"{where}: the description has {size} bytes; the limit is {MAX_DESCRIPTION_BYTES}")
    try:
        return attrs.evolve(media, metadata=dict(checked_metadata(media.metadata)))
    except InvalidError as error:
        raise ArchiveError(f"{where}: {error}") from error


def read_preset(line: bytes, where: str) -> ArchivedPreset:
    """Return the preset of a line.

    Args:
        line: The line.
        where: Which one that is, for messages.

    Raises:
        ArchiveError: It is none.
    """
    return _structured(_object(line, where), ArchivedPreset, where)


def read_derivative(line: bytes, where: str) -> ArchivedDerivative:
    """Return what was made of an item, of a line.

    Args:
        line: The line.
        where: Which one that is, for messages.

    Raises:
        ArchiveError: It is none.
    """
    made = _structured(_object(line, where), ArchivedDerivative, where)
    if not made.is_stream:
        if made.files:
            raise ArchiveError(f"{where}: files: a picture has none")
        return made
    try:
        StreamFiles([file.name for file in made.files])
    except InvalidError as error:
        raise ArchiveError(f"{where}: files: {error}") from error
    for file in made.files:
        if is_playlist(file.name) and file.size > MAX_PLAYLIST_BYTES:
            raise ArchiveError(f"{where}: {file.name} has {file.size} bytes; the limit is {MAX_PLAYLIST_BYTES}")
    total = sum(file.size for file in made.files)
    if total != made.file_size:
        raise ArchiveError(f"{where}: file_size is {made.file_size}, and the files have {total} bytes")
    return made


def _line(values: object) -> bytes:
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{where} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ArchiveError(f"{where} is no JSON object, but {_type_of(values)}")
    return values


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _structured(values: object, kind: type[T], where: str) -> T:
    if not isinstance(values, dict):
        raise ArchiveError(f"{where}: must be a JSON object, not {_type_of(values)}")
    with _typed(where):
        return _converter().structure(values, kind)


@contextmanager
def _typed(where: str) -> Iterator[None]:
    try:
        yield
    except BaseValidationError as error:
        first, *_ = transform_error(error, format_exception=_said)
        reason, _, path = first.rpartition(" @ $")
        raise ArchiveError(f"{where}: {path.lstrip('.')}{': ' if path else ''}{reason}") from error


def _said(error: BaseException, _: object) -> str:
    match error:
        case KeyError():
            return "is missing"
        case ForbiddenExtraKeysError():
            return f"there is no field {', '.join(map(shown, sorted(error.extra_fields)))}"
        case AttributeError():
            return "must be a JSON object"
        case _:
            return str(error.args[0] if error.args else error)


@cache
def _converter() -> Converter:
    """Return what takes values of JSON as they are: a text is no number, and a number no flag."""
    converter = Converter(forbid_extra_keys=True)
    converter.register_structure_hook(bool, _flag)
    converter.register_structure_hook(int, _whole)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(UUID, _id)
    converter.register_structure_hook(datetime, lambda value, _: datetime.fromisoformat(_text(value, str)))
    converter.register_structure_hook(Facts, lambda value, _: value)  # they were read before, since they tell the kind
    converter.register_structure_hook(Transformation, lambda value, _: Transformation.parse(_text(value, str)))
    converter.register_unstructure_hook(UUID, str)
    converter.register_unstructure_hook(Transformation, str)
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    return converter


def _type_of(value: object) -> str:
    """Return what a message says of a value: a hash of a password is not shown."""
    return type(value).__name__


def _flag(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"must be true or false, not {_type_of(value)}")
    return value


def _whole(value: object, _: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"must be a whole number, not {_type_of(value)}")
    return value


def _number(value: object, _: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"must be a number, not {_type_of(value)}")
    return float(value)


def _text(value: object, kind: type[str]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"must be a text, not {_type_of(value)}")
    if storable(value) != value:
        raise ValueError("has a NUL character or half a character")
    return kind(value)  # one of an enum, or the text itself


def _id(value: object, _: object) -> UUID:
    text = _text(value, str)
    found = UUID(text)
    if str(found) != text:
        raise ValueError(f"must be an id as 8-4-4-4-12 hexadecimal digits, not {shown(text)}")
    return found
