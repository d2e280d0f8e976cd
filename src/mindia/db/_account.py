"""The account that the embedded server runs under: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

import attrs

from mindia.errors import EmbeddedServerError

_CANDIDATES = ("postgres", "nobody")
_CAPABILITIES = "+dac_override"


@attrs.frozen
class Account:
    """Who the server runs as. `switch` where that is not who we are."""

    uid: int
    gid: int
    switch: bool

    def give(self, path: Path) -> None:
        """Make the account the owner of a file or a folder."""
        if self.switch:
            os.chown(path, self.uid, self.gid)

    def command(self, command: list[str], *, reach: Sequence[Path]) -> list[str]:
        """Return the command that runs another one as this account.

        Where a folder above the paths to `reach` is closed to the account, as `/root` is, the command keeps the
        right of root to pass it: folders are not opened to everybody for our sake.
        """
        if not self.switch:
            return command
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise EmbeddedServerError(
                "PostgreSQL does not run as root, and the program setpriv (util-linux) that would run it under another "
                "account is not there: install it, or use another account"
            )
        become = [setpriv, f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        if not all(self._passes(path) for path in reach):
            # Without the secure bit, access(2), by which initdb looks for its programs, leaves capabilities aside.
            become += [
                f"--inh-caps={_CAPABILITIES}",
                f"--ambient-caps={_CAPABILITIES}",
                "--securebits=+no_setuid_fixup",
            ]
        return [*become, "--", *command]

    def _passes(self, path: Path) -> bool:
        return all(_may_search(parent.stat(), self.uid, self.gid) for parent in [path, *path.resolve().parents])


def for_folder(folder: Path) -> Account:
    """Return the account for the server whose data lies in `folder`.

    An ordinary user runs it as themselves. As root it is the account that owns the data already, or else one that every
    system has.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switch=False)
    data = folder / "data"
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid, switch=True)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, switch=True)
    raise EmbeddedServerError(
        f"PostgreSQL does not run as root, and there is none of the accounts {', '.join(_CANDIDATES)}: "
        "make one, or use another account than root"
    )


def _may_search(folder: os.stat_result, uid: int, gid: int) -> bool:
    if folder.st_uid == uid:
        return bool(folder.st_mode & stat.S_IXUSR)
    if folder.st_gid == gid:
        return bool(folder.st_mode & stat.S_IXGRP)
    return bool(folder.st_mode & stat.S_IXOTH)
