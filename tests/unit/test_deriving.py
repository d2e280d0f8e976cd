"""Pictures that are made of files: their pixels, their sizes, and nothing else in them."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw

from mindia import Settings
from mindia.domain.media import Location
from mindia.domain.operations import (
    Blur,
    Brightness,
    Contrast,
    Crop,
    Fit,
    Flip,
    Grayscale,
    Invert,
    Operation,
    Position,
    Resize,
    Rotate,
    Saturation,
    Sepia,
    Sharpen,
    SmartCrop,
    Thumbnail,
    Watermark,
)
from mindia.domain.transformations import Transformation
from mindia.errors import CorruptMediaError, InvalidError, MediaError, TooLargeError
from mindia.media import stills
from mindia.media._jpeg import is_one_scan
from mindia.media.deriving import Made, derive
from mindia.media.pixels import resized_to
from mindia.testing import samples

SETTINGS = Settings()
MARK = UUID(int=1)
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def made_of(content: bytes, *operations: Operation, marks: tuple[bytes, ...] = (), **form: Any) -> Made:
    return derive(
        io.BytesIO(content),
        filename="a.jpg",
        transformation=Transformation(operations=operations, **form).settled(),
        watermarks=[io.BytesIO(mark) for mark in marks],
        settings=form.pop("settings", SETTINGS),
    )


def opened(made: Made) -> Image.Image:
    picture = Image.open(io.BytesIO(made.content))
    picture.load()
    assert picture.size == (made.width, made.height)
    return picture


def png(picture: Image.Image, **options: Any) -> bytes:
    target = io.BytesIO()
    picture.save(target, "PNG", **options)
    return target.getvalue()


def halves(width: int = 80, height: int = 40) -> Image.Image:
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture


def pixel(picture: Image.Image, x: int, y: int) -> Any:
    return picture.getpixel((x, y))


SIZES: dict[str, tuple[Resize, tuple[int, int]]] = {
    "width": (Resize(40), (40, 20)),
    "height": (Resize(height=10), (20, 10)),
    "inside": (Resize(40, 40), (40, 20)),
    "outside": (Resize(20, 20, fit="outside"), (40, 20)),
    "cover": (Resize(20, 20, fit="cover"), (20, 20)),
    "contain": (Resize(40, 40, fit="contain"), (40, 40)),
    "fill": (Resize(10, 30, fit="fill"), (10, 30)),
    "larger": (Resize(800), (80, 40)),
    "larger cover": (Resize(160, 160, fit="cover"), (40, 40)),
    "larger contain": (Resize(160, 160, fit="contain"), (160, 160)),
    "larger fill": (Resize(160, 160, fit="fill"), (40, 40)),
    "enlarged": (Resize(160, enlarge=True), (160, 80)),
    "enlarged cover": (Resize(160, 160, fit="cover", enlarge=True), (160, 160)),
    "enlarged fill": (Resize(160, 160, fit="fill", enlarge=True), (160, 160)),
    "a pixel": (Resize(1), (1, 1)),
}


@pytest.mark.parametrize(("resize", "size"), SIZES.values(), ids=SIZES)
def test_a_picture_comes_to_the_size_that_is_told(resize: Resize, size: tuple[int, int]) -> None:
    assert opened(made_of(png(halves()), resize)).size == size


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 9000), st.sampled_from(Fit))
def test_a_picture_is_neither_enlarged_unasked_nor_larger_than_told(
    width: int, height: int, asked_width: int, asked_height: int, fit: Fit
) -> None:
    scaled, size = resized_to(width, height, Resize(asked_width, asked_height, fit=fit))

    assert scaled[0] <= width
    assert scaled[1] <= height
    if fit is not Fit.OUTSIDE:
        assert size[0] <= asked_width
        assert size[1] <= asked_height
    if fit is Fit.COVER:
        assert size[0] <= scaled[0]
        assert size[1] <= scaled[1]
    assert resized_to(width, height, Resize(asked_width, asked_height, fit=fit, enlarge=True))[1] >= (1, 1)


def test_a_picture_that_covers_keeps_the_part_that_is_told() -> None:
    left = opened(made_of(png(halves()), Resize(20, 20, fit="cover", position="left"), format="png"))
    right = opened(made_of(png(halves()), Resize(20, 20, fit="cover", position="bottom-right"), format="png"))

    assert (pixel(left, 5, 10), pixel(right, 15, 10)) == (RED, BLUE)


def test_a_picture_that_is_contained_stands_on_its_canvas() -> None:
    clear = opened(made_of(png(halves()), Resize(40, 40, fit="contain", position="top"), format="png"))
    white = opened(made_of(png(halves()), Resize(40, 40, fit="contain", background="#ffffff"), format="png"))

    assert (pixel(clear, 0, 0), pixel(clear, 0, 39)) == ((*RED, 255), (0, 0, 0, 0))
    assert (pixel(white, 0, 0), pixel(white, 0, 20)) == (WHITE, RED)


def test_a_crop_is_where_it_is_told_and_ends_at_the_edges() -> None:
    there = opened(made_of(png(halves()), Crop(30, 10, x=60, y=35), format="png"))
    middle = opened(made_of(png(halves()), Crop(2, 2), format="png"))

    assert there.size == (20, 5)
    assert pixel(there, 0, 0) == BLUE
    assert (pixel(middle, 0, 0), pixel(middle, 1, 0)) == (RED, BLUE)
    with pytest.raises(
        InvalidError, match=r"crop_width-5_height-5_x-80_y-0 leaves nothing of 'a.jpg', which has 80 x 40"
    ):
        made_of(png(halves()), Crop(5, 5, x=80, y=0))


@pytest.mark.parametrize("upright", [False, True], ids=["wide", "high"])
@pytest.mark.parametrize("at", [40, 300, 560])
def test_a_smart_crop_keeps_what_there_is_to_see(at: int, upright: bool) -> None:
    picture = Image.new("RGB", (640, 160), (200, 200, 200))
    draw = ImageDraw.Draw(picture)
    for number in range(6):
        draw.rectangle((at + 6 * number, 40, at + 6 * number + 3, 120), fill="black")
    if upright:
        picture = picture.transpose(Image.Transpose.TRANSPOSE)

    cut = opened(made_of(png(picture), SmartCrop(80, 80), format="png"))

    assert cut.size == (80, 80)
    dark = sum(cut.convert("L").point(lambda value: 255 * (value < 128)).histogram()[255:])
    assert dark > 6 * 2 * 40 * 0.7, "of the bars at half their size"


def test_a_smart_crop_of_nothing_is_the_middle() -> None:
    assert opened(made_of(samples.image(width=300, height=100), SmartCrop(50, 50))).size == (50, 50)
    assert opened(made_of(png(Image.new("RGB", (3, 1))), SmartCrop(1, 1))).size == (1, 1)


def test_it_turns_clockwise_and_flips() -> None:
    picture = png(halves())
    quarter = opened(made_of(picture, Rotate(90), format="png"))
    half = opened(made_of(picture, Rotate(-180), format="png"))
    mirrored = opened(made_of(picture, Flip(), format="png"))
    tilted = opened(made_of(picture, Rotate(45), format="png"))
    on_white = opened(made_of(picture, Rotate(45, background="ffffff"), format="png"))

    assert (quarter.size, pixel(quarter, 0, 0), pixel(quarter, 0, 79)) == ((40, 80), RED, BLUE)
    assert (pixel(half, 0, 0), pixel(mirrored, 0, 0)) == (BLUE, BLUE)
    assert opened(made_of(picture, Flip("vertical"), format="png")).tobytes() == halves().tobytes()
    assert tilted.width > 80
    assert pixel(tilted, 0, 0)[3] == 0
    assert pixel(on_white, 0, 0) == WHITE
    assert opened(made_of(picture, Rotate(360), format="png")).size == (80, 40)


def test_the_corners_of_a_turned_picture_are_filled_and_its_own_transparent_parts_are_not() -> None:
    made = opened(
        made_of(png(Image.new("RGBA", (40, 40), (0, 0, 0, 0))), Rotate(45, background="ffffff"), format="png")
    )

    assert pixel(made, 0, 0)[3] == 255
    assert pixel(made, made.width // 2, made.height // 2)[3] == 0


COLOURS: dict[str, tuple[Operation, Callable[[Any], bool]]] = {
    "darker": (Brightness(0.5), lambda seen: seen == (50, 25, 0)),
    "one grey": (Contrast(0), lambda seen: len(set(seen)) == 1),
    "without colour": (Saturation(0), lambda seen: len(set(seen)) == 1),
    "grey": (Grayscale(), lambda seen: seen == (59, 59, 59)),
    "brown": (Sepia(), lambda seen: seen[0] > seen[1] > seen[2]),
    "negative": (Invert(), lambda seen: seen == (155, 205, 255)),
    "flat and blurred": (Blur(3), lambda seen: seen == (100, 50, 0)),
    "flat and sharpened": (Sharpen(2), lambda seen: seen == (100, 50, 0)),
}


@pytest.mark.parametrize("alpha", [None, 128], ids=["opaque", "half transparent"])
@pytest.mark.parametrize(("operation", "is_right"), COLOURS.values(), ids=COLOURS)
def test_colours_change_and_transparency_does_not(
    operation: Operation, is_right: Callable[[Any], bool], alpha: int | None
) -> None:
    colour = (100, 50, 0) if alpha is None else (100, 50, 0, alpha)
    picture = Image.new("RGB" if alpha is None else "RGBA", (20, 20), colour)

    seen = pixel(opened(made_of(png(picture), operation, format="png")), 10, 10)

    if alpha is not None:
        assert abs(seen[3] - alpha) <= 1
    assert is_right(seen[:3]) or (alpha and all(abs(a - b) <= 1 for a, b in zip(seen, colour, strict=True)))


def test_what_is_blurred_shows_no_colour_of_what_is_transparent() -> None:
    picture = Image.new("RGBA", (40, 40), (0, 255, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 20, 40))

    red, green, blue, alpha = pixel(opened(made_of(png(picture), Blur(4), format="png")), 20, 20)

    assert 0 < alpha < 255
    assert red > 240
    assert green + blue < 10


@pytest.mark.parametrize("position", Position)
def test_a_watermark_stands_where_it_is_told(position: Position) -> None:
    white = png(Image.new("RGB", (100, 60), WHITE))
    mark = png(Image.new("RGB", (10, 10), (0, 0, 0)))

    made = opened(made_of(white, Watermark(MARK, position, size=0.2, opacity=1, margin=0), marks=(mark,), format="png"))

    dark = made.convert("L").point(lambda value: 255 * (value < 128)).getbbox()
    across, down = position.shares
    assert dark == (80 * across, 40 * down, 80 * across + 20, 40 * down + 20)


def test_a_watermark_is_seen_through_and_no_higher_than_the_picture() -> None:
    white = png(Image.new("RGB", (100, 60), WHITE))
    high = png(Image.new("RGB", (100, 1000), (0, 0, 0)))

    made = opened(made_of(white, Watermark(MARK, "center", size=1, opacity=0.5), marks=(high,), format="png"))

    assert made.size == (100, 60)
    assert 120 < pixel(made, 50, 30)[0] < 135
    with pytest.raises(InvalidError, match="watermark"):
        made_of(white, Watermark(MARK), marks=(samples.pdf(["text"]),))


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_upright_whichever_way_it_is_stored(turn: int) -> None:
    transpose = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
                 7: "TRANSVERSE", 8: "ROTATE_270"}.get(turn)  # fmt: skip
    picture = Image.new("RGB", (800, 400), RED)
    picture.paste(BLUE, (400, 0, 800, 200))
    stored = picture if transpose is None else picture.transpose(Image.Transpose[transpose])
    exif = Image.Exif()
    exif[0x0112] = turn
    target = io.BytesIO()
    stored.save(target, "JPEG", exif=exif, quality=95)

    made = opened(made_of(target.getvalue(), Resize(100), format="png"))

    assert made.size == (100, 50)
    assert pixel(made, 75, 12)[2] > 240
    assert pixel(made, 75, 37)[0] > 240
    assert pixel(made, 25, 12)[0] > 240


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "avif"])
@pytest.mark.parametrize("stored", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_nothing_but_pixels_comes_out(stored: str, form: str) -> None:
    content = samples.image(
        stored, camera="secret camera", taken_at=datetime(2024, 1, 1, tzinfo=UTC),
        location=Location(latitude=1, longitude=2),
    )  # fmt: skip
    for operations in ([], [Resize(30)], [Grayscale()]):
        made = made_of(content, *operations, format=form)
        picture = opened(made)
        assert b"secret" not in made.content
        assert not dict(picture.getexif())
        assert not {"exif", "xmp", "icc_profile", "comment"} & set(picture.info)


def test_a_comment_and_a_text_do_not_come_along() -> None:
    commented = io.BytesIO()
    halves().save(commented, "JPEG", comment=b"secret")
    assert b"secret" not in made_of(commented.getvalue(), format="jpeg").content
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text("Author", "secret")
    assert b"secret" not in made_of(png(halves(), pnginfo=texts), format="png").content


def test_colours_of_another_profile_become_srgb_and_a_damaged_profile_is_left_out() -> None:
    picture = Image.new("RGB", (8, 8), (100, 150, 200))
    lab = ImageCms.createProfile("LAB")
    xyz = ImageCms.createProfile("XYZ")
    for profile in (lab, xyz):
        raw = ImageCms.ImageCmsProfile(profile).tobytes()
        assert opened(made_of(png(picture, icc_profile=raw), format="png")).mode == "RGB"
    assert pixel(opened(made_of(png(picture, icc_profile=b"no profile"), format="png")), 4, 4) == (100, 150, 200)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert pixel(opened(made_of(png(picture, icc_profile=srgb), format="png")), 4, 4) == (100, 150, 200)


def red_and_green_exchanged() -> bytes:
    """Return a colour profile whose red is the green of sRGB, and the other way round."""
    raw = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    raw = raw.replace("sRGB".encode("utf-16-be"), "tRGB".encode("utf-16-be"))
    return raw.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)


@pytest.mark.parametrize("alpha", [None, 100], ids=["opaque", "half transparent"])
def test_colours_are_those_of_the_profile(alpha: int | None) -> None:
    picture = Image.new("RGB", (60, 60), (200, 30, 40))
    if alpha is not None:
        picture.putalpha(alpha)
    stored = png(picture, icc_profile=red_and_green_exchanged())

    for operations in ([], [Resize(9)], [Blur(1)]):
        seen = pixel(opened(made_of(stored, *operations, format="png")), 4, 4)
        assert all(abs(is_ - was) < 12 for is_, was in zip(seen, (30, 200, 40), strict=False)), seen
        assert seen[3:] == (() if alpha is None else (alpha,))


def test_pictures_of_every_mode_come_out() -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        picture = Image.new(mode, (30, 20), 1 if mode != "I;16" else 32768)
        for operations in ([], [Resize(10)], [Blur()]):
            assert opened(made_of(png(picture), *operations)).format == "WEBP"
    cmyk = io.BytesIO()
    Image.new("CMYK", (30, 20), (0, 255, 255, 0)).save(cmyk, "JPEG")
    assert opened(made_of(cmyk.getvalue(), format="png")).mode == "RGB"
    grey = pixel(opened(made_of(png(Image.new("I;16", (4, 4), 32768)), format="png")), 0, 0)
    assert grey == (128, 128, 128)


def test_transparent_parts_stay_or_are_filled_as_told() -> None:
    clear = png(Image.new("RGBA", (10, 10), (255, 0, 0, 0)))

    assert pixel(opened(made_of(clear, format="webp")), 5, 5)[3] == 0
    assert pixel(opened(made_of(clear, format="png", background="#0000ff")), 5, 5) == BLUE
    assert min(pixel(opened(made_of(clear, format="jpeg")), 5, 5)) > 250


def moving(form: str = "GIF", *, count: int = 4, size: tuple[int, int] = (40, 20)) -> bytes:
    frames = [Image.new("RGB", size, (60 * number, 0, 200)) for number in range(count)]
    target = io.BytesIO()
    frames[0].save(target, form, save_all=True, append_images=frames[1:], duration=[100, 200, 300, 400][:count], loop=0)
    return target.getvalue()


@pytest.mark.parametrize("form", ["webp", "gif"])
@pytest.mark.parametrize("stored", ["GIF", "WEBP"])
def test_all_pictures_of_an_animated_one_are_kept_as_told_or_the_first(stored: str, form: str) -> None:
    still = Image.open(io.BytesIO(made_of(moving(stored), Resize(20), format=form).content))
    kept = Image.open(io.BytesIO(made_of(moving(stored), Resize(20), format=form, animated=True).content))

    assert getattr(still, "n_frames", 1) == 1
    assert getattr(kept, "n_frames", 1) == 4
    durations = []
    for number in range(4):
        kept.seek(number)
        kept.load()
        durations.append(kept.info["duration"])
        assert kept.size == (20, 10)
    assert durations == [100, 200, 300, 400]
    assert kept.info["loop"] == 0


def test_a_single_picture_that_is_to_be_animated_is_one() -> None:
    assert getattr(opened(made_of(samples.image("GIF"), animated=True)), "n_frames", 1) == 1


LIMITED: dict[str, Callable[[], object]] = {
    "enlarged": lambda: made_of(samples.image(), Resize(16_383, 16_383, enlarge=True, fit="fill")),
    "outside of a sliver": lambda: made_of(
        png(Image.new("RGB", (1, 2000))), Resize(16_383, 1, fit="outside", enlarge=True)
    ),
    "a canvas": lambda: made_of(samples.image(), Resize(16_383, 16_383, fit="contain")),
    "too long for WebP": lambda: made_of(png(Image.new("L", (20_000, 1)))),
    "moving": lambda: derive(
        io.BytesIO(moving()), filename="a.gif", transformation=Transformation(animated=True).settled(), watermarks=[],
        settings=Settings(max_derivative_pixels=3000),
    ),
    "more than may be taken in": lambda: derive(
        io.BytesIO(samples.image()), filename="a.jpg", transformation=Transformation().settled(), watermarks=[],
        settings=Settings(max_image_pixels=100),
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", LIMITED.values(), ids=LIMITED)
def test_what_would_be_too_large_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(TooLargeError, match=r"a\.(jpg|gif)' (would become|has) "):
        make()


def test_a_damaged_picture_is_refused() -> None:
    whole = samples.image(width=600, height=400)
    for content in (whole[:-200], whole[:300]):
        with pytest.raises(CorruptMediaError):
            made_of(content, Resize(30))
    with pytest.raises(MediaError):
        made_of(b"no picture at all")


def test_a_video_shows_the_frame_that_is_told_a_document_its_page_a_sound_its_waveform() -> None:
    video = opened(made_of(samples.video(), Thumbnail(32, at=0.2)))
    behind = opened(made_of(samples.video(), Thumbnail(32, at=1000)))
    page = opened(made_of(samples.pdf(["one", "two"]), Thumbnail(100, page=2), format="jpeg"))
    sound = opened(made_of(samples.wav(), Thumbnail(200)))

    assert max(video.size) == max(behind.size) == 32
    assert max(page.size) == 100
    assert sound.size == (200, 50)
    left, top, right, bottom = sound.getchannel("A").point(lambda value: 255 * (value > 128)).getbbox() or (0, 0, 0, 0)
    assert (left, top) < (3, 3)
    assert (right, bottom) > (190, 46)
    with pytest.raises(InvalidError, match="2 pages: there is no page 3"):
        made_of(samples.pdf(["one", "two"]), Thumbnail(100, page=3))
    with pytest.raises(InvalidError, match="what can be made of that is a thumbnail"):
        made_of(samples.wav(), Resize(10))


def test_sound_in_a_container_of_video_is_sound() -> None:
    made = opened(made_of(samples.audio("mp4", codec="aac"), Thumbnail(100)))
    assert made.size == (100, 25)
    video = samples.video()
    with pytest.raises(CorruptMediaError):
        made_of(video[: len(video) // 3], Thumbnail(100))


@pytest.mark.parametrize("seconds", [0.01, 2.0])
def test_a_sound_of_any_length_has_a_waveform(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stills, "_WHOLE_SECONDS", 0.5)  # what is longer is looked at here and there
    sound = samples.wav(seconds=seconds, sample_rate=8000)

    left, top, right, bottom = opened(made_of(sound, Thumbnail(64))).getbbox() or (0, 0, 0, 0)

    assert (left, top) < (2, 2)
    assert (right, bottom) > (60, 13)


def test_more_is_done_with_a_thumbnail() -> None:
    made = opened(made_of(samples.video(), Thumbnail(64), Grayscale(), format="png"))

    assert len(set(pixel(made, 10, 10)[:3])) == 1


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_the_beginning_of_a_jpeg_tells_whether_there_is_one_scan(mode: str, progressive: bool) -> None:
    target = io.BytesIO()
    Image.new(mode, (40, 30)).save(target, "JPEG", progressive=progressive, exif=b"Exif\0\0" + bytes(300))
    content = target.getvalue()
    scan = content.index(b"\xff\xda")

    assert is_one_scan(content) is not progressive
    assert is_one_scan(content[: scan + 20]) is not progressive
    assert not any(is_one_scan(content[:size]) for size in range(scan))


def test_a_scan_of_some_of_the_components_is_not_the_only_one() -> None:
    target = io.BytesIO()
    Image.new("RGB", (40, 30)).save(target, "JPEG")
    content = target.getvalue()
    scan = content.index(b"\xff\xda")
    one = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"

    assert not is_one_scan(content[:scan] + one + content[scan:])
    assert not is_one_scan(content[:scan] + b"\xff\xda\0\x02")
    frame = content.index(b"\xff\xc0")
    again = content[frame : frame + 19]
    assert not is_one_scan(content[:frame] + again + content[frame:])
