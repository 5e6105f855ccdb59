"""How scores are named, ordered and written: shares in per cent, the rest as they are."""

from __future__ import annotations

from typing import Any

CHECKPOINTS = ("init", "pretrain", "midtrain", "sft", "dpo1", "dpo2")
TASKS = (
    "questions",
    "arithmetic",
    "format",
    "recall_1x",
    "recall_2x",
    "recall_4x",
    "rag_2x",
    "rag_4x",
    "rerank_2x",
    "rerank_4x",
    "icl",
    "icl_2x",
    "icl_4x",
    "qa_2x",
    "qa_4x",
    "summ_2x",
    "summ_4x",
    "choice",
    "preference_wins",
    "bits_per_byte",
)
METRICS = ("sampled", "greedy")
LOWER_IS_BETTER = frozenset({"bits_per_byte", "perplexity", "loss"})
MEANING = {
    "questions": "your held-out questions answered right",
    "arithmetic": "held-out word problems answered exactly",
    "format": "answers that are well-formed and stop by themselves",
    "recall_1x": "key-value recall within the base context",
    "recall_2x": "key-value recall at twice the base context",
    "recall_4x": "key-value recall at four times the base context",
    "rag_2x": "the one of many tables with the key, at twice the base context",
    "rag_4x": "the one of many tables with the key, at four times the base context",
    "rerank_2x": "ids of what is about the query before the others, at twice the base context",
    "rerank_4x": "ids of what is about the query before the others, at four times the base context",
    "icl": "label the pattern from examples in the prompt",
    "icl_2x": "the same with examples that fill twice the base context",
    "icl_4x": "the same with examples that fill four times the base context",
    "qa_2x": "one word problem among others, at twice the base context",
    "qa_4x": "one word problem among others, at four times the base context",
    "summ_2x": "say all three values of a key, at twice the base context",
    "summ_4x": "say all three values of a key, at four times the base context",
    "choice": "multiple choice by log-likelihood",
    "bits_per_byte": "held-out organic text; lower is better",
    "preference_wins": "answers the verifier prefers",
}


def lower_is_better(task: str, metric: str = "") -> bool:
    return task in LOWER_IS_BETTER or metric in LOWER_IS_BETTER


def is_share(task: str, metric: str = "") -> bool:
    """Whether the score is a share of rows (shown in per cent)."""
    return not lower_is_better(task, metric)


def column_order(key: tuple[str, str]) -> tuple[Any, ...]:
    """Sort key of a (task, metric) column: the recipe's own tasks first, sampled before greedy."""
    task, metric = key
    return (
        TASKS.index(task) if task in TASKS else len(TASKS),
        task,
        METRICS.index(metric) if metric in METRICS else len(METRICS),
        metric,
    )


def checkpoint_order(name: str) -> tuple[int, str]:
    return (CHECKPOINTS.index(name) if name in CHECKPOINTS else len(CHECKPOINTS), name)


def score_text(task: str, metric: str, value: float | None) -> str:
    """`41.2` (per cent) for a share, `2.314` for bits."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if is_share(task, metric) else f"{value:.3f}"


def with_interval(row: dict[str, Any]) -> str:
    """`41.2 % [38.9, 43.5]`"""
    task, metric = row["task"], row["metric"]
    unit = " %" if is_share(task, metric) else ""
    low, high = (score_text(task, metric, row.get(k)) for k in ("low", "high"))
    return f"{score_text(task, metric, row.get('value'))}{unit} [{low}, {high}]"


def short(n: float | None) -> str:
    """`950`, `12.3 k`, `1.30 M`, `9.81 T`."""
    if n is None:
        return "unknown"
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(n) >= size:
            x = n / (1e3 if unit == "k" else size)
            return f"{x:.2f} {unit}" if x < 10 else f"{x:.1f} {unit}" if x < 100 else f"{x:.0f} {unit}"
    return f"{n:,.0f}" if float(n).is_integer() or abs(n) >= 100 else f"{n:.3g}"


def duration(seconds: float | None) -> str:
    """`0.4 s`, `42 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
