"""Benchmarks are the scripts in benchmarks/ of a checkout; each prints one JSON object as its last line."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def folder() -> Path:
    """benchmarks/ of the working directory, else of the checkout this package lies in."""
    for path in (Path("benchmarks"), Path(__file__).parents[3] / "benchmarks"):
        if path.is_dir():
            return path
    raise ValueError("no benchmarks/ folder here: run this in a checkout of phikit")


def benchmarks() -> dict[str, str]:
    """Names of the benchmarks with the first line of their docstrings."""
    return {
        p.stem: (ast.get_docstring(ast.parse(p.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        for p in sorted(folder().glob("*.py"))
        if not p.name.startswith("_")
    }


def run_benchmark(name: str, arguments: Sequence[str], *, only_json: bool) -> int:
    """Runs a benchmark in a process of its own; returns its exit status. With `only_json` its last line alone
    is printed on stdout, the lines before it on stderr."""
    known = benchmarks()
    if name not in known and f"{name}_text" in known:  # tokenize.py would shadow Python's own module
        name = f"{name}_text"
    if name not in known:
        raise ValueError(f"no benchmark {name!r} (known: {', '.join(known) or 'none'})")
    command = [sys.executable, str(folder() / f"{name}.py"), *arguments]
    if not only_json:
        return subprocess.run(command, check=False).returncode
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    *before, last = done.stdout.rstrip("\n").split("\n")
    for line in before:
        print(line, file=sys.stderr)
    print(last)
    return done.returncode
