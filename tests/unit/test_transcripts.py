"""Transcripts: WebVTT and SubRip as they come, and the passages that are made of texts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindia import Cue
from mindia._ids import uuid7
from mindia.domain.transcripts import parse_cues
from mindia.errors import InvalidError
from mindia.services.passages import MAX_CHARS, locator_of, spans_of, split

VTT = """\ufeffWEBVTT - a talk
Kind: captions

NOTE nobody reads this 00:00:00.000 --> 00:00:01.000

STYLE
::cue { color: red }

intro
00:01.500 --> 00:04.000 align:start position:10%
<v Anna>The ship <b>leaves</b> the harbour</v>
at &lt;noon&gt; &amp; sails

00:00:05.000 --> 01:00:06.250
<00:00:05.500><c>It comes back</c>

00:07.000 --> 00:08.000

"""

SRT = (
    "1\r\n00:00:01,500 --> 00:00:04,000\r\nThe ship leaves\r\n\r\n2\r\n00:00:05,0 --> 00:00:06,25\r\nIt comes back\r\n"
)


def cue(start: float, end: float, text: str) -> Cue:
    return Cue(start=timedelta(seconds=start), end=timedelta(seconds=end), text=text)


def test_webvtt_is_read_without_marks_notes_and_styles() -> None:
    assert parse_cues(VTT) == (
        cue(1.5, 4, "The ship leaves the harbour at <noon> & sails"),
        cue(5, 3606.25, "It comes back"),
    )


def test_subrip_is_read_too() -> None:
    assert parse_cues(SRT) == (cue(1.5, 4, "The ship leaves"), cue(5, 6.25, "It comes back"))


@pytest.mark.parametrize("text", ["", "WEBVTT", "not a transcript", "1\n2\n3", "00:01 --> 00:02\nno fraction"])
def test_what_has_no_cue_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="WebVTT or SubRip"):
        parse_cues(text)


def test_a_cue_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(InvalidError, match="must not begin before 0 or end before it begins"):
        parse_cues("WEBVTT\n\n00:05.000 --> 00:04.000\nbackwards")
    with pytest.raises(InvalidError, match="begin before 0"):
        cue(-1, 2, "early")
    wrong: Any = 3
    with pytest.raises(InvalidError, match="timedelta"):
        Cue(start=wrong, end=timedelta(), text="a number")
    with pytest.raises(InvalidError, match="must be a str"):
        Cue(start=timedelta(), end=timedelta(), text=wrong)


@given(st.text(max_size=300))
def test_no_text_is_another_error(text: str) -> None:
    try:
        cues = parse_cues(text)
    except InvalidError:
        return
    assert all(each.start <= each.end and each.text for each in cues)


def test_a_hostile_transcript_takes_no_long_time() -> None:
    with pytest.raises(InvalidError):
        parse_cues("<" * 200_000 + "\n\n" + "00:" * 50_000 + "\n\n" + "-->" * 50_000)


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 60), st.text(min_size=1, max_size=400)), max_size=60))
def test_spans_keep_every_word_and_are_of_the_size_that_a_model_reads(parts: list[tuple[float, float, str]]) -> None:
    cues = sorted((cue(start, start + length, text) for start, length, text in parts), key=lambda each: each.start)
    media_id = uuid7()
    spans = spans_of(media_id, cues)
    said = " ".join(each.text for each in cues).encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    assert " ".join(span.text for span in spans) == said
    assert [span.passage for span in spans] == list(range(1, len(spans) + 1))
    for span in spans:
        assert len(span.text) <= MAX_CHARS
        assert span.start_s is not None
        assert span.end_s is not None
        assert span.start_s <= span.end_s
        assert locator_of(span) == {"source": "transcript", "start_s": span.start_s, "end_s": span.end_s}


@given(st.text(max_size=5000))
def test_parts_of_a_text_keep_every_word(text: str) -> None:
    parts = list(split(text))
    assert all(0 < len(part) <= MAX_CHARS for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_a_word_that_is_too_long_is_cut_and_sentences_stay_whole() -> None:
    assert [len(part) for part in split("x" * 2500)] == [1000, 1000, 500]
    sentence = "This is a sentence of some forty letters. "
    parts = list(split(sentence * 50))
    assert len(parts) > 1
    assert all(part.endswith(".") for part in parts)
