"""Ceph from Debian's packages, unpacked into a folder; nothing is installed, and no right of root is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_WANTED = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common")
_NEEDED_PREFIXES = ("lib", "ceph-", "radosgw")
"""Of what these depend on: not Python, nor the tools for disks and volumes."""

_TIMEOUT_S = 600


class NotAvailableError(Exception):
    """The packages cannot be had on this machine; the message says why."""


def environment(root: Path) -> dict[str, str]:
    """Return the environment in which programs of the folder find their libraries."""
    libraries = sorted({str(library.parent) for library in root.glob("usr/lib/**/lib*.so*")})
    libraries += sorted({str(library.parent) for library in root.glob("lib/**/lib*.so*")})
    return os.environ | {"LD_LIBRARY_PATH": ":".join(libraries), "LC_ALL": "C"}


def works(root: Path) -> bool:
    """Tell whether the programs are there and run."""
    programs = [root / "usr" / "bin" / name for name in ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd")]
    return all(
        program.exists()
        and subprocess.run([program, "--version"], env=environment(root), capture_output=True, check=False).returncode
        == 0
        for program in programs
    )


def fetch(folder: Path) -> Path:
    """Return the folder with the programs, downloading and unpacking them where they are not there yet.

    Raises:
        NotAvailableError: They cannot be had.
    """
    root = folder / "root"
    if works(root):
        return root
    missing = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
    if missing:
        raise NotAvailableError(f"{' and '.join(missing)} are missing: this is not Debian")
    shutil.rmtree(folder, ignore_errors=True)
    packages = folder / "packages"
    # Lists and caches of its own: those of the system may be empty, old, or closed to this account.
    for made in (packages, root, folder / "state" / "lists" / "partial", folder / "cache" / "archives" / "partial"):
        made.mkdir(parents=True)
    apt = [
        "apt-get",
        f"-oDir::State={folder / 'state'}",
        "-oDir::State::status=/var/lib/dpkg/status",
        f"-oDir::Cache={folder / 'cache'}",
        f"-oAPT::Sandbox::User={'root' if os.geteuid() == 0 else ''}",
        "-oDebug::NoLocking=1",
        "-oAcquire::Retries=3",
        "-qq",
    ]
    _run([*apt, "update"])
    uris = _run([*apt, "--yes", "--print-uris", "--no-install-recommends", "install", *_WANTED])
    names = [line.split()[1].split("_")[0] for line in uris.splitlines() if line.startswith("'")]
    # What is installed here already is not printed.
    chosen = sorted({name for name in names if name.startswith(_NEEDED_PREFIXES)} | {*_WANTED, "ceph-base"})
    _run([*apt, "download", *chosen], cwd=packages)
    for package in sorted(packages.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(root)])
    for unneeded in (packages, folder / "state", folder / "cache"):
        shutil.rmtree(unneeded)
    if not works(root):
        raise NotAvailableError("the programs were unpacked, but do not run: a library is missing")
    return root


def _run(command: list[str], *, cwd: Path | None = None) -> str:
    try:
        ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise NotAvailableError(f"{command[0]} took longer than {_TIMEOUT_S} s") from None
    if ended.returncode:
        raise NotAvailableError(f"{' '.join(command[:1] + command[-6:])}: {ended.stderr.strip()[-500:]}")
    return ended.stdout
