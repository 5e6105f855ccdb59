"""What `phikit plan` prints: the recipe's stages as a table, and lines that fit the terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from phikit.recipe.plan import Line, make_plan
from phikit.recipe.schema import Recipe
from phikit.recipe.show import terminal
from phikit.recipe.sources import STAGE_PACKAGE
from phikit.recipe.status import statuses
from phikit.recipe.units import show_bytes, show_count


def print_plan(recipe: Recipe, out: Path, package: str = STAGE_PACKAGE) -> int:
    """Prints the plan; 1 where the layout cannot run, else 0."""
    made = make_plan(recipe)
    states = {s.name: "cached" if s.cached else s.reason for s in statuses(recipe, out, package)}
    shown = [states[line.stage] for line in made.lines]
    console = terminal()
    console.print(
        f"{recipe.name} at {made.scale}: {made.parameters:,} parameters -> {out}",
        highlight=False, markup=False, style="bold",
    )  # fmt: skip
    same = len(set(shown)) == 1
    console.print(_table(made.lines, [] if same else shown))
    lines = [f"all {len(shown)} stages: {shown[0]}"] if same else []
    if most := max((x for x in made.lines if x.memory), key=_bytes, default=None):
        assert most.memory
        lines.append(f"memory a rank, an estimate; most in {most.stage}: {kinds(most.memory)}")
    flops = sum(x.flops or 0 for x in made.lines)
    lines.append(f"training {flops:.2e} FLOPs; disk up to {show_bytes(made.disk)}")
    say_lines([*lines, *made.long], console)
    for remark in made.layout:
        say_lines([remark], console, "bold red" if remark.startswith("error") else "")
    return 1 if any(remark.startswith("error") for remark in made.layout) else 0


def _bytes(line: Line) -> int:
    return line.memory.total if line.memory else 0


def kinds(memory) -> str:
    return ", ".join(f"{f.name} {show_bytes(getattr(memory, f.name))}" for f in fields(memory))


def _table(lines: tuple[Line, ...], states: list[str]) -> Table:
    """`states` may be left out."""
    table = Table("stage", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("what", overflow="fold")
    for column in ("tokens", "steps", "FLOPs", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    if states:
        table.add_column("state", overflow="fold")
    for i, line in enumerate(lines):
        table.add_row(
            line.stage,
            escape(line.what),
            "-" if line.tokens is None else show_count(line.tokens),
            "-" if line.steps is None else f"{line.steps:,}",
            "-" if line.flops is None else f"{line.flops:.2e}",
            "-" if line.memory is None else show_bytes(line.memory.total),
            *([escape(states[i])] if states else []),
        )
    return table


def say_lines(lines: Iterable[str], console: Console | None = None, style: str = "") -> None:
    """Broken between words at the width of a terminal, what follows indented; whole in a file or pipe."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        broken = textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False,
            drop_whitespace=True,
        ) if len(line) > width > 0 else [line]  # fmt: skip
        for part in broken:
            if console:
                console.print(part, highlight=False, markup=False, style=style, soft_wrap=True)
            else:
                print(part, flush=True)
