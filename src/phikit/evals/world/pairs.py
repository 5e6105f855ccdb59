"""Which checkpoints of a run are compared, and on what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phikit.evals.compare import compare

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
LONG_PAIRS = (
    ("midtrain", "pretrain", "rag_4x", "sub_em"),
    ("midtrain", "pretrain", "rerank_4x", "ndcg"),
    ("midtrain", "pretrain", "icl_4x", "acc"),
    ("midtrain", "pretrain", "qa_4x", "exact"),
    ("midtrain", "pretrain", "summ_4x", "f1"),
)


def comparisons(rows_by_checkpoint: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One row for each pair whose two checkpoints have that task: {name, a, b, task, metric, value, low,
    high, n, clusters, method, verdict, p?}. `value` is the mean of a - b, its interval clustered by item;
    `verdict` is higher, lower or no visible change (the interval holds 0); `p` is McNemar's exact test where
    each item has one 0/1 row.
    """
    out = []
    for a, b, task, metric in (*PAIRS, *LONG_PAIRS):
        if all(any(r["task"] == task for r in rows_by_checkpoint.get(name, ())) for name in (a, b)):
            out.append(compare(a, rows_by_checkpoint[a], b, rows_by_checkpoint[b], task, metric))
    return out
