"""The code of the README and of the pages works as pasted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.model_server import Answer, ModelServer, Request, model_server
from tests.s3.radosgw import S3Server

from mindia import LexicalEmbedder
from mindia.cli._connect import opened
from mindia.cli._settings import Configuration, Flags

_ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
_ONE_STORY = {"security.md"}
"""Pages whose blocks build on each other; they have tests of their own."""

_BLOCKS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in (_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md")))
    if page.name not in _ONE_STORY
    for number, code in enumerate(_BLOCK.findall(page.read_text("utf-8")), start=1)
]


_NEW_HOMES = {"README.md", "tutorial.md"}
"""Pages whose homes are made at first; others find theirs, which takes half the time."""

_HOME = re.compile(r'mindia\.local\("\./([\w-]+)"')


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with nothing in it, whose server is stopped."""
    home = tmp_path_factory.mktemp("homes") / "home"
    code = f"import mindia; mindia.local({str(home)!r}).close()"
    subprocess.run([sys.executable, "-c", code], check=True)
    return home


_MODEL_SERVERS = ("http://localhost:11434/v1", "https://api.openai.com/v1")
"""For which one stands in that is here."""


def _as_a_model(request: Request) -> Answer:
    if request.path.endswith("/chat/completions"):
        return Answer.of({"choices": [{"message": {"content": "A lighthouse above the sea."}}]})
    rows = LexicalEmbedder().embed_documents(request.body["input"])
    return Answer.of({"data": [{"index": place, "embedding": row.tolist()} for place, row in enumerate(rows)]})


@pytest.fixture
def models() -> Iterator[ModelServer]:
    with model_server(_as_a_model) as server:
        yield server


def test_there_is_code_to_paste() -> None:
    assert {block.id for block in _BLOCKS} >= {"README.md-1", "README.md-2", "migrations.md-1"}


@pytest.mark.parametrize("code", _BLOCKS)
def test_a_block_of_code_works_as_pasted(
    code: str, tmp_path: Path, empty_database_url: str, home: Path, request: pytest.FixtureRequest
) -> None:
    if not any(page in request.node.name for page in _NEW_HOMES):
        for name in set(_HOME.findall(code)):
            subprocess.run(["cp", "-a", home, tmp_path / name], check=True)  # with its owner
    environment = os.environ | {"DATABASE_URL": empty_database_url}
    if "S3_ENDPOINT" in code:
        s3: S3Server = request.getfixturevalue("s3_server")
        environment |= {
            "S3_ENDPOINT": s3.endpoint,
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        }
    asked = None
    for address in _MODEL_SERVERS:
        if address in code:
            asked = request.getfixturevalue("models")
            code = code.replace(address, asked.url)
            environment["OPENAI_API_KEY"] = "sk-of-nobody"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert asked is None or {request.path for request in asked.requests} == {"/v1/embeddings", "/v1/chat/completions"}


@pytest.mark.parametrize("page", ["cli.md", "providers.md"])
def test_a_configuration_opens_what_it_says(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", (_ROOT / "docs" / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)
    file = tmp_path / "mindia.toml"
    file.write_text(text.replace('home = ".mindia"', 'database_url = "dbname=nowhere"\nstorage = "objects"'))
    for name in [name for name in os.environ if name.startswith("MINDIA_")]:
        monkeypatch.delenv(name)

    with opened(Configuration.read(Flags(config=str(file)))) as app:  # which connects to nothing yet
        assert "OpenAICompatibleEmbedder" in repr(app._embedder)
        assert page == "cli.md" or "OpenAICompatibleDescriber" in repr(app._describer)
