"""The receivers of the docs take what is signed and refuse the rest, in the frameworks that they are written for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_webhook_signing import SECRET, delivery

from mindia.delivery import signing

_PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"
_BODY = b'{"type":"image.uploaded","data":{"media_id":"7"}}'


def receiver(framework: str) -> Any:
    """Run the block of the page that imports a framework, and return its application."""
    blocks = re.findall(r"^```python\n(.*?)^```", _PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (block,) = [block for block in blocks if f"from {framework} import" in block]
    names: dict[str, Any] = {"__name__": "receiver"}
    exec(block, names)
    return names["api"]


async def _asked_by_asgi(api: Any, headers: Mapping[str, str], body: bytes) -> int:
    sent: list[dict[str, Any]] = []
    incoming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return incoming.pop() if incoming else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/webhooks",
        "raw_path": b"/webhooks",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await api(scope, receive, send)
    return int(sent[0]["status"])


def asked(framework: str, headers: Mapping[str, str], body: bytes = _BODY) -> int:
    """Send a request to a receiver, and return the status of its answer."""
    api = receiver(framework)
    if framework == "fastapi":
        return asyncio.run(_asked_by_asgi(api, headers, body))
    return int(api.test_client().post("/webhooks", data=body, headers=dict(headers)).status_code)


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_a_receiver_of_the_docs_takes_what_is_signed_and_nothing_else(
    framework: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = delivery(_BODY)
    headers = signing.headers(sent, [signing.keyed(key) for key in (signing.new_secret(), signing.secret_of(SECRET))])

    assert asked(framework, headers) == 204
    assert capsys.readouterr().out == f"{sent.event_id} image.uploaded {{'media_id': '7'}}\n"
    assert asked(framework, headers, _BODY + b" ") == 401
    assert asked(framework, {}) == 401
    assert asked(framework, signing.headers(sent, [signing.keyed(signing.new_secret())])) == 401
    assert capsys.readouterr().out == ""
