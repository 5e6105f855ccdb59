"""Scores of records: every metric with its 95 % interval, whole and by group, all items and the clean ones.

Which interval (stats.py): one 0/1 value an item, Wilson; several runs or items that share a cluster, Wilson at the
effective sample size; values outside [0, 1], Student's t on cluster sums; runs whose items were made anew, both ways
(item and run); functions of means, the jackknife over clusters."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from phikit import stats
from phikit.evals.grading import Record, values
from phikit.evals.task import Task

GROUPS_FROM = 2  # a task with one group has no lines of groups


def summarize(task: Task, records: Sequence[Record]) -> list[dict[str, Any]]:
    """{task, metric, group, subset, value, low, high, n, clusters, method, counts, runs, run_sd, primary, detectable}.
    `group` "" is the whole task; `subset` all | clean. `run_sd` is the standard deviation of the runs' own means.
    `detectable`: the smallest difference to a second model of equal spread that a comparison without pairing shows
    with 80 % power."""
    out = _lines(task, records, "", "all")
    groups = sorted({r["group"] for r in records})
    if len(groups) >= GROUPS_FROM:
        for g in groups:
            out += _lines(task, [r for r in records if r["group"] == g], g, "all")
    if task.contrast and set(task.contrast) <= set(groups):
        out.append(_contrast(task, task.contrast, records))
    if any(r["clean"] is not None for r in records):
        out += _lines(task, [r for r in records if r["clean"]], "", "clean")
    return out


def _lines(task: Task, records: Sequence[Record], group: str, subset: str) -> list[dict[str, Any]]:
    if not records:
        return []
    tables = [values(r) for r in records]
    estimates = {m: _estimate(task, records, [t[m] for t in tables]) for m in task.metrics}
    if not group:
        by_item = _per_item(records, [t[task.metrics[0]] for t in tables])
        for name, fn in task.by_item.items():
            found = [fn(v) for _, v in by_item]
            estimates[name] = stats.clustered_share(found, [c for c, _ in by_item])
    for name, derived in task.derived.items():
        rows = [[t[m] for m in task.metrics] for t in tables]
        estimates[name] = stats.jackknife(
            lambda x, fn=derived: fn(dict(zip(task.metrics, (float(v) for v in x)))),
            rows,
            [r["cluster"] for r in records],
        )
    counts = dict(Counter(r["outcome"] for r in records))
    runs = sorted({r["run"] for r in records})
    out = []
    for metric, e in estimates.items():
        row = {"task": task.name, "metric": metric, "group": group, "subset": subset, **_finite(e.row())}
        row |= {"counts": counts, "runs": len(runs), "run_sd": None, "primary": metric == task.metrics[0]}
        row["detectable"] = None if row["low"] is None else stats.detectable(e) * math.sqrt(2)
        if len(runs) > 1 and metric in task.metrics:
            means = [
                statistics.fmean(t[metric] for t, r in zip(tables, records) if r["run"] == k) for k in runs
            ]
            row["run_sd"] = statistics.stdev(means)
        out.append(row)
    return out


def _contrast(task: Task, groups: tuple[str, str], records: Sequence[Record]) -> dict[str, Any]:
    """The first metric of one group less that of the other, which are different items."""
    metric = task.metrics[0]
    parts = [[r for r in records if r["group"] == g] for g in groups]
    a, b = (_estimate(task, some, [values(r)[metric] for r in some]) for some in parts)
    row = _finite(stats.difference(a, b).row())
    return {
        "task": task.name, "metric": f"{groups[0]} - {groups[1]}", "group": "", "subset": "all", **row, "counts": {},
        "runs": len({r["run"] for r in records}), "run_sd": None, "primary": False, "detectable": None,
    }  # fmt: skip


def _estimate(task: Task, records: Sequence[Record], x: Sequence[float]) -> stats.Estimate:
    clusters = [r["cluster"] for r in records]
    if task.per_run and task.runs > 1:
        return _within(stats.two_way(x, clusters, [r["run"] for r in records]), x)
    if all(0.0 <= v <= 1.0 for v in x):
        return stats.share_of(x, clusters)
    return stats.mean(x, clusters)


def _within(e: stats.Estimate, x: Sequence[float]) -> stats.Estimate:
    """An interval of shares ends at 0 and 1."""
    if not all(0.0 <= v <= 1.0 for v in x):
        return e
    return stats.Estimate(e.value, max(0.0, e.low), min(1.0, e.high), e.n, e.clusters, e.method)


def _per_item(records: Sequence[Record], x: Sequence[float]) -> list[tuple[str, list[float]]]:
    """(cluster, values of the item's runs) of every item."""
    found: dict[str, tuple[str, list[float]]] = {}
    for r, v in zip(records, x):
        found.setdefault(r["id"], (r["cluster"], []))[1].append(v)
    return list(found.values())


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Infinite ends (a single cluster has no interval) as None: JSON has no infinity."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
