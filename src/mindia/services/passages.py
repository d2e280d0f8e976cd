"""Passages of long items, of a size that a model reads as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

from mindia.domain.media import Document, Media
from mindia.domain.transcripts import Cue
from mindia.media.documents import PAGE_BREAK
from mindia.repositories._text import storable
from mindia.repositories.passages import StoredPassage

MAX_CHARS = 1_000
"""Some 250 tokens: what small models read of a text."""
MAX_PASSAGES = 5_000
FIRST_FRAME = 1_000_001
"""Frames and spans of a transcript are of the same item: these begin with 1."""
PICTURE = 2_000_001
_MAX_SPAN_S = 30.0

_ENDS = re.compile(r"(?<=[.!?…。])\s+|\n\s*\n")


def pages_of(media: Media, body: str) -> list[StoredPassage]:
    """Return the passages of a document's text: each page, or parts of it where it is long.

    None for a document of one short page: it is found as a whole.
    """
    if not isinstance(media, Document):
        return []
    pages = body.split(PAGE_BREAK)
    if len(pages) == 1 and len(body) <= MAX_CHARS:
        return []
    # Of a text from before pages were kept apart, nobody knows where they are.
    is_paged = len(pages) > 1 or media.page_count == 1
    parts = [(number, part) for number, page in enumerate(pages, start=1) for part in split(page)]
    return [
        StoredPassage(media.id, place, "page", number if is_paged else None, None, None, part)
        for place, (number, part) in enumerate(parts[:MAX_PASSAGES], start=1)
    ]


def spans_of(media_id: UUID, cues: Sequence[Cue]) -> list[StoredPassage]:
    """Return the passages of a transcript: cues that follow each other, together as long as a model reads.

    Later ones than there may be are part of the last one.
    """
    spans: list[list[Cue]] = []
    for cue in cues:
        span = spans[-1] if spans else None
        if span is not None and (
            len(spans) == MAX_PASSAGES
            or (
                sum(len(each.text) + 1 for each in span) + len(cue.text) <= MAX_CHARS
                and cue.end.total_seconds() - span[0].start.total_seconds() <= _MAX_SPAN_S
            )
        ):
            span.append(cue)
        else:
            spans.append([cue])
    return [
        StoredPassage(
            media_id,
            place,
            "transcript",
            None,
            span[0].start.total_seconds(),
            max(cue.end.total_seconds() for cue in span),
            storable(" ".join(cue.text for cue in span)),
        )
        for place, span in enumerate(spans, start=1)
    ]


def frames_of(media_id: UUID, frames: Iterable[tuple[float, str]]) -> list[StoredPassage]:
    """Return the passages of a video's frames: when each is seen, and what there is to see."""
    return [
        StoredPassage(media_id, place, "frame", None, at_s, None, storable(text))
        for place, (at_s, text) in enumerate(frames, start=FIRST_FRAME)
    ]


def locator_of(passage: StoredPassage) -> dict[str, object]:
    """Return where a passage is, as it is kept beside its vector."""
    where: dict[str, object] = {"source": passage.source}
    for name in ("page", "start_s", "end_s"):
        value = getattr(passage, name)
        if value is not None:
            where[name] = value
    return where


def split(text: str) -> Iterator[str]:
    """Yield parts of a text, each of whole sentences where they are not too long; nothing for a blank one."""
    part = ""
    for sentence in _ENDS.split(text):
        plain = " ".join(sentence.split())
        while len(plain) > MAX_CHARS:
            if part:
                yield part
                part = ""
            end = plain.rfind(" ", 1, MAX_CHARS + 1)
            end = end if end > 0 else MAX_CHARS
            yield plain[:end]
            plain = plain[end:].lstrip()
        if part and len(part) + 1 + len(plain) > MAX_CHARS:
            yield part
            part = ""
        part = f"{part} {plain}".strip()
    if part:
        yield part
