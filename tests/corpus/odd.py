"""Good files that are out of the ordinary, made on the spot: each with the facts that it was made with."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import imageio_ffmpeg


@attrs.frozen
class OddFile:
    """A file and what is known of it.

    Attributes:
        filename: What it is called when it is handed in.
        content_type: What it is.
        make: Returns its bytes.
        facts: By the name of the item's attribute.
        within: By how many seconds its duration may differ: coders fill up the last frame, and count its beginning.
    """

    filename: str
    content_type: str
    make: Callable[[], bytes]
    facts: Mapping[str, Any]
    within: float = 0.0


def size(width: int, height: int, **others: Any) -> dict[str, Any]:
    """Return the facts of a picture."""
    return {"width": width, "height": height, **others}


def ffmpeg(suffix: str, *arguments: str, **files: bytes) -> bytes:
    """Return what the executable of FFmpeg writes.

    Args:
        suffix: Of the file that it writes.
        arguments: Before the name of that file, separated by spaces.
        files: That it reads; in the arguments, `{name}` is where one is.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        places = {name: str(Path(folder, name)) for name in files}
        out = Path(folder, f"out.{suffix}")
        words = [word.format(**places) for argument in arguments for word in argument.split()]
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", *words, str(out)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return out.read_bytes()


def picture(width: int, height: int, *, seconds: float = 0.5, rate: str = "10") -> str:
    """Return the arguments for a moving picture as input."""
    return f"-f lavfi -i testsrc=size={width}x{height}:rate={rate}:duration={seconds}"


def tone(*, seconds: float = 0.5, rate: int = 48_000, layout: str = "mono") -> str:
    """Return the arguments for a tone as input."""
    channels = {"mono": 1, "stereo": 2, "5.1": 6, "7.1": 8}[layout]
    expressions = "|".join(["sin(440*2*PI*t)/4"] * channels)
    return f"-f lavfi -i aevalsrc={expressions}:channel_layout={layout}:sample_rate={rate}:duration={seconds}"
