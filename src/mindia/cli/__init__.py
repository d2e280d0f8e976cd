"""The command line `mindia`. Needs `pip install 'mindia[cli]'`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the entry point of the script `mindia`."""
    try:
        import rich  # noqa: F401 - only whether it is there
        import typer  # noqa: F401 - likewise
    except ImportError:
        sys.stderr.write("mindia: the command line needs optional dependencies: pip install 'mindia[cli]'\n")
        sys.exit(1)
    from mindia.cli._main import run

    run()
