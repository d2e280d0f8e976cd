"""What the parsers' children answer, of which nothing is believed that it cannot be."""

from __future__ import annotations

import base64
from datetime import datetime
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

import attrs

from mindia import errors
from mindia.domain.media import AudioFacts, DocumentFacts, Facts, ImageFacts, MediaKind, VideoFacts
from mindia.domain.operations import Tiles
from mindia.domain.transformations import Transformation
from mindia.media import sniff
from mindia.media.deriving import Made
from mindia.media.pictures import Shot
from mindia.media.probe import Probed, check_facts
from mindia.media.tracks import MAX_FRAME_RATE, VideoTracks

if TYPE_CHECKING:
    from cattrs import Converter

_FACTS: dict[str, type[Facts]] = {
    MediaKind.IMAGE: ImageFacts,
    MediaKind.VIDEO: VideoFacts,
    MediaKind.AUDIO: AudioFacts,
    MediaKind.DOCUMENT: DocumentFacts,
}
_ERRORS: list[type[errors.MindiaError]] = [
    errors.InvalidError, errors.MediaError, *errors.MediaError.__subclasses__()
]  # fmt: skip


def shots_of(answer: dict[str, Any], filename: str) -> list[Shot]:
    """Return the pictures of an answer, or raise what it tells of."""
    _raise(answer)
    try:
        return [
            Shot(base64.b64decode(content, validate=True), None if at_s is None else float(at_s))
            for content, at_s in answer["shots"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise errors.CorruptMediaError(f"{filename!r} makes the parser of its format answer nonsense") from error


def made_of(answer: dict[str, Any], filename: str, transformation: Transformation) -> Made:
    """Return the picture of an answer, or raise what it tells of."""
    _raise(answer)
    content, width, height = (answer.get(name) for name in ("content", "width", "height"))
    assert transformation.format is not None, "it is settled"
    if isinstance(content, bytes) and isinstance(width, int) and isinstance(height, int):
        found = sniff.sniff(content[: sniff.HEAD_BYTES])
        is_right = found is not None and found.content_type == transformation.format.content_type
        if is_right and 0 < width < 1 << 17 and 0 < height < 1 << 17:
            made = Made(content, width, height, answer.get("end"), answer.get("is_exact") is True)
            if transformation.tiles is None or _is_laid_out(made, transformation.tiles):
                return made
    raise errors.CorruptMediaError(f"{filename!r} makes the parser of its format answer nonsense")


def _is_laid_out(made: Made, asked: Tiles) -> bool:
    """Tell whether a picture can be of tiles that end when it says."""
    if made.end is None:
        return False
    try:
        columns, rows = attrs.evolve(asked, end=made.end).grid
    except errors.InvalidError:
        return False
    return made.width % columns == 0 and made.height % rows == 0


def tracks_of(answer: dict[str, Any], filename: str) -> VideoTracks:
    """Return the tracks of an answer, or raise what it tells of."""
    _raise(answer)
    try:
        found = _converter().structure(answer["tracks"], VideoTracks)
        parser = found.parser
        if min(found.width, found.height) < 1 or not 0 < found.frame_rate <= MAX_FRAME_RATE or not parser.isalnum():
            raise ValueError("numbers that no video has")  # noqa: TRY301 - told like the others
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise errors.CorruptMediaError(f"{filename!r} makes the parser of its format answer nonsense") from error
    return found


def answers_of(answer: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Return the answers for each of several files, or raise what is told instead of them."""
    _raise(answer)
    found = answer.get("answers")
    if not isinstance(found, list) or len(found) != count or not all(isinstance(each, dict) for each in found):
        raise errors.CorruptMediaError("a parser answers nonsense")
    return found


def _raise(answer: dict[str, Any]) -> None:
    if "missing" in answer:
        raise errors.MissingExtraError(str(answer["missing"]), extra=str(answer["extra"]))
    if "code" in answer:
        by_code = {kind.code: kind for kind in _ERRORS}
        raise by_code.get(answer["code"], errors.CorruptMediaError)(str(answer["message"]))


def probed_of(answer: dict[str, Any], filename: str) -> Probed:
    """Return type and facts of an answer, or raise what it tells of."""
    _raise(answer)
    try:
        facts = _converter().structure(answer["facts"], _FACTS[answer["kind"]])
        probed = Probed(content_type=str(answer["content_type"]), facts=facts)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise errors.CorruptMediaError(f"{filename!r} makes the parser of its format answer nonsense") from error
    check_facts(facts, filename=filename)
    return probed


@cache
def _converter() -> Converter:
    from cattrs import Converter

    converter = Converter(detailed_validation=False)
    converter.register_structure_hook(datetime, lambda value, _: datetime.fromisoformat(value))
    converter.register_structure_hook(Fraction, lambda value, _: Fraction(value))
    converter.register_structure_hook(str, lambda value, _: _storable(value))
    return converter


def _storable(value: object) -> str:
    """Return a text as it is: the parser sends none that cannot be stored, but it may have been broken into.

    Raises:
        ValueError: It cannot be stored, or is none.
    """
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("no text that can be stored")
    value.encode()
    return value
