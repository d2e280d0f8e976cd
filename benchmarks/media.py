"""What it costs to make pictures of media: thumbnails of photographs.

Photographs are JPEGs of 4000 x 3000 pixels, some megabytes each, of which thumbnails of 320 pixels are made, as JPEG
of the same quality: by the parsers' children (two, warm, by two threads), by Pillow's `thumbnail(reducing_gap=2.0)`
in two threads of the process itself, and by decoding and resizing them as a whole there. The three take turns; the
ratio is the median of those of the rounds.
"""

from __future__ import annotations

from benchmarks._media_images import image_figures
from benchmarks._report import options, report


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    report(image_figures(quick=chosen.quick), chosen, packages=("pillow",))


if __name__ == "__main__":
    main()
