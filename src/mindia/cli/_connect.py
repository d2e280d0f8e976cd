"""Opening the library that the configuration names."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import UUID

from mindia.cli._settings import CONFIG_FILE, Configuration
from mindia.errors import InvalidError, NotFoundError

if TYPE_CHECKING:
    from mindia import Mindia, Tenant
    from mindia.describing.base import Describer
    from mindia.embedding.base import Embedder
    from mindia.storage.base import Storage

_S3_OPTIONS = {
    "endpoint": "endpoint_url",
    "public_endpoint": "public_endpoint_url",
    "region": "region",
    "profile": "profile",
    "addressing": "addressing",
    "public_url": "public_url",
    "storage_class": "storage_class",
    "server_side_encryption": "server_side_encryption",
    "kms_key_id": "kms_key_id",
}

_Addressing = Literal["auto", "path", "virtual"]

_EMBEDDERS = {
    "lexical": ("mindia.embedding.lexical", "LexicalEmbedder"),
    "openai-compatible": ("mindia.embedding.openai_compatible", "OpenAICompatibleEmbedder"),
    "sentence-transformer": ("mindia.embedding.sentence_transformer", "SentenceTransformerEmbedder"),
    "fastembed": ("mindia.embedding.fastembed", "FastEmbedEmbedder"),
}
_DESCRIBERS = {
    "metadata": ("mindia.describing.metadata", "MetadataDescriber"),
    "openai-compatible": ("mindia.describing.openai_compatible", "OpenAICompatibleDescriber"),
}


def opened(configuration: Configuration, *, password: str | None = None) -> Mindia:
    """Return the application that the configuration names.

    Args:
        configuration: What is in force.
        password: Of the role that logs in, where it was asked for.

    Raises:
        InvalidError: Nothing is named, or something is not what it should be.
        MindiaError: It cannot be opened.
    """
    from mindia.app import connect, local

    if configuration.app is not None:
        return _of_host(configuration.app, configuration.import_folder)
    storage = _storage_of(configuration)
    embedder: Embedder | None = _made("embedder", configuration.embedder, _EMBEDDERS)
    describer: Describer | None = _made("describer", configuration.describer, _DESCRIBERS)
    if configuration.home is not None:
        return local(
            configuration.home,
            storage=storage,
            embedder=embedder,
            describer=describer,
            settings=configuration.settings,
        )
    if configuration.database_url is None:
        raise InvalidError(
            "nothing says where the library is: make one with `mindia init`, or name it with --home, --database or "
            f"--app, the environment (MINDIA_HOME, MINDIA_DATABASE_URL, MINDIA_APP) or {CONFIG_FILE}"
        )
    if storage is None:
        raise InvalidError(
            "a database needs a storage: --storage FOLDER or 's3://bucket?endpoint=https://…', MINDIA_STORAGE or "
            f"storage in {CONFIG_FILE}"
        )
    url = configuration.database_url
    if password is not None:
        from psycopg.conninfo import make_conninfo

        url = make_conninfo(url, password=password)
    return connect(
        url,
        storage=storage,
        embedder=embedder,
        describer=describer,
        owner=configuration.owner_url,
        settings=configuration.settings,
    )


def _storage_of(configuration: Configuration) -> Storage | None:
    storage = None if configuration.storage is None else storage_of(configuration.storage)
    if configuration.old_storage is None:
        return storage
    if storage is None:
        raise InvalidError("old_storage says where objects were, so storage must say where they are to be")
    from mindia.storage.moving import MovingStorage

    return MovingStorage(storage_of(configuration.old_storage), storage)


def storage_of(address: str) -> Storage:
    """Return the object store at an address: a folder, or `s3://bucket/prefix?endpoint=…`.

    Raises:
        InvalidError: It is none.
    """
    from mindia.storage.local import LocalStorage

    scheme = match[1] if (match := re.match(r"([a-z0-9]+):", address)) else ""
    if scheme == "s3":
        return _s3(address)
    if scheme == "file":
        parts = urlsplit(address)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise InvalidError(f"{address!r} names no folder here: file:///srv/objects")
        return LocalStorage(unquote(parts.path))
    if scheme:
        raise InvalidError(f"{address.partition('?')[0]!r} is no storage: a folder, or s3://bucket?endpoint=https://…")
    return LocalStorage(Path(address).expanduser())


def _s3(address: str) -> Storage:
    from mindia.storage.s3 import S3Storage

    parts = urlsplit(address)
    if "@" in parts.netloc:
        raise InvalidError(
            "the address of the storage has credentials: leave them to AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or to a profile"
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in (*_S3_OPTIONS, "create_buckets"):
            raise InvalidError(f"s3:// has no option {name!r}; known: {', '.join((*_S3_OPTIONS, 'create_buckets'))}")
    if options.get("addressing", "auto") not in get_args(_Addressing):
        raise InvalidError(f"addressing must be one of {', '.join(get_args(_Addressing))}")
    creates = options.pop("create_buckets", "true").lower()
    if creates not in ("true", "false"):
        raise InvalidError(f"create_buckets must be true or false, not {creates!r}")
    arguments: dict[str, Any] = {_S3_OPTIONS[name]: value for name, value in options.items()}
    prefix = unquote(parts.path).strip("/")
    return S3Storage(
        bucket=parts.netloc or None,
        prefix=f"{prefix}/" if prefix else "",
        create_buckets=creates == "true",
        **arguments,
    )


def tenant_of(app: Mindia, wanted: str | None) -> Tenant:
    """Return the tenant that is meant: the named one, or the only one there is.

    Raises:
        NotFoundError: There is none of that name or id.
        InvalidError: There are several.
    """
    from mindia.domain.tenants import TenantStatus

    if wanted is not None:
        try:
            return app.tenants.get(UUID(wanted))
        except ValueError:
            pass
    there = [
        tenant
        for tenant in app.tenants.list()
        if tenant.status is not TenantStatus.DELETED and wanted in (None, tenant.name)
    ]
    if len(there) == 1:
        return there[0]
    if not there:
        if wanted is not None:
            raise NotFoundError(f"there is no tenant of the name or id {wanted!r}: see `mindia tenants list`")
        raise NotFoundError("there is no tenant yet: make one with `mindia tenants create NAME`")
    some = ", ".join(f"{tenant.name!r} ({tenant.id})" for tenant in there[:5])
    more = f" and {len(there) - 5} more" if len(there) > 5 else ""
    if wanted is None:
        raise InvalidError(f"there are several tenants, so say which with --tenant or MINDIA_TENANT: {some}{more}")
    raise InvalidError(f"several tenants have the name {wanted!r}, so name one by its id: {some}{more}")


def _of_host(name: str, folder: Path) -> Mindia:
    from mindia.app import Mindia

    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise InvalidError(f"app is module:name of a Mindia, or of a function that returns one, not {name!r}")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise InvalidError(f"app is {name!r}, and there is no module {error.name!r} in {folder}") from error
        raise
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InvalidError(f"app is {name!r}, and {module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    if not isinstance(found, Mindia) and callable(found):
        made: Callable[[], object] = found
        found = made()
    if not isinstance(found, Mindia):
        raise InvalidError(f"app is {name!r}, which is no Mindia but of the type {type(found).__name__}")
    return found


def _made(what: str, table: Mapping[str, Any] | None, known: Mapping[str, tuple[str, str]]) -> Any:
    if table is None:
        return None
    arguments = dict(table)
    kind = arguments.pop("type", None)
    if kind not in known:
        raise InvalidError(f"[{what}] needs a type: {', '.join(known)}, not {kind!r}")
    module, name = known[kind]
    try:
        return getattr(importlib.import_module(module), name)(**arguments)
    except TypeError as error:
        raise InvalidError(f"[{what}] of the type {kind!r}: {error}") from error
