"""Settings: good as they are, refused where they make no sense, and silent about secrets."""

from __future__ import annotations

import pickle
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from mindia import Settings
from mindia.errors import InvalidError, MindiaError

SECRET = "correct horse battery staple"


def test_settings_need_no_arguments() -> None:
    settings = Settings()

    assert settings.secret_key is None
    assert settings.max_image_bytes == 10_000_000
    assert settings.max_video_bytes == 500_000_000
    assert settings.max_audio_bytes == 100_000_000
    assert settings.max_document_bytes == 50_000_000
    assert settings.staging_grace == timedelta(hours=1)


def test_settings_cannot_be_changed_but_evolved() -> None:
    settings = Settings()

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        settings.pool_size = 3  # type: ignore[misc]  # that is what is tested

    assert attrs.evolve(settings, pool_size=3).pool_size == 3
    assert settings == Settings()


def test_settings_survive_pickling() -> None:
    settings = Settings(secret_key=SECRET, pool_size=3, spool_folder=Path("/tmp"))

    assert pickle.loads(pickle.dumps(settings)) == settings


def test_every_setting_is_documented() -> None:
    documented = re.findall(r"^ {8}(\w+): ", Settings.__doc__ or "", re.MULTILINE)

    assert documented == [field.name for field in attrs.fields(Settings)]


@pytest.mark.parametrize("show", [repr, str, "{!r}".format], ids=["repr", "str", "format"])
def test_the_secret_key_is_never_shown(show: Any) -> None:
    assert SECRET not in show(Settings(secret_key=SECRET))
    assert "secret_key='***'" in show(Settings(secret_key=SECRET))
    assert "secret_key=None" in show(Settings())


NUMBERS = [
    "pool_size", "pool_timeout_s", "max_image_bytes", "max_video_bytes", "max_audio_bytes", "max_document_bytes",
    "max_image_pixels", "max_video_pixels", "max_video_seconds", "max_audio_seconds", "max_document_pages",
    "max_text_chars", "spool_memory_bytes", "argon2_time_cost", "argon2_memory_kib", "argon2_parallelism",
    "max_login_failures",
]  # fmt: skip
TIMES = [
    "staging_grace", "login_lockout", "retry_base", "retry_cap", "heartbeat", "worker_timeout", "poll", "maintenance",
]  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_number_that_makes_no_sense_is_refused_by_its_name(name: str, value: float) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(InvalidError, match=rf"{name} .*{value!r}"):
        Settings(**arguments)


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [timedelta(), timedelta(seconds=-1)])
def test_a_time_that_makes_no_sense_is_refused_by_its_name(name: str, value: timedelta) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(InvalidError, match=name):
        Settings(**arguments)


@pytest.mark.parametrize("name", ["argon2_time_cost", "argon2_memory_kib", "argon2_parallelism", "max_login_failures"])
@pytest.mark.parametrize("value", [1.5, "3", None, True, 2**24], ids=repr)
def test_a_whole_number_is_one_and_of_a_size_that_argon2_takes(name: str, value: object) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(InvalidError, match=f"{name} must be a whole number"):
        Settings(**arguments)


def test_argon2_is_given_the_memory_that_its_threads_need() -> None:
    with pytest.raises(InvalidError, match=r"argon2_memory_kib \(31\) must be at least 8 times argon2_parallelism"):
        Settings(argon2_memory_kib=31)

    Settings(argon2_memory_kib=32)


@pytest.mark.parametrize("wrong", ["hunter2", "k" * 15, "", 1234567890123456, b"k" * 16])
def test_a_secret_key_that_is_short_or_no_text_is_refused_without_being_shown(wrong: Any) -> None:
    with pytest.raises(InvalidError, match=r"secret_key .* at least 16 characters") as raised:
        Settings(secret_key=wrong)

    assert not wrong or str(wrong) not in str(raised.value)
    assert Settings(secret_key="k" * 16).secret_key == "k" * 16


@pytest.mark.parametrize("heartbeat", [timedelta(seconds=5), timedelta(seconds=6)])
def test_a_heartbeat_that_would_make_live_workers_look_dead_is_refused(heartbeat: timedelta) -> None:
    with pytest.raises(InvalidError, match="heartbeat"):
        Settings(heartbeat=heartbeat, worker_timeout=timedelta(seconds=10))

    Settings(heartbeat=timedelta(seconds=4.9), worker_timeout=timedelta(seconds=10))


