"""Settings: frozen, with defaults that fit a small service."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import attrs

from mindia.errors import InvalidError

_MB = 1_000_000

_RETRY_WAITS = (
    timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2), timedelta(hours=5),
    timedelta(hours=10), timedelta(hours=14), timedelta(hours=20), timedelta(hours=24),
)  # fmt: skip


def _positive(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise InvalidError(f"{attribute.name} must be greater than 0, not {value!r}")


def _positive_time(_: object, attribute: attrs.Attribute[Any], value: timedelta) -> None:
    if value <= timedelta():
        raise InvalidError(f"{attribute.name} must be longer than nothing, not {value!r}")


def _networks(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    try:
        if not isinstance(value, tuple | list):
            raise ValueError("they are no tuple")  # noqa: TRY301, TRY004 - told like the others
        for network in value:
            ip_network(network)
    except (TypeError, ValueError) as error:
        raise InvalidError(
            f"{attribute.name} must be networks such as '10.2.0.0/16', not {value!r}: {error}"
        ) from error


def _whole(_: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**24:
        raise InvalidError(f"{attribute.name} must be a whole number of 1 to {2**24 - 1}, not {value!r}")


_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _positive_times(_: object, attribute: attrs.Attribute[Any], value: tuple[timedelta, ...]) -> None:
    if not isinstance(value, tuple) or not all(isinstance(each, timedelta) and each > timedelta() for each in value):
        raise InvalidError(f"{attribute.name} must be a tuple of times that are longer than nothing, not {value!r}")


def _masked(value: str | None) -> str:
    return "None" if value is None else "'***'"


def _all_masked(values: tuple[str, ...]) -> str:
    return f"({len(values)} of them)" if values else "()"


@attrs.frozen(kw_only=True)
class Settings:
    """What can be tuned. `Settings()` is a good start; `Settings.from_env()` reads the environment.

    Attributes:
        secret_key: One key of the host, from which the keys for signed URLs and for secrets at rest are derived; at
            least 16 characters. Never shown.
        previous_secret_keys: Keys that were `secret_key` before: secrets at rest can be read with them, until workers
            have encrypted them anew. Never shown.
        pool_size: Connections that are open at once, at most.
        pool_timeout_s: How long a call waits for a connection.
        prepare_threshold: After how many uses a statement is prepared; None, behind a proxy that pools transactions,
            prepares none.
        worker_role: The role of PostgreSQL that calls take on that go across tenants: those of workers and of
            maintenance, and `app.tenants`. None where the role that logs in may do that itself. See docs/security.md.
        max_image_bytes: Size limit of an image.
        max_video_bytes: Size limit of a video.
        max_audio_bytes: Size limit of an audio file.
        max_document_bytes: Size limit of a document.
        max_image_pixels: Limit of an image's width times its height.
        max_video_pixels: Limit of the width times the height of a frame of a video, as it is stored.
        max_video_seconds: How long a video may play.
        max_audio_seconds: How long an audio file may play.
        max_document_pages: How many pages a document may have.
        max_text_chars: How much text of a document is kept for search.
        max_derivative_pixels: Limit of the width times the height of a picture that is made of an item; for an animated
            one, of all its pictures together.
        keep_location: Whether the place where a picture was taken is read from its EXIF data.
        sanitize: Whether what files tell beside their content (EXIF data with places and serial numbers, XMP, comments)
            is removed before they are stored, without encoding them anew: see `mindia.media.sanitize` for the types.
        public_url: Where `mindia.serving.MediaFiles` is reached, for signed URLs: `https://example.org/media`.
        isolate_parsers: Whether files are parsed in child processes, which a hostile one may crash or keep busy without
            harm. Only for input that is trusted may it be False. A host whose `sys.executable` is no Python names one
            with `multiprocessing.set_executable`.
        parser_processes: How many files are parsed at once, each in a child process.
        parser_timeout: How long a file may keep its parser busy; a fifth of it goes to the text of a document at most.
        parser_memory_bytes: How much memory a parser may take, for its data.
        spool_folder: Where incoming bytes wait to be looked at, rows to be exported, and where videos are encoded; None
            is the system's temporary folder.
        spool_memory_bytes: Incoming bytes up to this size wait in memory.
        fetch_allow_private: Networks from which media may be added by URL although they are private (`10.2.0.0/16`); in
            the environment with commas between them.
        fetch_timeout: How long adding by URL may take.
        ffmpeg: The executable that encodes videos. None is the system's, or else that of the extra `video`.
        transcode_on_add: Whether a video that is added is encoded for streaming, by a task. Otherwise
            `library.media.transcode` is called for those that are to be.
        transcode_timeout: How long encoding a video may take.
        hls_ladder: The variants that a video gets, each if it is as tall: `("360p@800k", "720p@2800k")`, lines and
            bits per second. In the environment with commas between them.
        hls_segments: `ts` (MPEG transport stream) or `fmp4` (fragments of MP4, CMAF).
        hls_segment_s: How long segments are, in seconds.
        hls_preset: Of libx264: how much time goes into how good it looks at its size, `ultrafast` to `veryslow`.
        hls_max_frame_rate: A video with more frames in a second gets a half of them, or a third, and so on.
        staging_grace: How long bytes may lie in the store without a row that points at them.
        language: Of the words that are searched: a PostgreSQL text search configuration.
        argon2_time_cost: Passes of argon2id over its memory when a password is hashed. The defaults of these three are
            those of RFC 9106, section 4, for where memory is short.
        argon2_memory_kib: The memory, in KiB; each log-in that is under way takes as much.
        argon2_parallelism: Threads that work on one hash.
        max_login_failures: After so many failed log-ins with one e-mail address further ones are refused.
        login_lockout: For how long; failures are counted over as long a time.
        retry_base: Wait before the first retry of a task; each further one waits twice as long.
        retry_cap: The longest wait before a retry.
        heartbeat: How often a worker says that it lives.
        worker_timeout: A worker that was not heard of for so long is taken for dead.
        poll: How often an idle worker looks for work.
        listen: Whether workers listen, on a connection of their own, for tasks that are written while they wait. Behind
            a proxy that pools transactions there is nothing to hear, and they poll.
        task_retention: How long finished tasks are kept.
        webhook_retry_waits: Wait before each retry of a delivery; after the last one it has failed. The defaults are
            those of Standard Webhooks.
        webhook_disable_after: An endpoint is disabled once its attempts have failed for so long, all of them and with
            more than one event.
        webhook_retention: How long events that were delivered, or given up on, are kept with their attempts.
        webhook_url_lifetime: How long the signed URLs in events are good.
        webhook_allow_private: Networks that webhooks may be sent to although they are private (`("10.2.0.0/16",)`), or
            True for loopback and all private ones: for development and tests. See docs/webhooks.md.
        webhook_https_only: Whether endpoints must have HTTPS.
        webhook_timeout: How long a receiver has for its answer, up to its status, name look-up and connecting included.
        webhook_concurrency: How many deliveries a worker has under way at once. Those that have lasted a second already
            do not count, up to four times as many, so that receivers that hang hold up no others.
        webhook_lease: Deliveries of a worker that has died are sent by another one after this time.
        request_log_capacity: How many requests wait in memory to be written, in each process; further ones are dropped.
        request_log_retention: How long the log of requests is kept.
        maintenance: How often a worker removes the bytes of what was deleted or never added, and deleted tenants.
    """

    secret_key: str | None = attrs.field(default=None, repr=_masked)
    previous_secret_keys: tuple[str, ...] = attrs.field(default=(), repr=_all_masked)
    pool_size: int = attrs.field(default=10, validator=_positive)
    pool_timeout_s: float = attrs.field(default=30.0, validator=_positive)
    prepare_threshold: int | None = 5
    worker_role: str | None = None
    max_image_bytes: int = attrs.field(default=10 * _MB, validator=_positive)
    max_video_bytes: int = attrs.field(default=500 * _MB, validator=_positive)
    max_audio_bytes: int = attrs.field(default=100 * _MB, validator=_positive)
    max_document_bytes: int = attrs.field(default=50 * _MB, validator=_positive)
    max_image_pixels: int = attrs.field(default=100 * _MB, validator=_positive)
    max_video_pixels: int = attrs.field(default=35_389_440, validator=_positive)
    max_video_seconds: float = attrs.field(default=4.0 * 3600, validator=_positive)
    max_audio_seconds: float = attrs.field(default=12.0 * 3600, validator=_positive)
    max_document_pages: int = attrs.field(default=5000, validator=_positive)
    max_text_chars: int = attrs.field(default=500_000, validator=_positive)
    max_derivative_pixels: int = attrs.field(default=50 * _MB, validator=_positive)
    keep_location: bool = False
    sanitize: bool = False
    public_url: str | None = None
    isolate_parsers: bool = True
    parser_processes: int = attrs.field(default=2, validator=_positive)
    parser_timeout: timedelta = attrs.field(default=timedelta(seconds=20), validator=_positive_time)
    parser_memory_bytes: int = attrs.field(default=450 * _MB, validator=_positive)
    spool_folder: Path | None = None
    spool_memory_bytes: int = attrs.field(default=1 * _MB, validator=_positive)
    fetch_allow_private: tuple[str, ...] = attrs.field(default=(), validator=_networks)
    fetch_timeout: timedelta = attrs.field(default=timedelta(seconds=60), validator=_positive_time)
    ffmpeg: Path | None = None
    transcode_on_add: bool = True
    transcode_timeout: timedelta = attrs.field(default=timedelta(hours=12), validator=_positive_time)
    hls_ladder: tuple[str, ...] = ("360p@800k", "480p@1400k", "720p@2800k", "1080p@5000k")
    hls_segments: str = "ts"
    hls_segment_s: float = attrs.field(default=6.0, validator=_positive)
    hls_preset: str = "veryfast"
    hls_max_frame_rate: float = attrs.field(default=60.0, validator=_positive)
    staging_grace: timedelta = attrs.field(default=timedelta(hours=1), validator=_positive_time)
    language: str = "english"
    argon2_time_cost: int = attrs.field(default=3, validator=_whole)
    argon2_memory_kib: int = attrs.field(default=65_536, validator=_whole)
    argon2_parallelism: int = attrs.field(default=4, validator=_whole)
    max_login_failures: int = attrs.field(default=10, validator=_whole)
    login_lockout: timedelta = attrs.field(default=timedelta(minutes=15), validator=_positive_time)
    retry_base: timedelta = attrs.field(default=timedelta(seconds=5), validator=_positive_time)
    retry_cap: timedelta = attrs.field(default=timedelta(hours=1), validator=_positive_time)
    heartbeat: timedelta = attrs.field(default=timedelta(seconds=2), validator=_positive_time)
    worker_timeout: timedelta = attrs.field(default=timedelta(seconds=8), validator=_positive_time)
    poll: timedelta = attrs.field(default=timedelta(seconds=1), validator=_positive_time)
    listen: bool = True
    task_retention: timedelta = attrs.field(default=timedelta(days=30), validator=_positive_time)
    webhook_retry_waits: tuple[timedelta, ...] = attrs.field(default=_RETRY_WAITS, validator=_positive_times)
    webhook_disable_after: timedelta = attrs.field(default=timedelta(days=5), validator=_positive_time)
    webhook_retention: timedelta = attrs.field(default=timedelta(days=30), validator=_positive_time)
    webhook_url_lifetime: timedelta = attrs.field(default=timedelta(days=7), validator=_positive_time)
    webhook_allow_private: bool | tuple[str, ...] = False
    webhook_https_only: bool = False
    webhook_timeout: timedelta = attrs.field(default=timedelta(seconds=15), validator=_positive_time)
    webhook_concurrency: int = attrs.field(default=256, validator=_whole)
    webhook_lease: timedelta = attrs.field(default=timedelta(seconds=20), validator=_positive_time)
    request_log_capacity: int = attrs.field(default=20_000, validator=_whole)
    request_log_retention: timedelta = attrs.field(default=timedelta(days=90), validator=_positive_time)
    maintenance: timedelta = attrs.field(default=timedelta(seconds=10), validator=_positive_time)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.previous_secret_keys, tuple):
            raise InvalidError("previous_secret_keys must be a tuple of strings")
        keys = (*self.previous_secret_keys, *(() if self.secret_key is None else (self.secret_key,)))
        if any(not isinstance(key, str) or len(key) < 16 for key in keys):
            raise InvalidError(
                "secret_key must be a string of at least 16 characters: make one with secrets.token_urlsafe(32)"
            )
        if self.argon2_memory_kib < 8 * self.argon2_parallelism:
            raise InvalidError(
                f"argon2_memory_kib ({self.argon2_memory_kib}) must be at least 8 times argon2_parallelism "
                f"({self.argon2_parallelism})"
            )
        if self.worker_timeout <= 2 * self.heartbeat:
            raise InvalidError(
                f"worker_timeout ({self.worker_timeout}) must be more than twice heartbeat ({self.heartbeat}), "
                "or live workers are taken for dead"
            )

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read `MINDIA_POOL_SIZE` and the like; what is not set keeps its default. Durations are in seconds.

        Args:
            environment: Instead of `os.environ`.

        Raises:
            InvalidError: A value cannot be read.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, object] = {}
        for field in attrs.fields(cls):
            name = f"MINDIA_{field.name.upper()}"
            if name not in environment:
                continue
            try:
                values[field.name] = _parse(environment[name], str(field.type))
            except (ValueError, KeyError, OverflowError) as error:
                shown = "***" if "secret_key" in field.name else repr(environment[name])
                raise InvalidError(f"{name} is {shown}, which is not of the type {field.type}") from error
        return cls(**values)  # type: ignore[arg-type]  # the types were chosen by field


def _parse(text: str, kind: str) -> object:
    if "None" in kind and text.lower() in ("", "none"):
        return None
    if kind.startswith("bool |"):
        if text.strip().lower() in _BOOLEANS:
            return _BOOLEANS[text.strip().lower()]
        kind = kind.removeprefix("bool | ")
    if "tuple" in kind:
        each = kind.removeprefix("tuple[").removesuffix(", ...]")
        return tuple(_parse(part.strip(), each) for part in text.split(",") if part.strip())
    if "timedelta" in kind:
        return timedelta(seconds=float(text))
    if "Path" in kind:
        return Path(text)
    if kind == "bool":
        return _BOOLEANS[text.strip().lower()]
    if "float" in kind:
        return float(text)
    if "int" in kind:
        return int(text)
    return text
