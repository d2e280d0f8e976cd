"""The code of the README and of the pages works as pasted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.s3.radosgw import S3Server

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
