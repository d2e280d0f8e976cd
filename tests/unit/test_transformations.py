"""Operations on pictures: what is allowed, and their text form, which comes back as it was."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindia.domain.operations import (
    MAX_SIDE,
    OPERATIONS,
    Blur,
    Brightness,
    Crop,
    Direction,
    Fit,
    Flip,
    Invert,
    Operation,
    Position,
    Resize,
    Rotate,
    Sharpen,
    SmartCrop,
    Thumbnail,
    Tiles,
    Watermark,
)
from mindia.domain.transformations import MAX_OPERATIONS, ImageFormat, Quality, Transformation
from mindia.errors import InvalidError

MARK = UUID(int=7)
PIXELS = st.integers(1, MAX_SIDE)
COLORS = st.none() | st.from_regex(r"#?[0-9a-f]{6}", fullmatch=True)

OPERATION = st.one_of(
    st.builds(Resize, width=PIXELS, height=st.none() | PIXELS, fit=st.sampled_from(Fit),
              position=st.sampled_from(Position), enlarge=st.booleans(), background=COLORS),
    st.builds(Crop, width=PIXELS, height=PIXELS, x=st.none() | PIXELS, y=st.none() | st.just(0),
              position=st.sampled_from(Position)),
    st.builds(SmartCrop, width=PIXELS, height=PIXELS, enlarge=st.booleans()),
    st.builds(Rotate, degrees=st.floats(-360, 360), background=COLORS),
    st.builds(Flip, direction=st.sampled_from(Direction)),
    st.builds(Watermark, image=st.uuids(), position=st.sampled_from(Position), size=st.floats(0.01, 1),
              opacity=st.floats(0, 1), margin=st.floats(0, 0.5)),
    st.builds(Sharpen, amount=st.floats(0, 5), radius=st.floats(0.1, 20)),
    *(st.builds(OPERATIONS[name], factor=st.floats(0, 10)) for name in ("brightness", "contrast", "saturation")),
    *(st.builds(OPERATIONS[name]) for name in ("grayscale", "sepia", "invert", "blur")),
)  # fmt: skip
FORM = st.fixed_dictionaries(
    {},
    optional={
        "preset": st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
        "format": st.sampled_from([ImageFormat.WEBP, ImageFormat.GIF]),
        "quality": st.integers(1, 100) | st.sampled_from(Quality),
        "background": COLORS,
        "animated": st.none() | st.booleans(),
    },
)


@given(st.lists(OPERATION, max_size=5), FORM)
def test_a_text_form_comes_back_as_it_was_and_may_stand_in_a_url(operations: list[Operation], form: Any) -> None:
    made = Transformation(operations=operations, **form)

    assert re.fullmatch(r"[A-Za-z0-9._~-]*", str(made))
    assert Transformation.parse(str(made)) == made
    settled = attrs.evolve(made, preset=None).settled()
    assert settled.settled() == settled
    assert Transformation.parse(str(settled)) == settled


@given(
    st.integers(16, 640),
    st.none() | st.floats(0.1, 86_400),
    st.none() | st.floats(0.001, 1_000_000),
    st.sampled_from(ImageFormat),
)
def test_the_text_form_of_tiles_comes_back_as_it_was(
    side: int, interval: float | None, end: float | None, form: ImageFormat
) -> None:
    try:
        tiles = Tiles(side, interval=interval, end=end)
    except InvalidError:
        assert interval is not None
        assert end is not None
        assert end / interval > 99
        return
    made = Transformation(operations=[tiles], format=form).settled()

    assert Transformation.parse(str(made)) == made
    assert made.ending(None).ending(tiles.end) == made
    assert made.ending(tiles.end, is_exact=False).ending(tiles.end) == made
    assert Transformation.parse(str(inexact := made.ending(tiles.end, is_exact=False))) == inexact
    if tiles.end is not None:
        assert 1 <= tiles.count <= 100
        assert (tiles.count - 1) * tiles.step_ms < round(tiles.end * 1000) <= tiles.count * tiles.step_ms


@given(st.text(alphabet="reszblurto_~-.0123456789,abcdef", max_size=40) | st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        made = Transformation.parse(text)
    except InvalidError:
        return
    assert str(made) == text


def test_the_text_form_is_as_it_is_written_down() -> None:
    made = Transformation(
        operations=[Resize(800, fit="cover"), Blur(), Rotate(-2.5), Watermark(MARK, size=0.5)],
        preset="card",
        format="webp",
        quality=80,
        background="#FFCC00",
    )

    assert str(made) == (
        "preset_called-card~resize_width-800_fit-cover~blur~rotate_degrees--2.5"
        f"~watermark_image-{MARK.hex}_size-0.5~to_format-webp_quality-80_background-ffcc00"
    )


REFUSED: dict[str, Callable[[], object]] = {
    "0 pixels": lambda: Resize(width=0),
    "60,000 pixels": lambda: Resize(height=60_000),
    "half a pixel": lambda: Resize(width=1.5),  # type: ignore[arg-type]
    "yes for pixels": lambda: SmartCrop(True, 5),
    "nothing to resize to": lambda: Resize(),
    "an unknown fit": lambda: Resize(1, fit="squeeze"),
    "an unknown place": lambda: Crop(1, 1, position="middle"),
    "a word for yes": lambda: Resize(1, enlarge="yes"),  # type: ignore[arg-type]
    "a word for a colour": lambda: Resize(1, background="white"),
    "a negative place": lambda: Crop(1, 1, x=-1),
    "no number": lambda: Blur(math.nan),
    "infinitely much": lambda: Brightness(math.inf),
    "too much": lambda: Blur(1000),
    "a number in words": lambda: Blur("2"),  # type: ignore[arg-type]
    "no image": lambda: Watermark("cat.jpg"),  # type: ignore[arg-type]
    "page 0": lambda: Thumbnail(100, page=0),
    "no operation": lambda: Transformation(operations=["blur"]),  # type: ignore[list-item]
    "an operation without a name": lambda: Transformation(operations=[Operation()]),
    "a thumbnail of a picture": lambda: Transformation(operations=[Blur(), Thumbnail(100)]),
    "tiles of a picture": lambda: Transformation(operations=[Tiles(160), Blur()]),
    "too many tiles": lambda: Tiles(160, interval=1, end=100.1),
    "a tiny tile": lambda: Tiles(15),
    "a large tile": lambda: Tiles(641),
    "no time between tiles": lambda: Tiles(160, interval=0),
    "too many": lambda: Transformation(operations=[Invert()] * (MAX_OPERATIONS + 1)),
    "too long": lambda: Transformation(operations=[Watermark(uuid4(), size=0.123)] * 20),
    "quality 0": lambda: Transformation(quality=0),
    "quality 101": lambda: Transformation(quality=101),
    "an unknown quality": lambda: Transformation(quality="superb"),
    "quality yes": lambda: Transformation(quality=True),
    "an unknown format": lambda: Transformation(format="bmp"),
    "motion in JPEG": lambda: Transformation(format="jpeg", animated=True),
    "a word for motion": lambda: Transformation(animated="yes"),  # type: ignore[arg-type]
    "a preset in capitals": lambda: Transformation(preset="Card"),
    "a preset with another separator": lambda: Transformation(preset="a~b"),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidError):
        make()


def test_a_refusal_says_what_is_allowed() -> None:
    with pytest.raises(InvalidError, match=r"width of Resize must be 1 to 16383 pixels, not 60000"):
        Resize(60_000)
    with pytest.raises(InvalidError, match=r"Fit must be one of inside, outside, cover, contain, fill, not 'squeeze'"):
        Resize(1, fit="squeeze")


@pytest.mark.parametrize(
    "text",
    [
        "explode", "resize", "resize_width-0", "resize_width-0800", "resize_width-8_width-8", "resize_width",
        "blur_radius-2",
        "blur_radius-2.50", "blur_radius-1e1", "blur_radius--0", "resize_width-8_color-red", "to_format-webp~blur",
        "blur~preset_called-card", "preset_called-a~preset_called-b", "to", "~", "blur~", "watermark_image-7",
        f"watermark_image-{MARK}", "resize_width-\u0668", "resize_width-8_enlarge-no", "to_quality-080", 7,
    ],
)  # fmt: skip
def test_a_text_that_is_none_or_written_otherwise_is_refused(text: Any) -> None:
    with pytest.raises(InvalidError):
        Transformation.parse(text)


def test_what_follows_a_preset_tells_more() -> None:
    card = Transformation(operations=[Resize(300)], format="jpeg", quality="low")
    more = Transformation(operations=[Blur(3)], preset="card", quality=90)

    assert more.after(card) == Transformation(operations=[Resize(300), Blur(3)], format="jpeg", quality=90)


def test_what_nobody_tells_is_settled() -> None:
    assert str(Transformation().settled()) == "to_format-webp_quality-80"
    assert str(Transformation(format="png", quality=5, animated=False).settled()) == "to_format-png"
    assert str(Transformation(format="jpeg").settled()) == "to_format-jpeg_quality-82_background-ffffff"
    with pytest.raises(InvalidError, match="preset 'card'"):
        Transformation(preset="card").settled()


def test_every_value_of_every_operation_can_be_read_from_its_text() -> None:
    for kind in OPERATIONS.values():
        for name, field in attrs.fields_dict(kind).items():
            assert "parse" in field.metadata, f"{kind.__name__}.{name}"
            assert "_" not in name
