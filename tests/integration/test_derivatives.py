"""Pictures that are made of items: each once, found later, gone with its original, and for its tenant alone."""

from __future__ import annotations

import hashlib
import io
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import psycopg
import pytest
from PIL import Image as Pillow
from psycopg import sql
from tests.corpus.odd import ffmpeg
from tests.integration.media_rows import Host, rows, sweep_all
from tests.integration.tenant_rows import add_user

import mindia
from mindia import (
    Blur,
    Crop,
    Derivative,
    Grayscale,
    Image,
    Library,
    LocalStorage,
    Media,
    MemoryStorage,
    Mindia,
    Resize,
    Settings,
    Tenant,
    Transformation,
    UserRole,
    Watermark,
)
from mindia.domain.derivatives import RegenerateDerivatives
from mindia.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptMediaError,
    InvalidError,
    MindiaError,
    NotFoundError,
    PermissionDeniedError,
    StorageUnavailableError,
    TooLargeError,
)
from mindia.services import signed_urls
from mindia.services.previews import MediaPreviews
from mindia.serving import MediaFiles
from mindia.testing import samples
from mindia.testing.storage import listed

SETTINGS = Settings(isolate_parsers=False, public_url="https://example.org/media", secret_key="not so very secret")
PHOTO = samples.image(width=300, height=200, color="orange")


@pytest.fixture
def app(database_url: str, storage: LocalStorage) -> Iterator[Mindia]:
    """An application in a database without what earlier tests have left to be done."""
    with psycopg.connect(database_url) as connection:
        for table in ("staged_objects", "deleted_objects", "tasks"):
            connection.execute(sql.SQL("delete from mindia.{}").format(sql.Identifier(table)))
    with mindia.connect(database_url, storage=storage, settings=SETTINGS) as app:
        yield app


@pytest.fixture
def image(library: Library) -> Image:
    added = library.media.add(PHOTO, filename="orange.jpg")
    assert isinstance(added, Image)
    return added


@pytest.fixture
def other(app: Mindia) -> Library:
    """Another tenant's library."""
    return app.library(app.tenants.create("Globex"))


def derived(storage: LocalStorage, tenant: Tenant) -> set[str]:
    return {key for key in listed(storage, tenant.s3_bucket) if key.startswith("derived/")}


def on_record(host: Host, library: Library) -> int:
    """Return how many places are on record for what is made."""
    with host.transaction():
        counted = host.execute(
            "select count(*) from mindia.staged_objects where tenant_id = %s and source_id is not null",
            (library.tenant_id,),
        ).fetchone()
    assert counted is not None
    return int(counted[0])


def nothing_is_left(host: Host, library: Library, storage: LocalStorage, tenant: Tenant) -> bool:
    is_on_record = on_record(host, library) or rows(host, library, "derivatives")
    return not is_on_record and not derived(storage, tenant)


