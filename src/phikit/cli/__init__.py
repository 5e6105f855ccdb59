"""The command line. Commands import what they need when they run: `phikit --help` imports neither torch nor
pydantic."""

from __future__ import annotations

import sys

from phikit.cli import bench, corpus, evals, jobs, model, pivotal, quality, recipe, serve, synth, train  # noqa: F401  each adds its commands
from phikit.cli.app import app


def main() -> None:
    """Runs a command. A ValueError or OSError is a message for people, without a traceback."""
    try:
        app()
    except (ValueError, OSError) as e:
        if isinstance(e, BrokenPipeError):
            # The reader (head, less) has gone; nothing is left to say, and Python must not try to flush.
            sys.stderr.close()
            sys.exit(1)
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
