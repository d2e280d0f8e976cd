"""Settings: defaults, limits, the environment, and a secret that is not shown."""

from __future__ import annotations

import traceback
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from mindia import Settings
from mindia.errors import InvalidError

_SECRET = "correct-horse-battery-staple"


def test_the_secret_key_is_not_shown() -> None:
    settings = Settings(secret_key=_SECRET)

    assert settings.secret_key == _SECRET
    assert "secret_key='***'" in repr(settings)
    assert _SECRET not in f"{settings!r} {settings!s}"
    assert "secret_key=None" in repr(Settings())


@pytest.mark.parametrize("wrong", ["too-short", "", 1234567890123456])
def test_a_secret_key_that_is_too_short_is_refused_and_not_shown(wrong: str) -> None:
    with pytest.raises(InvalidError, match="secret_key must be a string of at least 16 characters") as raised:
        Settings(secret_key=wrong)
    assert not wrong or str(wrong) not in "".join(traceback.format_exception_only(raised.value))


def test_settings_are_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Settings().pool_size = 3  # type: ignore[misc]  # what is tested


def test_settings_are_read_from_an_environment_and_keep_their_defaults_elsewhere() -> None:
    settings = Settings.from_env(
        {
            "MINDIA_SECRET_KEY": _SECRET,
            "MINDIA_POOL_SIZE": "3",
            "MINDIA_POOL_TIMEOUT_S": "2.5",
            "MINDIA_PREPARE_THRESHOLD": "none",
            "MINDIA_SPOOL_FOLDER": "/var/spool",
            "MINDIA_STAGING_GRACE": "90",
            "MINDIA_LANGUAGE": "german",
            "POOL_SIZE": "7",
        }
    )

    assert settings == Settings(
        secret_key=_SECRET,
        pool_size=3,
        pool_timeout_s=2.5,
        prepare_threshold=None,
        spool_folder=Path("/var/spool"),
        staging_grace=timedelta(seconds=90),
        language="german",
    )
    assert Settings.from_env({}) == Settings()


def test_every_setting_can_be_read_from_an_environment() -> None:
    environment = {}
    for field in attrs.fields(Settings):
        value = getattr(Settings(), field.name)
        text = str(value.total_seconds() if isinstance(value, timedelta) else value)
        environment[f"MINDIA_{field.name.upper()}"] = text

    assert Settings.from_env(environment) == Settings()


def test_the_environment_of_the_process_is_read_only_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINDIA_POOL_SIZE", "4")

    assert Settings.from_env().pool_size == 4
    assert Settings().pool_size == 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MINDIA_POOL_SIZE", "many"),
        ("MINDIA_POOL_SIZE", "2.5"),
        ("MINDIA_POOL_SIZE", "0"),
        ("MINDIA_POOL_SIZE", ""),
        ("MINDIA_POOL_TIMEOUT_S", "-1"),
        ("MINDIA_POOL_TIMEOUT_S", "nan"),
        ("MINDIA_STAGING_GRACE", "1h"),
        ("MINDIA_STAGING_GRACE", "0"),
        ("MINDIA_STAGING_GRACE", "inf"),
        ("MINDIA_HEARTBEAT", "60"),
    ],
)
def test_a_value_of_the_environment_that_makes_no_sense_is_an_error_that_names_it(name: str, value: str) -> None:
    with pytest.raises(InvalidError, match=f"(?i){name.removeprefix('MINDIA_')}"):
        Settings.from_env({name: value})
