"""Writes the pictures of the documentation: `make pictures`, after what notebooks show has changed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from examples.demo import demo_items
from tools.browser import screenshot

import mindia
from mindia import plots

_TARGET = Path(__file__).parents[1] / "docs" / "pictures"
_PAGE = """<!doctype html><meta charset="utf-8"><title>Mindia</title>
<body style="font-family:system-ui,sans-serif;margin:16px">{}</body>
"""


def main() -> None:
    """Make a home with the media of the demo, and pictures of what it shows."""
    _TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, mindia.local(Path(name) / "home") as app:
        folder, library = Path(name), app.library()
        for item in demo_items(folder):
            library.media.add(item.path, filename=item.filename, description=item.description)
        app.run_until_idle()
        cat = library.search("cat", limit=1)[0].media
        for title, shown, size in (
            ("gallery", library.search("temple or rocket or cat or espresso", limit=4)._repr_html_(), (960, 290)),
            ("card", library.show(cat)._repr_html_(), (880, 490)),
        ):
            page = folder / f"{title}.html"
            page.write_text(_PAGE.format(shown), "utf-8")
            screenshot(page, _TARGET / f"{title}.png", width=size[0], height=size[1])
        plots.embedding_map(library).save(_TARGET / "map.png")


if __name__ == "__main__":
    main()
