"""`phikit plan --gpus N --sweep PAGE`: how a stage's cost grows with its tokens, the length of its rows, and GPUs.

Each length is the trace of the real sharded network on fake tensors; GPUs are more or fewer replicas of it. A step has
about the recipe's tokens, in whole rows of each rank; rows are one document each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from phikit.model.layout import misfits
from phikit.recipe.cluster import Cluster, device_named, layout_for, show_days, stage_of
from phikit.recipe.plan import layout_of, network_of
from phikit.recipe.schema import Recipe
from phikit.recipe.units import show_bytes, show_count

LENGTHS = (1, 4, 16)  # times the stage's context
GPUS = (1 / 8, 1 / 4, 1 / 2, 1, 2)  # times those asked for


def sweep(recipe: Recipe, stage: str, gpus: int, device: str) -> Iterator[Cluster]:
    """By length, then by GPUs. Raises ValueError as `plan_cluster`, and where no length fits the layout."""
    from phikit.train.simulate import trace

    d, base = device_named(device), layout_of(recipe)
    train, tokens = stage_of(recipe, stage)
    layout_for(base, gpus)  # or says what does not divide
    group = base.fsdp * base.cp * base.tp
    counts = [n for f in GPUS if (n := round(gpus * f)) == gpus * f and not n % group]
    layouts = [layout_for(base, n) for n in counts]
    shape, a_pass = network_of(recipe), (train.micro or 1) * train.context
    lengths = [n for f in LENGTHS if not misfits(shape, base, n := train.context * f)]
    if not lengths:
        raise ValueError("; ".join(misfits(shape, base, train.context)))
    for length in lengths:
        c, micro = replace(shape, context=length), max(1, a_pass // length)
        found = trace(c, layouts[-1], micro, length, cuda=True)
        for layout in layouts:
            together = layout.data * micro
            batch = together * max(1, round(train.batch * train.context / (together * length)))
            yield Cluster(f"{recipe.name} {stage}", c, layout, d, tokens, batch, micro, found, 0.0)


def rows_of(points: Sequence[Cluster]) -> list[tuple[str, ...]]:
    """The table's head, then a row for each point."""
    tokens = points[0].tokens
    rows: list[tuple[str, ...]] = [
        ("length", "GPUs", "tokens/step", "step", "MFU", "memory", f"for {show_count(tokens)}", "price")
    ]
    for p in points:
        days = p.days(tokens, p.mfu)
        memory = show_bytes(p.trace.memory.total) + ("" if p.fits else " !")
        rows.append((
            f"{p.network.context:,}", f"{p.gpus:,}", show_count(p.step_tokens), f"{sum(p.seconds.values()):.2f} s",
            f"{p.mfu:.1%}", memory, show_days(days), show_count(p.price(days)),
        ))  # fmt: skip
    return rows


def print_sweep(recipe: Recipe, stage: str, gpus: int, device: str, page: Path) -> None:
    """Prints the table and writes the page. Raises ValueError as `sweep`, and without GPUs."""
    from rich import box
    from rich.table import Table

    from phikit.recipe.plan_show import say_lines
    from phikit.recipe.plan_sweep_page import page_of
    from phikit.recipe.show import terminal
    from phikit.records.io import write_text

    if not gpus:
        raise ValueError("--sweep asks for --gpus: the number of GPUs around which it looks")
    points = list(sweep(recipe, stage, gpus, device))
    head, *rows = rows_of(points)
    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    for column in table.columns:
        column.justify, column.no_wrap = "right", True
    for i, row in enumerate(rows):
        table.add_row(*row, end_section=i + 1 < len(rows) and rows[i + 1][0] != row[0])
    terminal().print(table)
    say_lines(notes(points))
    write_text(page, page_of(points, gpus, notes(points)))
    say_lines([f"page: {page}"])


def notes(points: Sequence[Cluster]) -> list[str]:
    """What the figures stand for."""
    d = points[0].device
    notes = [
        f"by the roofline of {d.name} at {d.hour:g} an hour; days and price grow in proportion to the tokens",
        "a step has the recipe's tokens, or one pass of every rank where that is more",
    ]
    if not all(p.fits for p in points):
        notes.append(f"!: does not fit {show_bytes(int(d.memory))}")
    return notes