def test_the_environment_says_what_differs() -> None:
    settings = Settings.from_env(
        {
            "MINDIA_SECRET_KEY": SECRET,
            "MINDIA_POOL_SIZE": "3",
            "MINDIA_POOL_TIMEOUT_S": "1.5",
            "MINDIA_PREPARE_THRESHOLD": "none",
            "MINDIA_SPOOL_FOLDER": "/var/tmp",
            "MINDIA_STAGING_GRACE": "90.5",
            "MINDIA_LANGUAGE": "german",
            "MINDIA_SOMETHING_ELSE": "x",
            "POOL_SIZE": "7",
        }
    )

    assert settings == Settings(
        secret_key=SECRET,
        pool_size=3,
        pool_timeout_s=1.5,
        prepare_threshold=None,
        spool_folder=Path("/var/tmp"),
        staging_grace=timedelta(seconds=90.5),
        language="german",
    )
    assert isinstance(settings.spool_folder, Path)


@pytest.mark.parametrize("empty", ["", "none", "None"])
def test_what_may_be_none_can_be_set_to_none(empty: str) -> None:
    settings = Settings.from_env({"MINDIA_PREPARE_THRESHOLD": empty, "MINDIA_SPOOL_FOLDER": empty})

    assert settings.prepare_threshold is None
    assert settings.spool_folder is None


def test_every_setting_can_come_from_the_environment() -> None:
    values = {
        "str": "ten characters and more",
        "str | None": SECRET,
        "int": "77",
        "int | None": "7",
        "float": "7.5",
        "Path | None": "/var/tmp",
        "timedelta": "7.5",
        "bool | tuple[str, ...]": "10.0.0.0/8",
        "tuple[str, ...]": f"{SECRET}, {SECRET}",
        "tuple[timedelta, ...]": "7.5, 60",
    }
    for field in attrs.fields(Settings):
        value = ("off" if field.default else "on") if str(field.type) == "bool" else values[str(field.type)]
        if field.name == "fetch_allow_private":
            value = "10.2.0.0/16, fd00::/8"
        environment = {f"MINDIA_{field.name.upper()}": value}
        if field.name == "worker_timeout":
            environment["MINDIA_HEARTBEAT"] = "1"
        if field.name == "heartbeat":
            environment["MINDIA_WORKER_TIMEOUT"] = "60"

        changed = getattr(Settings.from_env(environment), field.name)

        assert changed != getattr(Settings(), field.name), field.name


@pytest.mark.parametrize("networks", [("10.0.0.1/8",), ("localhost",), ("",), "10.0.0.0/8", 5])
def test_networks_that_are_none_are_refused(networks: Any) -> None:
    with pytest.raises(InvalidError, match="fetch_allow_private"):
        Settings(fetch_allow_private=networks)


def test_the_environment_of_the_process_is_read_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINDIA_POOL_SIZE", "3")

    assert Settings.from_env().pool_size == 3
    assert Settings().pool_size == 10
    assert Settings.from_env({}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MINDIA_POOL_SIZE", "many"),
        ("MINDIA_POOL_SIZE", ""),
        ("MINDIA_POOL_SIZE", "3.5"),
        ("MINDIA_POOL_SIZE", "none"),
        ("MINDIA_POOL_TIMEOUT_S", "soon"),
        ("MINDIA_POOL_TIMEOUT_S", "nan"),
        ("MINDIA_STAGING_GRACE", "1h"),
        ("MINDIA_STAGING_GRACE", "nan"),
        ("MINDIA_STAGING_GRACE", "inf"),
        ("MINDIA_STAGING_GRACE", "1e300"),
        ("MINDIA_PREPARE_THRESHOLD", "never"),
        ("MINDIA_MAX_IMAGE_BYTES", "10MB"),
        ("MINDIA_MAX_IMAGE_BYTES", "0"),
        ("MINDIA_HEARTBEAT", "-1"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(InvalidError, match=rf"(?i){name.removeprefix('MINDIA_')}"):
        Settings.from_env({name: value})


def test_a_secret_from_the_environment_is_not_shown_when_it_is_refused() -> None:
    with pytest.raises(MindiaError) as raised:
        Settings.from_env({"MINDIA_SECRET_KEY": "hunter2"})

    assert "hunter2" not in repr(raised.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("0", False),
        ("10.2.0.0/16", ("10.2.0.0/16",)),
        ("10.0.0.0/8, ::1/128", ("10.0.0.0/8", "::1/128")),
    ],
)
def test_private_networks_for_webhooks_are_all_none_or_named(text: str, value: object) -> None:
    assert Settings.from_env({"MINDIA_WEBHOOK_ALLOW_PRIVATE": text}).webhook_allow_private == value
