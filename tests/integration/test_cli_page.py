"""The page of the command line: what it tells to type in works, and it leaves out no command and no exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from mindia.cli import index, keys, maintenance, tasks, tenants, users, webhooks
from mindia.cli._exit_codes import ExitCode
from mindia.cli._main import application
from mindia.testing import samples

_PAGE = (Path(__file__).parents[2] / "docs/cli.md").read_text("utf-8")


def test_what_is_typed_in_works(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.jpg").write_bytes(samples.image(width=64, height=48))
    script = tmp_path / "bin" / "mindia"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W error -m mindia.cli "$@"\n')
    script.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MINDIA_")}
    environment["PATH"] = f"{script.parent}:{environment['PATH']}"
    lines = re.findall(r"^\$ ((?:MINDIA_\w+=\S+ )*mindia .*)$", _PAGE, flags=re.MULTILINE)
    assert len(lines) > 5
    found = ""
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        found += done.stdout if " search " in line else ""
    assert "cat.jpg" in found


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("", application()),
        ("tasks", tasks.group),
        ("webhooks", webhooks.group),
        ("maintenance", maintenance.group),
        ("tenants", tenants.group),
        ("users", users.group),
        ("keys", keys.group),
        ("index", index.group),
    ],
)
def test_each_command_is_there(name: str, group: typer.Typer) -> None:
    rows = {match[1]: match[0] for match in re.finditer(r"^\| `([a-z]+)` \|.*$", _PAGE, flags=re.MULTILINE)}
    told = set(rows) if not name else set(re.findall(r"`([a-z-]+)`", rows[name])) - {name}
    commands = {str(each.name) for each in group.registered_commands} | {
        str(each.name) for each in group.registered_groups
    }
    assert commands <= told
    assert not name or not {each for each in told if not each.startswith("--")} - commands


def test_each_exit_code_is_there() -> None:
    told = [int(code) for code in re.findall(r"^\| (\d+) \|", _PAGE, flags=re.MULTILINE)]
    assert told == [int(code) for code in ExitCode]
