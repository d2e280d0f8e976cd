"""Thumbnails of photographs: by the parsers' children, and by Pillow in the process itself."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from statistics import median
from tempfile import TemporaryFile
from typing import IO, BinaryIO, cast

from benchmarks._report import Figure, Goal
from PIL import Image, ImageChops, ImageFilter

from mindia import Settings
from mindia.domain.operations import Thumbnail
from mindia.domain.transformations import Transformation
from mindia.media.isolation import ParserPool
from mindia.media.probe import Source

_WIDTH, _HEIGHT = 4000, 3000
_SIDE, _QUALITY = 320, 82
_THREADS = 2
_PHOTOGRAPHS = 8


def image_figures(*, quick: bool) -> list[Figure]:
    """Measure thumbnails of JPEGs of 12 megapixels, on two threads each, in turns."""
    photographs = [_photograph(number) for number in range(_PHOTOGRAPHS)]
    with closing(ParserPool(Settings(parser_processes=_THREADS))) as pool, ThreadPoolExecutor(_THREADS) as threads:
        ways: dict[str, Callable[[IO[bytes]], object]] = {
            "children": partial(_in_children, pool),
            "pillow": _by_thumbnail,
            "whole": _whole,
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            list(threads.map(way, photographs[:_THREADS]))  # children are started, plugins loaded
        names = list(ways)
        for number in range(2 if quick else 9):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                taken[name].append(_rate(threads, ways[name], photographs))

    def ratio(peer: str) -> float:
        return median(ours / theirs for ours, theirs in zip(taken["children"], taken[peer], strict=True))

    ours = median(taken["children"])
    return [
        Figure(
            name="thumbnails of 12 MP JPEG in children, beside Image.thumbnail (1/s)",
            value=ours,
            peer=median(taken["pillow"]),
            goal=Goal(0.9, at_least=True),
            ratio=ratio("pillow"),
        ),
        Figure(
            name="the same, beside decoding and resizing as a whole (1/s)",
            value=ours,
            peer=median(taken["whole"]),
            goal=Goal(3, at_least=True),
            ratio=ratio("whole"),
        ),
    ]


def _rate(threads: ThreadPoolExecutor, way: Callable[[IO[bytes]], object], photographs: Sequence[IO[bytes]]) -> float:
    began = time.perf_counter()
    list(threads.map(way, photographs))
    return len(photographs) / (time.perf_counter() - began)


def _in_children(pool: ParserPool, photograph: IO[bytes]) -> object:
    file = cast("BinaryIO", photograph)
    return pool.derive(
        Source(file, file.seek(0, io.SEEK_END)),
        filename="photograph.jpg",
        transformation=Transformation(operations=[Thumbnail(_SIDE)], format="jpeg", quality=_QUALITY).settled(),
        watermarks=[],
        settings=Settings(),
    )


def _by_thumbnail(photograph: IO[bytes]) -> None:
    photograph.seek(0)
    with Image.open(photograph) as image:
        image.thumbnail((_SIDE, _SIDE), reducing_gap=2.0)
        image.save(io.BytesIO(), "JPEG", quality=_QUALITY)


def _whole(photograph: IO[bytes]) -> None:
    photograph.seek(0)
    with Image.open(photograph) as image:
        image.load()
        image.resize((_SIDE, _SIDE * _HEIGHT // _WIDTH)).save(io.BytesIO(), "JPEG", quality=_QUALITY)


def _photograph(number: int) -> IO[bytes]:
    """Return a picture with shades, edges and grain, a few megabytes as a file."""
    shades = [Image.linear_gradient("L").rotate(90 * (number + turn)).resize((_WIDTH, _HEIGHT)) for turn in range(3)]
    stains = Image.effect_noise((_WIDTH // 16, _HEIGHT // 16), 90).resize((_WIDTH, _HEIGHT))
    grain = Image.effect_noise((_WIDTH, _HEIGHT), 24).filter(ImageFilter.GaussianBlur(0.6))
    channels = [ImageChops.overlay(ImageChops.soft_light(shade, stains), grain) for shade in shades]
    file = TemporaryFile()  # noqa: SIM115 - ends with the process
    Image.merge("RGB", channels).save(file, "JPEG", quality=90)
    file.flush()
    return cast("IO[bytes]", file)
