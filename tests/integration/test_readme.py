"""The code of the README works as pasted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_README = Path(__file__).parents[2] / "README.md"
_BLOCKS = re.findall(r"^```python\n(.*?)^```", _README.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_there_is_code_to_paste() -> None:
    assert len(_BLOCKS) == 2


@pytest.mark.parametrize("code", _BLOCKS)
def test_a_block_of_code_works_as_pasted(code: str, tmp_path: Path, empty_database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"DATABASE_URL": empty_database_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr == ""
