"""Chromium without a window, for pictures of pages and for what becomes of their scripts."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_TIMEOUT_S = 60


def chromium() -> str | None:
    """Return the path of the browser, or None where there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def document_of(page: Path) -> str:
    """Return the HTML of a page after its scripts have run.

    Raises:
        RuntimeError: The browser has failed, or there is none.
    """
    return _run("--dump-dom", "--virtual-time-budget=5000", page.as_uri())


def screenshot(page: Path, target: Path, *, width: int, height: int) -> None:
    """Write a picture of a page, as PNG.

    Raises:
        RuntimeError: The browser has failed, or there is none.
    """
    _run(f"--screenshot={target}", f"--window-size={width},{height}", "--hide-scrollbars", page.as_uri())


def _run(*arguments: str) -> str:
    browser = chromium()
    if browser is None:
        raise RuntimeError("there is no Chromium: install the package chromium")
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(  # noqa: S603 - our own words
            [
                browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", f"--user-data-dir={profile}", *arguments,
            ],
            capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{browser} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout
