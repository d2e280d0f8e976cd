"""JSON over HTTP to the servers of models: keys that stay secret, time-outs, bounded answers, retries."""

from __future__ import annotations

import email.utils
import json
import os
import random
import re
import threading
import time
import weakref
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mindia.errors import InvalidError, ProviderError, ProviderUnavailableError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

_MAX_ANSWER = 64 << 20
_CHUNK = 1 << 14
_BACKOFF_S = 0.5
_CONNECT_S = 10.0
_MAX_SHOWN = 300
_LONGEST_WAIT = timedelta(days=1)
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504, 529)

_sleep = time.sleep


class JsonClient:
    """Asks one server. Thread-safe; a forked process has connections of its own.

    Args:
        base_url: Where the server is, with the path that the others are below: `http://localhost:11434/v1`.
        api_key_env: The name of the environment variable that has the key, read at each call; None where there is none.
        timeout_s: How long one request may take.
        max_retries: How often a request is repeated that failed for a reason that passes.
        max_wait_s: The longest wait before a repetition. Where the server wants more, that is an error that says so.

    Raises:
        InvalidError: An argument is not what it should be.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key_env: str | None = None,
        timeout_s: float = 60.0,
        max_retries: int = 2,
        max_wait_s: float = 10.0,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.username is not None or parts.password is not None:
            raise InvalidError("base_url has a user or a password in it: name the variable of a key with api_key_env")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InvalidError(f"base_url must be like https://host/v1, not {base_url!r}")
        if api_key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", api_key_env):
            raise InvalidError("api_key_env must be the name of an environment variable, not the key itself")
        for name, value in (("timeout_s", timeout_s), ("max_wait_s", max_wait_s)):
            if not value > 0:
                raise InvalidError(f"{name} must be greater than 0, not {value!r}")
        if not 0 <= max_retries <= 20:
            raise InvalidError(f"max_retries must be 0 to 20, not {max_retries}")
        self.base_url = base_url.rstrip("/")
        self._api_key_env = api_key_env
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._max_wait_s = max_wait_s
        self._lock = threading.Lock()
        self._pool: PoolManager | None = None
        self._process = os.getpid()

    def post(self, path: str, body: object) -> Any:
        """Send JSON, and return the JSON that comes back.

        Raises:
            ProviderUnavailableError: The server cannot be reached, is busy or has failed, also after the retries.
            ProviderError: It refused, or its answer is none.
        """
        content = json.dumps(body, allow_nan=False).encode()
        key = self._key()
        attempt = 0
        while True:
            try:
                return self._once(path, content, key)
            except ProviderError as error:
                wait_s = self._wait_s(error, attempt)
                if wait_s is None:
                    raise
                attempt += 1
            _sleep(wait_s)

    def _wait_s(self, error: ProviderError, attempt: int) -> float | None:
        """Return how long to wait before a repetition; None where there is none."""
        if attempt >= self._max_retries or not (isinstance(error, ProviderUnavailableError) or error.status == 200):
            return None
        wanted = error.retry_after if isinstance(error, ProviderUnavailableError) else None
        if wanted is None:
            return min(_BACKOFF_S * 2.0**attempt * random.uniform(0.5, 1.5), self._max_wait_s)  # noqa: S311 - no secret
        seconds = wanted.total_seconds()
        return seconds if seconds <= self._max_wait_s else None

    def _key(self) -> str | None:
        if self._api_key_env is None:
            return None
        key = os.environ.get(self._api_key_env, "").strip()
        if not key:
            raise ProviderError(f"the environment variable {self._api_key_env} has no key for {self.base_url}")
        if not (key.isascii() and key.isprintable()):
            raise ProviderError(f"the environment variable {self._api_key_env} has characters that no key has")
        return key

    def _once(self, path: str, content: bytes, key: str | None) -> Any:
        from urllib3.exceptions import HTTPError

        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        url = f"{self.base_url}/{path}"
        deadline = time.monotonic() + self._timeout_s
        try:
            # Not to wherever the server points: the key would go there, too.
            response = self._connections().request(
                "POST", url, body=content, headers=headers, redirect=False, preload_content=False
            )
            try:
                answer = _read(response, deadline, url)
            except BaseException:
                response.close()
                raise
            response.release_conn()
        except (HTTPError, OSError) as error:
            raise ProviderUnavailableError(f"{url} cannot be asked: {_why(error)}") from None
        if response.status != 200:
            raise _refusal(url, response, self._without_key(answer, key), self._api_key_env)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise ProviderError(f"{url} answered with what is no JSON: {error}", status=200) from None

    def _connections(self) -> PoolManager:
        import urllib3

        with self._lock:
            if self._process != os.getpid():
                self._pool = None  # the connections are those of the parent
                self._process = os.getpid()
            if self._pool is None:
                timeout = urllib3.Timeout(connect=min(_CONNECT_S, self._timeout_s), read=self._timeout_s)
                self._pool = urllib3.PoolManager(maxsize=16, retries=False, timeout=timeout)
                weakref.finalize(self, self._pool.clear)
            return self._pool

    @staticmethod
    def _without_key(answer: bytes, key: str | None) -> str:
        text = answer.decode("utf-8", "replace")
        return text if key is None else text.replace(key, "***")


def _read(response: BaseHTTPResponse, deadline: float, url: str) -> bytes:
    content = bytearray()
    for chunk in response.stream(_CHUNK):
        content += chunk
        if len(content) > _MAX_ANSWER:
            raise ProviderError(f"{url} answered with more than {_MAX_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer took too long")
    return bytes(content)


def _why(error: Exception) -> str:
    from urllib3 import exceptions

    if isinstance(error, exceptions.NewConnectionError):
        return "nobody listens there, or the name is not known"
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return "it does not answer in time"
    if isinstance(error, exceptions.SSLError):
        return f"its certificate or its TLS is not accepted: {error}"
    return f"the connection broke ({type(error).__name__})"


def _refusal(url: str, response: BaseHTTPResponse, answer: str, api_key_env: str | None) -> ProviderError:
    status = response.status
    said = _said(answer)
    if status in _BUSY:
        return ProviderUnavailableError(
            f"{url} answered {status}{said}",
            status=status,
            retry_after=_retry_after(response.headers.get("Retry-After")),
        )
    if 300 <= status < 400:
        said = ": it is somewhere else by now; name that place in base_url"
    elif status in (401, 403):
        which = f"that of {api_key_env}" if api_key_env else "there is none; name its variable with api_key_env"
        said = f" to the key ({which}){said}"
    return ProviderError(f"{url} answered {status}{said}", status=status)


def _said(answer: str) -> str:
    """Return what a server said about an error: it is not ours, and so is cut and kept to one line."""
    try:
        found = json.loads(answer)
        error = found.get("error", found.get("message", "")) if isinstance(found, dict) else ""
        text = error.get("message", "") if isinstance(error, dict) else error
    except ValueError:
        text = ""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return f": {line[:_MAX_SHOWN]}" if line else ""


def _retry_after(value: str | None) -> timedelta | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = email.utils.parsedate_to_datetime(value)
        except (TypeError, ValueError):
            return None
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        seconds = (at - datetime.now(UTC)).total_seconds()
    if seconds != seconds:
        return None
    return timedelta(seconds=min(max(seconds, 0.0), _LONGEST_WAIT.total_seconds()))
