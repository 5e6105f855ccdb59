"""Contamination of the world's held-out items, and the scores without those that overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from phikit.evals.contamination import N, item_text, overlap
from phikit.evals.world.plan import Item
from phikit.evals.world.run import summarize
from phikit.text import ngrams


def contamination(
    held: Mapping[str, Sequence[Item]], rows: Sequence[Mapping[str, Any]], training: Iterable[str]
) -> dict[str, Any]:
    """{rule, tasks: {task: {items, contaminated, share, too_short}}, clean: scores on the items without a
    hit}.

    `too_short` counts items of fewer than 13 words, in which nothing can be found. Task `format` has the
    items of `arithmetic`.
    """
    hits = overlap(held, training)
    tasks = {}
    for task, items in held.items():
        counts = np.diff(ngrams.words([item_text(i) for i in items]).offsets)
        tasks[task] = {
            "items": len(items),
            "contaminated": len(hits[task]),
            "share": len(hits[task]) / len(items),
            "too_short": int((counts < N).sum()),
        }
    hits = {**hits, "format": hits.get("arithmetic", set())}
    clean = summarize(r for r in rows if r["id"] not in hits[r["task"]])
    kept = ("checkpoint", "task", "metric", "value", "low", "high", "n")
    return {
        "rule": f"an item counts as contaminated when {N} words in a row also occur in the training text",
        "tasks": tasks,
        "clean": [{k: s[k] for k in kept} for s in clean],
    }
