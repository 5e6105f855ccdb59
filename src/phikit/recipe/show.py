"""What the commands print: run, trace and keys, as tables."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from phikit.recipe.run import TIMINGS
from phikit.recipe.schema import Recipe
from phikit.recipe.trace import Node, trace
from phikit.recipe.units import show_bytes
from phikit.records import artifact
from phikit.records.io import read_json
from phikit.report import lengths
from phikit.report.load import LENGTH_STAGES, LENGTHS

WIDTH = 150  # columns of a table that goes to a file
TEXT = 160  # characters of a text that a tree shows


def print_run(run: Path) -> None:
    """Stages with seconds and counts, then scores; ValueError where the folder holds no run."""
    if not (run / TIMINGS).is_file():
        raise ValueError(f"{run}: no run here (it has no {TIMINGS}); start one with `phikit run --out {run}`")
    timings = read_json(run / TIMINGS)
    console = terminal()
    title = f"{timings['recipe']} at {timings['scale']}"
    table = Table("stage", title=title, title_justify="left")
    table.add_column("state", overflow="fold")
    table.add_column("seconds", justify="right")
    table.add_column("counts", overflow="fold")
    for row in timings["stages"]:
        state = row["status"] + (f": {row['error']}" if row.get("error") else "")
        counts = ", ".join(f"{k} {_number(v)}" for k, v in row["counts"].items() if not isinstance(v, dict))
        table.add_row(row["name"], escape(state), f"{row['seconds']:.1f}", escape(counts))
    console.print(table)
    for stage in LENGTH_STAGES:
        if (file := run / stage / LENGTHS).is_file():
            _print_lengths(console, stage, read_json(file))
    report = run / "report.json"
    scores = read_json(report).get("scores", []) if report.is_file() else []
    if scores:
        _print_scores(console, scores)
    if (run / "report.html").is_file():
        console.print(f"report: {run / 'report.html'}", highlight=False)


def _print_lengths(console: Console, stage: str, found: dict[str, Any]) -> None:
    buckets = lengths.buckets_of(found)
    title = f"{stage}: share of a source's tokens in documents of 2^k tokens and more"
    table = Table("source", "", title=title, title_justify="left")
    for size in buckets:
        table.add_column(lengths.bucket(size), justify="right")
    for name, kind, histogram in lengths.rows(found):
        shares = [histogram.get(str(size), 0.0) for size in buckets]
        table.add_row(name, kind, *(f"{v:.0%}" if v else "" for v in shares))
    console.print(table)


def _print_scores(console: Console, scores: list[dict[str, Any]]) -> None:
    checkpoints = list(dict.fromkeys(s["checkpoint"] for s in scores))
    table = Table("task", "metric", title="scores with 95 % intervals", title_justify="left")
    for name in checkpoints:
        table.add_column(name, justify="right")
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for s in scores:
        text = f"{s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}]"
        cells.setdefault((s["task"], s["metric"]), {})[s["checkpoint"]] = text
    for (task, metric), row in cells.items():
        table.add_row(task, metric, *(escape(row.get(c, "-")) for c in checkpoints))
    console.print(table)


def print_trace(run: Path, pair: str) -> None:
    """The tree from a pair back to its sources."""
    node = trace(run, pair)
    tree = Tree(_label(node))
    _branches(tree, node, {node.id})
    if node.others:
        tree.add(f"{node.others:,} more rollouts of the same question")
    terminal().print(tree)


def print_token(run: Path, where: str) -> None:
    """A token of a shard (SOURCE@INDEX): its document, its place in it and in the source, and what that was made of."""
    from phikit.recipe.trace_token import trace_token

    t = trace_token(run, where)
    before, own, after = (" ".join(x.split("\n")) for x in t.around)
    tree = Tree(
        f"[bold]{escape(where)}[/bold]  token {t.token} {escape(repr(t.text))}, {t.number + 1:,} of {t.tokens:,}"
    )
    tree.add(f"{escape(before[-TEXT // 2 :])}[reverse]{escape(own)}[/reverse]{escape(after[: TEXT // 2])}")
    if t.characters and t.bytes:
        tree.add("in the document's text: characters {}-{}, bytes {}-{}".format(*t.characters, *t.bytes))
    if t.place:
        how = "the token itself" if t.exact else "what holds it; extraction changed the text, or repeats it"
        tree.add(f"{escape(t.source)}: bytes {t.place[0]}-{t.place[1]} ({how})")
    elif t.source:
        tree.add(f"{escape(t.source)}: the file is not at hand")
    _branches(tree.add(_label(t.document)), t.document, {t.document.id})
    terminal().print(tree)


def _branches(tree: Tree, node: Node, shown: set[str]) -> None:
    for parent in node.parents:
        again = parent.id in shown
        branch = tree.add(f"{parent.id[:12]} (above)" if again else _label(parent))
        if not again:
            shown.add(parent.id)
            _branches(branch, parent, shown)
    for missing in node.missing:
        tree.add(f"[red]{escape(missing)}: in no file of the run[/red]")


def _label(node: Node) -> str:
    lines = [f"[bold]{escape(node.id[:12])}[/bold]  {escape(node.file)}"]
    for key, value in node.row.items():
        if (
            key in ("id", "parents")
            or key.endswith("_ids")
            or key in ("tokens", "logprobs")
            or value in ({}, [])
        ):
            continue
        text = " ".join(str(value).split())
        lines.append(escape(f"{key}: {text if len(text) <= TEXT else text[: TEXT - 3] + '...'}"))
    return "\n".join(lines)


def print_keys(recipe: Recipe) -> None:
    for path, value in _flat(recipe.model_dump(mode="json", exclude_none=True)):
        print(f"{path} = {value}")


def copy_export(run: Path, to: Path) -> list[str]:
    """Copies the files of the run's export stage; returns a line for each."""
    found = artifact.load(run / "export")
    if found is None:
        raise ValueError(f"{run}: the export stage is not finished: `phikit run --out {run}` finishes it")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ValueError(f"{to} exists and is not an empty folder: name another one")
    lines = []
    for name in found.manifest.files:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(found.path / name, to / name)
        lines.append(f"{to / name}  {show_bytes((to / name).stat().st_size)}")
    return lines


def terminal() -> Console:
    """A file or pipe has no width: give it one that cuts nothing."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