def test_it_is_made_once_and_found_later(
    library: Library, tenant: Tenant, storage: LocalStorage, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = library.media.derive(image, Resize(width=60), Grayscale(), format="jpeg", quality="low")

    assert (made.width, made.height, made.content_type) == (60, 40, "image/jpeg")
    assert made.operations == "resize_width-60~grayscale~to_format-jpeg_quality-50_background-ffffff"
    content = library.media.read(made)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (made.file_size, made.sha256)
    assert Pillow.open(io.BytesIO(content)).size == (60, 40)
    assert derived(storage, tenant) == {made.s3_key}
    assert library.media.derivatives(image.id) == (made,)

    monkeypatch.setattr(type(library.media._context.prober), "derive", None)
    assert library.media.derive(image.id, Transformation.parse(made.operations)) == made


@pytest.mark.parametrize("in_one_process", [True, False], ids=["of one application", "of several"])
def test_of_those_who_ask_at_once_all_get_the_same_and_nothing_is_left_of_the_others(
    app: Mindia, database_url: str, storage: LocalStorage, library: Library, tenant: Tenant, host: Host, image: Image,
    in_one_process: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    together = threading.Barrier(4)
    prober = type(library.media._context.prober)
    derive, times = prober.derive, []

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        times.append(1)
        return derive(self, *args, **kwargs)

    monkeypatch.setattr(prober, "derive", counted)

    def ask(mine: Mindia) -> Derivative:
        together.wait()
        return mine.library(tenant).media.derive(image, Resize(50))

    apps = [app] * 4 if in_one_process else [
        mindia.connect(database_url, storage=storage, settings=SETTINGS) for _ in range(4)
    ]  # fmt: skip
    try:
        with ThreadPoolExecutor(4) as threads:
            found = set(threads.map(ask, apps))
    finally:
        for each in apps if not in_one_process else []:
            each.close()

    (made,) = found
    assert len(times) == 1 or not in_one_process
    assert derived(storage, tenant) == {made.s3_key}
    assert on_record(host, library) == 0
    assert app.maintenance.verify(tenant=tenant).is_clean


def test_who_loses_at_the_last_moment_returns_what_the_other_one_made(
    app: Mindia, database_url: str, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, image: Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    prober = type(app._make_context.keywords["prober"])
    derive = prober.derive
    won: list[Derivative] = []

    def overtaken(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = derive(self, *args, **kwargs)
        if not won:
            won.append(None)  # type: ignore[arg-type]
            with mindia.connect(database_url, storage=storage, settings=SETTINGS) as another:
                won[0] = another.library(tenant).media.derive(image, Resize(50))
        return result

    monkeypatch.setattr(prober, "derive", overtaken)

    assert library.media.derive(image, Resize(50)) == won[0]
    assert derived(storage, tenant) == {won[0].s3_key}
    assert on_record(host, library) == 0


def test_an_item_that_is_deleted_while_its_picture_is_made_leaves_nothing(
    library: Library, tenant: Tenant, storage: LocalStorage, host: Host, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    prober = type(library.media._context.prober)
    derive = prober.derive

    def deleted(self: Any, *args: Any, **kwargs: Any) -> Any:
        library.media.delete(image)
        return derive(self, *args, **kwargs)

    monkeypatch.setattr(prober, "derive", deleted)

    with pytest.raises(NotFoundError, match=str(image.id)):
        library.media.derive(image, Resize(50))
    assert nothing_is_left(host, library, storage, tenant)


def test_it_is_shared_by_copies_and_goes_with_the_last(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, image: Image
) -> None:
    made = library.media.derive(image, Resize(50))
    copy = library.media.copy(image)

    of_copy = library.media.derive(copy.id, Resize(50))
    assert of_copy == made
    assert of_copy.media_id == copy.id
    library.media.delete(image)
    app.maintenance.remove_deleted()
    with pytest.raises(NotFoundError):
        library.media.read(made)
    assert len(library.media.read(of_copy)) == made.file_size
    library.media.delete(copy)
    app.maintenance.remove_deleted()
    assert listed(storage, tenant.s3_bucket) == {}


def test_it_is_read_like_an_item(library: Library, image: Image, tmp_path: Path) -> None:
    made = library.media.derive(image, Resize(50), format="png")

    assert library.media.read(made, start=1, length=3) == b"PNG"
    with library.media.open(made) as file:
        assert file.read() == library.media.save_to(made, tmp_path).read_bytes()
    assert (tmp_path / "orange.png").exists()


def get(app: Mindia, url: str) -> tuple[str, dict[str, str], bytes]:
    said: list[Any] = []
    path, _, query = url.removeprefix("https://example.org/media").partition("?")
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": query}
    body: Any = MediaFiles(app)(environ, lambda status, headers: said.extend((status, dict(headers))))
    with closing(body) if hasattr(body, "close") else nullcontext():
        content = b"".join(body)
    return said[0], said[1], content


def test_whoever_has_its_url_gets_it_until_its_item_is_gone(app: Mindia, library: Library, image: Image) -> None:
    made = library.media.derive(image, Resize(50), Blur(1.5))
    url = library.media.url(made)

    status, headers, content = get(app, url)
    assert (status, headers["Content-Type"], content) == ("200 OK", "image/webp", library.media.read(made))
    assert "/orange.webp?" in url
    assert 'filename="orange.webp"' in headers["Content-Disposition"]
    assert headers["ETag"] == f'"{made.sha256}"'
    whole = library.media.url(image)
    for forged in (url.replace("blur_radius-1.5", "blur_radius-2.5"), url.replace("&operations=", "&o="),
                   f"{whole}&operations={made.operations}"):  # fmt: skip
        assert get(app, forged)[0] == "403 Forbidden"
    unmade = Transformation(operations=[Resize(9)]).settled()
    item = attrs.evolve(library.media._stored(made), operations=str(unmade))
    assert get(app, signed_urls.sign(image, settings=SETTINGS, expires_in=timedelta(hours=1), disposition="inline",
                                     made=item))[0] == "404 Not Found"  # fmt: skip
    library.media.delete(image)
    assert get(app, url)[0] == "404 Not Found"


def test_nothing_of_an_item_that_has_expired_is_found(library: Library, image: Image, host: Host) -> None:
    made = library.media.derive(image, Resize(50))
    with host.transaction():
        host.execute("update mindia.images set expires_at = now() - interval '1 s' where id = %s", (image.id,))

    for call in (lambda: library.media.derive(image, Resize(50)), lambda: library.media.read(made),
                 lambda: library.media.derivatives(image), lambda: library.media.url(made)):  # fmt: skip
        with pytest.raises(NotFoundError):
            call()


def test_another_tenant_finds_none_of_it(library: Library, other: Library, image: Image) -> None:
    made = library.media.derive(image, Resize(50))
    mine = other.media.add(PHOTO)
    assert isinstance(mine, Image)
    stolen = attrs.evolve(made, tenant_id=other.tenant_id)

    for call in (
        lambda: other.media.derive(image, Resize(50)), lambda: other.media.thumbnail(image.id),
        lambda: other.media.derivatives(image), lambda: other.media.read(made), lambda: other.media.url(stolen),
        lambda: other.media.derive(mine, Watermark(image)), lambda: other.media.purge_derivatives(image),
        lambda: other.media.regenerate_derivatives(image.id),
        lambda: other.presets.create("marked", Watermark(image)),
    ):  # fmt: skip
        with pytest.raises(NotFoundError):
            call()
    assert other.media.derivatives(mine) == ()


def test_a_watermark_is_an_image_of_the_tenant(library: Library, image: Image) -> None:
    mark = library.media.add(samples.image("PNG", color="black"))
    sound = library.media.add(samples.wav())
    assert isinstance(mark, Image)

    made = library.media.derive(image, Watermark(mark, "center", size=1, opacity=1, margin=0), format="png")

    assert Pillow.open(io.BytesIO(library.media.read(made))).getpixel((150, 100)) == (0, 0, 0)
    with pytest.raises(NotFoundError, match=f"no image {sound.id}"):
        library.media.derive(image, Watermark(sound.id))
    library.media.delete(mark)
    assert library.media.derive(image, Watermark(mark, "center", size=1, opacity=1, margin=0), format="png") == made
    with pytest.raises(NotFoundError, match=f"no image {mark.id}"):
        library.media.derive(image, Watermark(mark))


def test_a_picture_of_any_item(library: Library, image: Image) -> None:
    items: list[Media] = [
        image, library.media.add(samples.video()), library.media.add(samples.wav()),
        library.media.add(samples.pdf(["one", "two"])),
    ]  # fmt: skip
    made = [library.media.thumbnail(item, side=60) for item in items]

    assert [max(each.width or 0, each.height or 0) for each in made] == [60] * 4
    assert [library.media.thumbnail(item.id, side=60) for item in items] == made
    video, sound, document = items[1:]
    assert library.media.thumbnail(video, side=60, at_s=0.5).operations.startswith("thumbnail_side-60_at-0.5~")
    assert library.media.thumbnail(video, side=60, at_s=1e9) == library.media.thumbnail(video, side=60, at_s=1e8)
    assert library.media.thumbnail(document, side=60, page=2).operations.startswith("thumbnail_side-60_page-2~")
    assert library.media.thumbnail(document, side=60, page=1) == made[3]
    refused: tuple[Callable[[], object], ...] = (
        lambda: library.media.thumbnail(image, at_s=1), lambda: library.media.thumbnail(sound, page=1),
        lambda: library.media.thumbnail(document, page=3), lambda: library.media.thumbnail(video, at_s=-1),
        lambda: library.media.thumbnail(image, side=0), lambda: library.media.thumbnail(image, side=60_000),
        lambda: library.media.derive(sound.id, Resize(5)),
    )  # fmt: skip
    for call in refused:
        with pytest.raises(InvalidError):
            call()


def test_a_storyboard_is_made_once_and_goes_with_its_video(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, image: Image
) -> None:
    video = library.media.add(samples.video(seconds=2), filename="film.mp4")
    made = library.media.storyboard(video, side=32)

    assert library.media.storyboard(video.id, side=32) == made
    assert library.media.storyboard(video, side=32, interval_s=0.5).sheet != made.sheet
    assert len(made.tiles) == 2
    assert get(app, library.media.url(made.sheet))[0] == "200 OK"
    assert mindia.Storyboard.of(library.media.derivatives(video)[0]) == made
    library.media.regenerate_derivatives(video)
    app.run_until_idle()
    again = library.media.storyboard(video, side=32)
    assert again.sheet.id != made.sheet.id
    assert again.tiles == made.tiles
    assert len([each for each in library.media.derivatives(video) if each.operations.startswith("tiles_")]) == 2
    for call in (
        lambda: library.media.storyboard(image), lambda: library.media.storyboard(video, interval_s=0.01),
        lambda: library.media.storyboard(video, side=5), lambda: library.media.storyboard(video, format="bmp"),
        lambda: library.media.derive(image, Transformation.parse(made.sheet.operations)),
    ):  # fmt: skip
        with pytest.raises(InvalidError):
            call()
    library.media.delete(video)
    app.run_until_idle()
    app.maintenance.remove_deleted()
    assert derived(storage, tenant) == set()


def test_a_storyboard_that_there_was_no_time_for_says_so_until_it_is_made_again(
    database_url: str, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = samples.video(codec="mpeg4", audio_codec=None, seconds=9, frame_rate=1)
    film = ffmpeg("mp4", "-i {film}", "-c:v mpeg4 -g 2 -sc_threshold 1000000000", film=film)
    with mindia.connect(database_url, storage=storage, settings=Settings(isolate_parsers=False)) as app:
        library = app.library(app.tenants.create("Acme"))
        video = library.media.add(film, filename="film.mp4")
        with monkeypatch.context() as patch:
            patch.setattr("mindia.media.storyboards._SHARE", 0.0)
            made = library.media.storyboard(video, interval_s=3)
        assert not made.is_exact
        assert library.media.storyboard(video, interval_s=3) == made
        assert mindia.Storyboard.of(library.media.derivatives(video)[0]) == made

        library.media.regenerate_derivatives(video)
        app.run_until_idle()

        again = library.media.storyboard(video, interval_s=3)
        assert again.is_exact
        assert again.tiles == made.tiles
        assert [each for each in library.media.derivatives(video) if each.s3_prefix is None] == [again.sheet]


def test_a_preview_is_the_thumbnail_that_is_there(library: Library) -> None:
    image = library.media.add(samples.image(width=1200, height=800))
    sound = library.media.add(samples.wav())
    previews = MediaPreviews(library.media._context)
    assert previews.of(sound) is None
    before = previews.of(image)
    assert before is not None
    assert before.startswith(b"\xff\xd8")

    for item in (image, sound):
        library.media.thumbnail(item, side=1000)
        small = library.media.thumbnail(item, side=200)
        assert previews.of(item) == library.media.read(small)
    assert "data:image/webp;base64," in library.show(image).html


def test_a_placeholder_is_a_tiny_picture_in_an_address(library: Library, image: Image) -> None:
    for item in (image, library.media.add(samples.video())):
        head, _, content = library.media.placeholder(item).partition(",")

        assert head == "data:image/webp;base64"
        assert len(content) < 500
        assert max(Pillow.open(io.BytesIO(b64decode(content))).size) == 16
        assert library.media.placeholder(item.id).endswith(content)
        assert MediaPreviews(library.media._context).of(item) != b64decode(content)


def test_a_preset_has_a_name_and_says_what_is_left_open(library: Library, image: Image) -> None:
    card = library.presets.create("card", Resize(40, 40, fit="cover"), format="png")
    dark = library.presets.create("dark-card", Grayscale(), preset="card", quality=30)

    assert library.presets.get("card") == card
    assert library.presets.list() == (card, dark)
    made = library.media.derive(image, preset="dark-card", format="jpeg")
    assert made.operations.startswith("resize_width-40_height-40_fit-cover~grayscale~to_format-jpeg_quality-30")
    assert library.media.derive(image, Blur(), preset="card").operations.endswith("~blur~to_format-png")
    library.presets.update("card", Resize(20))
    assert library.media.derive(image, preset="card").width == 20
    assert library.media.derive(image, preset="dark-card", format="jpeg").width == 20
    with pytest.raises(AlreadyExistsError, match="a preset of this name"):
        library.presets.create("card", Blur())
    with pytest.raises(ConflictError, match="'dark-card' goes on from 'card'"):
        library.presets.delete("card")
    library.presets.delete("dark-card")
    library.presets.delete("card")
    assert library.presets.list() == ()


def test_a_preset_does_not_name_itself(library: Library, image: Image) -> None:
    with pytest.raises(InvalidError, match="'mine' names itself: mine -> mine"):
        library.presets.create("mine", Blur(), preset="mine")
    library.presets.create("a", Blur())
    library.presets.create("b", Blur(), preset="a")
    library.presets.create("c", Blur(), preset="b")
    with pytest.raises(InvalidError, match="a -> c -> b -> a"):
        library.presets.update("a", preset="c")
    with pytest.raises(InvalidError, match="'a' names itself"):
        library.presets.update("a", Transformation(preset="a"))
    assert library.media.derive(image, preset="c").operations.startswith("blur~blur~blur~")


def test_a_preset_that_is_not_there_is_not_found(library: Library, image: Image) -> None:
    for call in (
        lambda: library.media.derive(image, preset="card"), lambda: library.presets.get("card"),
        lambda: library.presets.update("card", Blur()), lambda: library.presets.delete("card"),
        lambda: library.presets.create("more", preset="card"),
    ):  # fmt: skip
        with pytest.raises(NotFoundError, match="'card'"):
            call()
    with pytest.raises(InvalidError, match="single picture"):
        library.presets.create("moving", format="jpeg", animated=True)


def test_presets_of_a_great_depth_are_refused(library: Library) -> None:
    library.presets.create("p0", Blur())
    for number in range(1, 10):
        library.presets.create(f"p{number}", preset=f"p{number - 1}")
    with pytest.raises(InvalidError, match="10 times"):
        library.presets.create("p10", preset="p9")


def test_a_viewer_sees_what_is_there_and_makes_nothing(
    app: Mindia, library: Library, tenant: Tenant, host: Host, image: Image
) -> None:
    made = library.media.derive(image, Resize(50))
    theirs = app.library(tenant, user=add_user(host, library, UserRole.VIEWER))

    assert theirs.media.derive(image, Resize(50)) == made
    assert theirs.media.read(made) == library.media.read(made)
    with pytest.raises(PermissionDeniedError):
        theirs.media.derive(image, Resize(51))
    assert (
        app.library(tenant, user=add_user(host, library, UserRole.MEMBER)).media.derive(image, Resize(51)).width == 51
    )


def test_what_is_made_in_a_transaction_is_there_when_that_is_committed(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, host: Host, image: Image
) -> None:
    with suppress(KeyError), library.transaction() as tx:
        tx.media.derive(image, Resize(50))
        assert len(tx.media.derivatives(image)) == 1
        raise KeyError
    assert library.media.derivatives(image) == ()
    sweep_all(app)
    assert nothing_is_left(host, library, storage, tenant)

    with library.transaction() as tx:
        added = tx.media.add(PHOTO)
        made = tx.media.derive(added.id, Resize(50))
        assert tx.media.derive(added.id, Resize(50)) == made
    assert library.media.derivatives(added) == (made,)


BAD: dict[str, tuple[Callable[[Library, Image], object], type[MindiaError]]] = {
    "cropped to nothing": (lambda library, image: library.media.derive(image, Crop(5, 5, x=300, y=0)), InvalidError),
    "too large": (
        lambda library, image: library.media.derive(image, Resize(16_000, 16_000, fit="contain")), TooLargeError
    ),
    "another kind": (lambda library, _: library.media.derive(library.media.add(samples.pdf()).id), InvalidError),
    "no operation": (
        lambda library, image: library.media.derive(image, "blur"),  # type: ignore[arg-type]
        InvalidError,
    ),
    "0 pixels": (lambda library, image: library.media.derive(image, Resize(0)), InvalidError),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error"), BAD.values(), ids=BAD)
def test_what_cannot_be_made_leaves_nothing(
    library: Library, tenant: Tenant, storage: LocalStorage, host: Host, image: Image,
    call: Callable[[Library, Image], object], error: type[MindiaError],
) -> None:  # fmt: skip
    with pytest.raises(error):
        call(library, image)
    assert nothing_is_left(host, library, storage, tenant)


def test_a_damaged_original_leaves_nothing(
    library: Library, tenant: Tenant, storage: LocalStorage, host: Host, image: Image
) -> None:
    storage.put(tenant.s3_bucket, image.s3_key, io.BytesIO(PHOTO[:400]), content_type="image/jpeg")
    with pytest.raises(CorruptMediaError):
        library.media.derive(image, Resize(50))
    storage.delete(tenant.s3_bucket, [image.s3_key])
    with pytest.raises(MindiaError):
        library.media.derive(image, Resize(50))
    assert nothing_is_left(host, library, storage, tenant)


class Full(MemoryStorage):
    """A store without room for what is derived."""

    def put(self, bucket: str, key: str, source: BinaryIO, **options: Any) -> None:
        if key.startswith("derived/"):
            raise StorageUnavailableError("no space left")
        super().put(bucket, key, source, **options)


def test_a_store_without_room_leaves_no_record(database_url: str, host: Host) -> None:
    with mindia.connect(database_url, storage=Full(), settings=SETTINGS) as app:
        library = app.library(app.tenants.create("Acme"))
        image = library.media.add(PHOTO)
        with pytest.raises(StorageUnavailableError):
            library.media.thumbnail(image)

        assert rows(host, library, "derivatives") == {}
        assert on_record(host, library) == 0


def test_a_temporary_folder_without_room_leaves_no_record(database_url: str, host: Host, tmp_path: Path) -> None:
    settings = Settings(spool_memory_bytes=100, spool_folder=tmp_path)
    with mindia.connect(database_url, storage=MemoryStorage(), settings=settings) as app:
        library = app.library(app.tenants.create("Acme"))
        image = library.media.add(PHOTO)
        tmp_path.chmod(0o700)
        tmp_path.rmdir()
        with pytest.raises(StorageUnavailableError, match=r"Settings\.spool_folder"):
            library.media.thumbnail(image)

        assert rows(host, library, "derivatives") == {}
        assert on_record(host, library) == 0


def test_purging_removes_pictures_and_nothing_else(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, image: Image
) -> None:
    another = library.media.add(samples.image(color="navy"))
    for item in (image, another):
        library.media.thumbnail(item)
        library.media.thumbnail(item, side=10)

    task = library.media.purge_derivatives(image)
    assert library.media.purge_derivatives(image).id == task.id
    app.run_until_idle()
    assert library.tasks.get(task.id).result == {"removed": 2}
    assert library.media.derivatives(image) == ()
    kept = library.media.derivatives(another)
    assert derived(storage, tenant) == {each.s3_key for each in kept}

    library.media.thumbnail(image)
    library.media.purge_derivatives()
    app.run_until_idle()
    assert derived(storage, tenant) == set()
    assert len(library.media.read(image)) == len(PHOTO)
    assert library.media.thumbnail(image).width == 300


def test_what_is_made_anew_takes_the_place_of_what_was_there(
    app: Mindia, library: Library, tenant: Tenant, storage: LocalStorage, image: Image
) -> None:
    mark = library.media.add(samples.image("PNG"))
    made = [library.media.thumbnail(image), library.media.derive(image, Watermark(mark.id))]
    shared = library.media.copy(image)
    library.media.delete(mark)
    library.media.delete(image)
    url = library.media.url(library.media.thumbnail(shared))

    task = library.media.regenerate_derivatives()
    app.run_until_idle()

    assert library.tasks.get(task.id).result == {"made": 1, "failed": 1}, "the watermark is gone"
    found = library.media.derivatives(shared)
    assert {each.operations for each in found} == {each.operations for each in made}
    assert {each.id for each in found} & {each.id for each in made} == {made[1].id}
    assert derived(storage, tenant) == {each.s3_key for each in found}
    assert get(app, url)[0] == "200 OK"
    assert app.maintenance.verify(tenant=tenant).is_clean


def test_what_has_been_made_since_is_not_made_again(app: Mindia, library: Library, image: Image) -> None:
    library.media.thumbnail(image)
    task = library.media.regenerate_derivatives(image)
    again = library.media.derive(image, Resize(5))

    app.run_until_idle()

    assert library.tasks.get(task.id).result == {"made": 1, "failed": 0}
    assert again in library.media.derivatives(image)


def test_what_was_made_of_what_has_expired_is_not_made_again(library: Library, image: Image, host: Host) -> None:
    library.media.thumbnail(image)
    with host.transaction():
        host.execute(
            "update mindia.images set expires_at = %s where id = %s",
            (datetime.now(UTC) - timedelta(seconds=1), image.id),
        )
    done = library.media._run_regenerate(RegenerateDerivatives(), lambda *_: None, since=datetime.now(UTC))
    assert done == {"made": 0, "failed": 0}
