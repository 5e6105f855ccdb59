"""Virtual environments of peers under .bench/: each has its own packages and sees this project's (torch,
transformers, phikit) behind them."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

BENCH = Path(__file__).parents[1] / ".bench"


def peer_python(name: str, package: str, version: str, *more: str) -> Path:
    """The python of `.bench/name` with `package==version` and `more`, made where it is missing."""
    home = BENCH / name
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
    site = next(Path(x) for x in sys.path if x.endswith("site-packages"))
    inner = next(home.glob("lib/python*/site-packages"))
    (inner / "project.pth").write_text(f"{site}\n{Path(__file__).parents[1] / 'src'}\n")
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    have = subprocess.run([python, "-c", ask], capture_output=True, text=True)
    if have.stdout.strip() != version:
        subprocess.run([python, "-m", "pip", "install", "-q", *more, f"{package}=={version}"], check=True)
    return python
