"""Where the library is, and how it is set: from flags, the environment and a TOML file, in this order."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mindia.errors import InvalidError

if TYPE_CHECKING:
    from mindia.config import Settings

CONFIG_FILE = "mindia.toml"

_PLACES = ("app", "home", "database_url")
"""Each says by itself which library it is; only one of them may be given in one place."""

_TEXTS = (*_PLACES, "owner_url", "storage", "old_storage", "tenant")
_TABLES = ("settings", "embedder", "describer")


@attrs.frozen(kw_only=True)
class Flags:
    """What the command line says of the library, before the environment and the file are looked at.

    Attributes:
        config: The TOML file; by default `mindia.toml` here, where there is one.
        home: The folder of an embedded library.
        database_url: Connection string of a server.
        storage: A folder, or `s3://bucket/prefix?endpoint=…`.
        app: `module:name` of a `Mindia`, or of a function that returns one.
        tenant: Name or id.
        settings: `name=value` for fields of `Settings`.
    """

    config: str | None = None
    home: str | None = None
    database_url: str | None = None
    storage: str | None = None
    app: str | None = None
    tenant: str | None = None
    settings: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Configuration:
    """What is in force.

    Attributes:
        app: `module:name` of the host's application, or None.
        home: The folder of an embedded library, or None.
        database_url: Connection string of a server, or None. Never shown.
        owner_url: Of the role that owns the tables, or None. Never shown.
        storage: A folder or an address, or None.
        old_storage: Where objects are while they are moved to `storage`, or None.
        tenant: Name or id of the tenant, or None.
        settings: Limits and times.
        embedder: `type` and arguments of the embedder, or None.
        describer: The same of the describer.
        file: The TOML file that was read, or None.
        import_folder: Where the module of `app` is looked for.
    """

    app: str | None
    home: Path | None
    database_url: str | None = attrs.field(repr=False)
    owner_url: str | None = attrs.field(repr=False)
    storage: str | None
    old_storage: str | None
    tenant: str | None
    settings: Settings
    embedder: Mapping[str, Any] | None
    describer: Mapping[str, Any] | None
    file: Path | None
    import_folder: Path

    @classmethod
    def read(cls, flags: Flags, environment: Mapping[str, str] | None = None) -> Configuration:
        """Read the environment and the file, and put together what is said there and by flags.

        Args:
            flags: What the command line says.
            environment: Instead of `os.environ`.

        Raises:
            InvalidError: Something is not what it should be.
        """
        environment = os.environ if environment is None else environment
        file, from_file = _file(flags.config or environment.get("MINDIA_CONFIG") or None)
        folder = Path.cwd() if file is None else file.parent
        from_environment = {
            name: environment[variable] for name in _TEXTS if environment.get(variable := f"MINDIA_{name.upper()}")
        }
        from_flags = {name: value for name in _TEXTS if (value := getattr(flags, name, None)) is not None}
        check_without_password(from_flags.get("database_url"))
        sources = (from_flags, from_environment, {name: from_file[name] for name in _TEXTS if name in from_file})
        place_source = next((source for source in sources if _place(source) is not None), {})
        place = _place(place_source)
        found: dict[str, str] = {}
        for source in reversed(sources):
            found |= source
        is_from_file = place_source is sources[-1]
        for name in ("storage", "old_storage"):
            if name in found and name not in from_flags | from_environment:
                found[name] = _from_folder(found[name], folder)
        home = found["home"] if place == "home" else None
        return cls(
            app=found["app"] if place == "app" else None,
            home=None if home is None else (folder / Path(home).expanduser() if is_from_file else Path(home)),
            database_url=found["database_url"] if place == "database_url" else None,
            owner_url=found.get("owner_url"),
            storage=found.get("storage"),
            old_storage=found.get("old_storage"),
            tenant=found.get("tenant"),
            settings=_settings(flags.settings, environment, from_file.get("settings", {}), file),
            embedder=from_file.get("embedder"),
            describer=from_file.get("describer"),
            file=file,
            import_folder=folder if is_from_file else Path.cwd(),
        )


def check_without_password(url: str | None) -> None:
    """Refuse a connection string with a password on the command line, where other users of the machine can read it.

    Raises:
        InvalidError: It has one, or is no connection string.
    """
    if url is None:
        return
    if _parts(url).get("password"):
        raise InvalidError(
            f"--database {redacted(url)} has a password, which others can read on the command line: leave it out and "
            "give --ask-password, or put the whole into MINDIA_DATABASE_URL"
        )


def redacted(url: str) -> str:
    """Return a connection string without its secrets."""
    from psycopg.conninfo import make_conninfo

    try:
        parts = _parts(url)
    except InvalidError:
        return "***"
    shown = make_conninfo("", **(parts | {name: "***" for name in parts if "password" in name}))
    if not url.startswith(("postgresql://", "postgres://")):
        return shown
    user = f"{parts['user']}{':***' if 'password' in parts else ''}@" if "user" in parts else ""
    port = f":{parts['port']}" if "port" in parts else ""
    return f"postgresql://{user}{parts.get('host', '')}{port}/{parts.get('dbname', '')}"


def _parts(url: str) -> dict[str, str]:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        return {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except ProgrammingError:  # its message repeats what may be a secret
        raise InvalidError(
            "the connection string of the database is none: postgresql://user@host:5432/name, or host=… dbname=…"
        ) from None


def _file(path: str | None) -> tuple[Path | None, dict[str, Any]]:
    file = Path(CONFIG_FILE if path is None else path).expanduser().absolute()
    if path is None and not file.is_file():
        return None, {}
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InvalidError(f"the configuration {file} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"{file} is no TOML: {error}") from error
    _check_names(values, (*_TEXTS, *_TABLES), where=f"{file}")
    for name, value in values.items():
        wanted: type = dict if name in _TABLES else str
        if not isinstance(value, wanted):
            raise InvalidError(f"{file}: {name} must be a {'table' if wanted is dict else 'text'}, not {value!r}")
    return file, values


def _check_names(values: Mapping[str, object], known: Sequence[str], *, where: str) -> None:
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InvalidError(
                f"{where}: there is no {name!r}"
                + (f"; is {near[0]!r} meant?" if near else f"; known: {', '.join(known)}")
            )


def _place(source: Mapping[str, str]) -> str | None:
    given = [name for name in _PLACES if name in source]
    if len(given) > 1:
        raise InvalidError(f"{' and '.join(given)} each name a library: give one of them")
    return next(iter(given), None)


def _from_folder(storage: str, folder: Path) -> str:
    return storage if re.match(r"[a-z0-9]+:", storage) else str(folder / Path(storage).expanduser())


def _settings(
    flags: Sequence[str], environment: Mapping[str, str], from_file: Mapping[str, Any], file: Path | None
) -> Settings:
    from mindia.config import Settings

    names = [field.name for field in attrs.fields(Settings)]
    _check_names(from_file, names, where=f"{file}, [settings]")
    texts = {f"MINDIA_{name.upper()}": _text(name, value, file) for name, value in from_file.items()}
    given = dict(_pair(flag) for flag in flags)
    _check_names(given, names, where="--set")
    if secret := next((name for name in given if "secret" in name), None):
        raise InvalidError(
            f"--set {secret}: others can read it on the command line; set MINDIA_{secret.upper()} instead"
        )
    for found, where in (
        (texts, f"{file}"),
        ({f"MINDIA_{name.upper()}": value for name, value in given.items()}, "--set"),
    ):
        try:
            Settings.from_env(found)
        except InvalidError as error:
            named = re.sub(r"^MINDIA_(\w+)", lambda match: match[1].lower(), str(error))
            raise InvalidError(f"{where}: {named}") from error
    overriding = {f"MINDIA_{name.upper()}": value for name, value in given.items()}
    return Settings.from_env(texts | dict(environment) | overriding)


def _pair(flag: str) -> tuple[str, str]:
    name, sign, value = flag.partition("=")
    if not sign:
        raise InvalidError(f"--set takes name=value, not {flag!r}")
    return name.strip().replace("-", "_"), value


def _text(name: str, value: object, file: Path | None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
        return ",".join(map(str, value))
    raise InvalidError(f"{file}, [settings]: {name} must be a text, a number, true, false or a list of these")
