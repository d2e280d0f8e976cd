"""Where words are in texts: of what `ts_headline` marks."""

from __future__ import annotations

from mindia.domain.search import Highlight, Span

START, END = "\x02", "\x03"
"""Control characters that the texts are freed of before."""


def highlights_of(**texts: str | None) -> tuple[Highlight, ...]:
    """Return those texts in which something is marked, by the names of their fields."""
    return tuple(_highlight(field, text) for field, text in texts.items() if text is not None and START in text)


def _highlight(field: str, marked: str) -> Highlight:
    plain = ""
    spans = []
    before, *parts = marked.split(START)
    plain += before
    for part in parts:
        word, _, rest = part.partition(END)
        spans.append(Span(len(plain), len(plain) + len(word)))
        plain += word + rest
    return Highlight(field=field, text=plain, matches=tuple(spans))
