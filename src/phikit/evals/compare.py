"""Paired comparisons: two models, or two checkpoints, on the same items with the same seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phikit import stats
from phikit.evals.grading import values
from phikit.evals.records import read_records, read_run


def compare(
    a: str,
    rows_a: Sequence[Mapping[str, Any]],
    b: str,
    rows_b: Sequence[Mapping[str, Any]],
    task: str,
    metric: str,
) -> dict[str, Any]:
    """One paired comparison of outcome rows {task, metric, id, sample, value}. ValueError where the two did not answer
    the same items."""
    left, right = _values(rows_a, task, metric), _values(rows_b, task, metric)
    if left.keys() != right.keys() or not left:
        raise ValueError(
            f"{a} and {b} cannot be paired on {task} {metric}: {len(left)} and {len(right)} answers, "
            f"{len(left.keys() & right.keys())} of them to the same items"
        )
    keys = list(left)
    x, y = [left[k] for k in keys], [right[k] for k in keys]
    name = {"name": f"{a} against {b}: {task} {metric}", "a": a, "b": b, "task": task, "metric": metric}
    return {**name, **_difference(x, y, [i for i, _ in keys])}


def compare_runs(a: Path, b: Path) -> list[dict[str, Any]]:
    """Every metric of every task that both evaluations have, paired by item and run: {task, metric, value_a, value_b,
    value (a - b), low, high, n, clusters, method, verdict, detectable, only_a, only_b, p}.

    `detectable` is the smallest true difference that this comparison would have shown with 80 % power (None where
    clustered rows never differ: no spread is known); `p` is McNemar's (None where rows are clustered); `only_a` counts
    items right in a alone. Clusters (passages) are kept together. ValueError where a task was asked differently: the
    two scores are then no pair."""
    (run_a, _), (run_b, _) = read_run(a), read_run(b)
    told_a, told_b = ({t["name"]: t for t in run["tasks"]} for run in (run_a, run_b))
    common = [name for name in told_a if name in told_b]
    if not common:
        raise ValueError(f"{a} and {b} have no task in common: {', '.join(told_a)} and {', '.join(told_b)}")
    out = []
    for task in common:
        rows_a, rows_b = read_records(a, task), read_records(b, task)
        left, right = ({(r["id"], r["run"]): r for r in rows} for rows in (rows_a, rows_b))
        if left.keys() != right.keys():
            raise ValueError(
                f"{a} and {b} cannot be paired on {task}: {len(left)} and {len(right)} answers, "
                f"{len(left.keys() & right.keys())} of them to the same items; run both with the same --limit and runs"
            )
        keys = list(left)
        differ = [k for k in keys if left[k]["prompt_sha"] != right[k]["prompt_sha"]]
        if differ:
            raise ValueError(
                f"{task}: {len(differ)} of {len(keys)} prompts differ between {a} and {b} (first {differ[0]}): "
                "other examples, seed, version or data"
            )
        for metric in told_a[task]["metrics"]:
            if any(metric not in values(r) for r in (left[keys[0]], right[keys[0]])):
                continue  # a derived metric: it has no value for each item
            x, y = ([values(some[k])[metric] for k in keys] for some in (left, right))
            row = {
                "task": task,
                "metric": metric,
                "value_a": statistics.fmean(x),
                "value_b": statistics.fmean(y),
            }
            clusters = [left[k]["cluster"] for k in keys]
            independent = len(set(clusters)) == len(keys) and set(x) | set(y) <= {0.0, 1.0}
            e = stats.paired_shares(x, y) if independent else stats.paired(x, y, clusters)
            row |= {**_told(e), "p": stats.mcnemar(x, y) if independent else None}
            row["detectable"] = stats.detectable(e) if e.high > e.low else None
            row |= {"only_a": sum(u > v for u, v in zip(x, y)), "only_b": sum(u < v for u, v in zip(x, y))}
            out.append(row)
    return out


def _difference(x: Sequence[float], y: Sequence[float], clusters: Sequence[str]) -> dict[str, Any]:
    row = _told(stats.paired(x, y, clusters))
    if len(set(clusters)) == len(clusters) and set(x) | set(y) <= {0.0, 1.0}:
        row["p"] = stats.mcnemar(x, y)
    return row


def _told(e: stats.Estimate) -> dict[str, Any]:
    return {**e.row(), "verdict": "higher" if e.low > 0 else "lower" if e.high < 0 else "no visible change"}


def _values(rows: Sequence[Mapping[str, Any]], task: str, metric: str) -> dict[tuple[str, int], float]:
    return {(r["id"], r["sample"]): r["value"] for r in rows if (r["task"], r["metric"]) == (task, metric)}
