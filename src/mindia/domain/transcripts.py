"""What is said in a recording, and when."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import timedelta

import attrs

from mindia.errors import InvalidError

_TIME = r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d)[.,](\d{1,3})"
_TIMES = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?$")
_TAG = re.compile(r"<[^<>]{0,500}>")


@attrs.frozen(kw_only=True)
class Cue:
    """A piece of a transcript.

    Attributes:
        start: When it begins, from the beginning of the recording on.
        end: When it ends.
        text: What is said.
    """

    start: timedelta
    end: timedelta
    text: str

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.start, timedelta) or not isinstance(self.end, timedelta):
            raise InvalidError(f"a cue begins and ends at a timedelta, not {self.start!r} and {self.end!r}")
        if not timedelta() <= self.start <= self.end:
            raise InvalidError(f"a cue must not begin before 0 or end before it begins: {self.start} to {self.end}")
        if not isinstance(self.text, str):
            raise InvalidError(f"the text of a cue must be a str, not {type(self.text).__name__}")


def parse_cues(text: str) -> tuple[Cue, ...]:
    """Read a transcript in the form of WebVTT or SubRip (.vtt, .srt).

    Styles, notes, positions and marks within the text are left out, and so are cues that say nothing.

    Raises:
        InvalidError: There is no cue in it, or one ends before it begins.
    """
    cues = tuple(cue for block in _blocks(text) if (cue := _cue(block)) is not None and cue.text)
    if not cues:
        raise InvalidError("there is no cue in the transcript: it must be WebVTT or SubRip")
    return cues


def _blocks(text: str) -> Iterator[list[str]]:
    block: list[str] = []
    for line in [*text.removeprefix("\ufeff").splitlines(), ""]:
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []


def _cue(block: list[str]) -> Cue | None:
    # A number or a name may stand before the times.
    for place, line in enumerate(block[:2]):
        found = _TIMES.match(line)
        if found is not None:
            plain = html.unescape(_TAG.sub("", " ".join(block[place + 1 :])))
            return Cue(start=_time(found.groups()[:4]), end=_time(found.groups()[4:]), text=" ".join(plain.split()))
    return None


def _time(parts: tuple[str | None, ...]) -> timedelta:
    hours, minutes, seconds, fraction = parts
    return timedelta(
        hours=int(hours or 0),
        minutes=int(minutes or 0),
        seconds=int(seconds or 0),
        milliseconds=int((fraction or "0").ljust(3, "0")),
    )
