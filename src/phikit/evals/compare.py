"""Paired comparisons: what a stage changed, on the same items with the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phikit import stats

# (after, before, task, metric): what each training stage is meant to move, or to keep.
PAIRS = (
    ("midtrain", "pretrain", "recall_4x", "exact"),
    ("midtrain", "pretrain", "recall_2x", "exact"),
    ("midtrain", "pretrain", "recall_1x", "exact"),
    ("sft", "midtrain", "arithmetic", "sampled"),
    ("sft", "midtrain", "arithmetic", "greedy"),
    ("sft", "midtrain", "format", "well_formed"),
    ("dpo1", "sft", "arithmetic", "sampled"),
    ("dpo2", "dpo1", "arithmetic", "sampled"),
    ("dpo2", "dpo1", "preference_wins", "share"),
)


def comparisons(rows_by_checkpoint: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One row for each of PAIRS whose two checkpoints were evaluated: {name, a, b, task, metric, value, low,
    high, n, clusters, method, verdict, p?}. `value` is the mean of a - b, its interval clustered by item;
    `verdict` is higher, lower or no visible change (the interval holds 0); `p` is McNemar's exact test where
    each item has one 0/1 row.
    """
    out = []
    for a, b, task, metric in PAIRS:
        if a in rows_by_checkpoint and b in rows_by_checkpoint:
            out.append(compare(a, rows_by_checkpoint[a], b, rows_by_checkpoint[b], task, metric))
    return out


def compare(
    a: str,
    rows_a: Sequence[Mapping[str, Any]],
    b: str,
    rows_b: Sequence[Mapping[str, Any]],
    task: str,
    metric: str,
) -> dict[str, Any]:
    """One paired comparison. ValueError where the two did not answer the same items."""
    left, right = _values(rows_a, task, metric), _values(rows_b, task, metric)
    if left.keys() != right.keys() or not left:
        raise ValueError(
            f"{a} and {b} cannot be paired on {task} {metric}: {len(left)} and {len(right)} answers, "
            f"{len(left.keys() & right.keys())} of them to the same items"
        )
    keys = list(left)
    x, y = [left[k] for k in keys], [right[k] for k in keys]
    ids = [i for i, _ in keys]
    e = stats.paired(x, y, ids)
    verdict = "higher" if e.low > 0 else "lower" if e.high < 0 else "no visible change"
    row: dict[str, Any] = {
        "name": f"{a} against {b}: {task} {metric}",
        "a": a,
        "b": b,
        "task": task,
        "metric": metric,
    }
    row |= {**e.row(), "verdict": verdict}
    if len(set(ids)) == len(ids) and set(x) | set(y) <= {0.0, 1.0}:
        row["p"] = stats.mcnemar(x, y)
    return row


def _values(rows: Sequence[Mapping[str, Any]], task: str, metric: str) -> dict[tuple[str, int], float]:
    return {(r["id"], r["sample"]): r["value"] for r in rows if (r["task"], r["metric"]) == (task, metric)}
