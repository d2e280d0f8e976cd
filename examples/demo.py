"""Ingests real media into an embedded home, searches it, deletes an item and shows that nothing of it is left.

Run by `make demo`, or by `make demo MEDIA=folder` with media of your own.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import attrs
import av
import numpy as np
from PIL import Image as Picture
from tqdm import tqdm

import mindia
from mindia import Audio, Document, Image, Library, Media, Mindia, Video
from mindia.errors import MediaError, NotFoundError
from mindia.media.names import words_of
from mindia.testing import samples


@attrs.frozen
class Item:
    """A file to take in."""

    path: Path
    filename: str
    description: str = ""


# Ship with scikit-image and scikit-learn under free licences.
PHOTOGRAPHS = (
    ("skimage", "data/chelsea.png", "cat.png", "Chelsea, a ginger cat, looks into the camera"),
    ("skimage", "data/coffee.png", "coffee.png", "A cup of espresso with a spoon on a wooden table"),
    ("skimage", "data/astronaut.png", "astronaut.png", "Portrait of astronaut Eileen Collins before a space shuttle"),
    ("skimage", "data/rocket.jpg", "rocket.jpg", "A Falcon 9 rocket lifts off"),
    ("skimage", "data/hubble_deep_field.jpg", "hubble_deep_field.jpg", "Thousands of galaxies, seen by a telescope"),
    ("skimage", "data/coins.png", "coins.png", "Greek coins from Pompeii"),
    ("sklearn", "datasets/images/china.jpg", "temple.jpg", "The roof of a temple in China"),
    ("sklearn", "datasets/images/flower.jpg", "flower.jpg", "A yellow and red dahlia flower"),
)

QUERIES = ("cats", "cup of espresso", "rocket", "telescpe galaxys", '"space shuttle"', "lighthouse keeper")


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--home", default=".mindia", help="where the embedded database and the objects are")
    parser.add_argument("--media", type=Path, help="a folder with media of your own")
    arguments = parser.parse_args()

    began = time.perf_counter()
    with mindia.local(arguments.home) as app, tempfile.TemporaryDirectory() as scratch:
        say(f"Opened {arguments.home} in {time.perf_counter() - began:.2f} s (PostgreSQL {postgresql(app)}, embedded)")
        library = library_named(app, f"Demo: {arguments.media.resolve()}" if arguments.media else "Demo")
        items = list(own_items(arguments.media) if arguments.media else demo_items(Path(scratch)))
        found = ingest(library, items)
        if not found:
            say(f"\nNothing that can be taken in was found in {arguments.media}.")
            return

        say("\nIn the background: describe and embed")
        report = app.run_until_idle()
        say(f"  {report.completed} tasks completed, {report.failed} failed")

        say("\nSearch, by word and by spelling (the lexical embedder knows no meaning; plug in a model for that)")
        for query in QUERIES if arguments.media is None else [words_of(item.filename) for item in found[:3]]:
            search(library, query)

        delete(app, library, found[0])


def demo_items(scratch: Path) -> Iterator[Item]:
    """Yield the photographs, and a video with sound, an audio file and a document that are made here."""
    for package, path, filename, description in PHOTOGRAPHS:
        spec = find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations
        yield Item(Path(spec.submodule_search_locations[0], path), filename, description)
        if filename == "rocket.jpg":
            rocket = Path(spec.submodule_search_locations[0], path)
    launch = scratch / "rocket_launch.mp4"
    make_video(launch, rocket)
    yield Item(launch, launch.name, "The camera follows a rocket")
    chime = scratch / "chime.mp3"
    chime.write_bytes(samples.audio(seconds=3.0))
    yield Item(chime, chime.name, "A calm tone")
    letter = scratch / "letter.pdf"
    letter.write_bytes(samples.pdf(["Dear Ada, the lighthouse keeper sends his regards.", "He misses the sea."]))
    yield Item(letter, letter.name)


def own_items(folder: Path) -> Iterator[Item]:
    """Yield the files below a folder."""
    if not folder.is_dir():
        raise SystemExit(f"MEDIA must be a folder: {folder}")
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield Item(path, path.name)


def ingest(library: Library, items: list[Item]) -> list[Media]:
    """Add what is not there yet, show each item, and return them."""
    before = {media.sha256: media for media in everything(library)}
    say(f"\nAdding {len(items)} files")
    taken: list[Media] = []
    refused: list[str] = []
    began = time.perf_counter()
    for item in tqdm(items, unit="file", disable=None, leave=False):
        try:
            staged = library.media.stage(item.path, filename=item.filename)
        except MediaError as error:
            refused.append(str(error))
            continue
        if staged.sha256 not in before:
            before[staged.sha256] = library.media.add(staged, description=item.description)
        taken.append(before[staged.sha256])
    for media in taken:
        say(f"  {media.filename:<24} {media.content_type:<16} {media.file_size / 1000:>8,.0f} kB  {facts(media)}")
    for reason in refused:
        say(f"  refused: {reason}")
    say(f"  {len(taken)} taken in, {len(refused)} refused, {time.perf_counter() - began:.1f} s")
    return taken


def search(library: Library, query: str) -> None:
    """Show the best results."""
    say(f"  {query}")
    for result in library.search(query, limit=3):
        text = "-" if result.text_rank is None else f"{result.text_rank}."
        vector = "-" if result.similarity is None else f"{result.similarity:.2f}"
        say(f"      {result.media.filename:<24} score {result.score:.4f}  by word {text:<3}  similarity {vector}")


def delete(app: Mindia, library: Library, media: Media) -> None:
    """Delete an item and look for what is left of it."""
    say(f"\nDeleting {media.filename} from the library")
    library.media.delete(media)
    report = app.run_until_idle()
    say(f"  the bytes of {report.objects_removed} item(s) removed")
    try:
        library.media.get(media.id)
    except NotFoundError as error:
        say(f"  get:      {error}")
    hits = [result for result in library.search(words_of(media.filename)) if result.media.id == media.id]
    say(f"  search:   {len(hits)} results")
    say(f"  objects:  {sum(str(media.id) in stored.key for stored in app.storage.list(bucket(app, library)))} stored")
    with library.transaction() as transaction:
        rows = transaction.connection.execute(
            "select (select count(*) from mindia.images where id = %(id)s)"
            " + (select count(*) from mindia.search_documents where entity_id = %(id)s)"
            " + (select count(*) from mindia.embeddings where entity_id = %(id)s)",
            {"id": media.id},
        ).fetchone()
    say(f"  database: {rows[0] if rows else '?'} rows")


def facts(media: Media) -> str:
    """Return what was probed, in a line."""
    match media:
        case Image():
            return f"{media.width} x {media.height}"
        case Video():
            return f"{media.width} x {media.height}, {media.duration:.1f} s"
        case Audio():
            return f"{media.duration:.1f} s, {media.sample_rate} Hz, {media.channels} channel(s)"
        case Document():
            return f"{media.page_count} page(s)"


def everything(library: Library) -> Iterator[Media]:
    """Yield all items, page by page."""
    after: str | None = None
    while True:
        page = library.media.find(limit=500, after=after)
        yield from page
        if page.next is None:
            return
        after = page.next


def library_named(app: Mindia, name: str) -> Library:
    """Return the library of the tenant of that name, made where it is missing."""
    name = name[:255]
    return app.library(
        next((tenant for tenant in app.tenants.list() if tenant.name == name), None) or app.tenants.create(name)
    )


def make_video(path: Path, photograph: Path) -> None:
    """Write three seconds of a camera that moves over a photograph, with sound."""
    width, height, rate, seconds = 320, 240, 25, 3
    with Picture.open(photograph) as picture:
        wide = np.asarray(picture.convert("RGB"))
    time_of = np.arange(48_000 * seconds) / 48_000
    tone = (6_000 * np.sin(2 * math.pi * (220 + 60 * time_of) * time_of)).astype(np.int16)[None, :]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        for number in range(rate * seconds):
            top = round((wide.shape[0] - height) * (1 - number / (rate * seconds)))
            left = (wide.shape[1] - width) // 2
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(wide[top : top + height, left : left + width]))
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, tone.shape[1], 1024):
            piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone[:, start : start + 1024]), layout="mono")
            piece.sample_rate, piece.pts = 48_000, start
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))


def bucket(app: Mindia, library: Library) -> str:
    """Return the bucket of the library's tenant."""
    return app.tenants.get(library.tenant_id).s3_bucket


def postgresql(app: Mindia) -> str:
    """Return the version of the server."""
    version = app.check().postgresql
    return f"{version // 10000}.{version % 10000}"


def say(text: str) -> None:
    """Print a line past the progress bar."""
    tqdm.write(text)


if __name__ == "__main__":
    main()
