"""The report's own figures beside ours, with the reason why none of the closed world's can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# task: (nearest figure of the report, its table, after SFT, DPO 1 and final, in per cent; why not comparable)
NEAREST = {
    "arithmetic": ("MATH", "Table 9", 77.1, 80.5, 80.4, "competition mathematics; ours are short sums"),
    "format": ("IFEval", "Table 9", 66.2, 63.0, 63.0, "many kinds of instruction; ours is one form"),
    "preference_wins": ("ArenaHard", "Table 9", 56.7, 66.5, 75.4, "open questions, a judge; ours a rubric"),
    "choice": ("MMLU", "Table 9", 82.8, 84.8, 84.8, "57 school subjects; ours is a closed world"),
    "recall_1x": ("HELMET recall 8K", "Table 6", None, None, 100.0, "8,192 tokens; ours the base context"),
    "recall_4x": ("HELMET recall 16K", "Table 6", None, None, 99.0, "16,384 tokens; ours 4x base context"),
    "icl": ("HELMET ICL 16K", "Table 6", None, None, 77.0, "five intent data sets; ours is one pattern"),
    "recall_2x": (None, None, None, None, None, "the report has no figure between 8K and 16K"),
    "bits_per_byte": (None, None, None, None, None, "the report gives no loss or perplexity"),
}  # fmt: skip


def beside(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every task with scores: {task, published, table, figures: {sft, dpo1, final} in per cent,
    comparable, reason}. `comparable` is False for each of these tasks; a task not in the table is an error
    (KeyError)."""
    out = []
    for task in dict.fromkeys(str(s["task"]) for s in scores):
        name, table, sft, dpo1, final, reason = NEAREST[task]
        figures = {"sft": sft, "dpo1": dpo1, "final": final}
        out.append(
            {
                "task": task,
                "published": name,
                "table": table,
                "figures": figures,
                "comparable": False,
                "reason": reason,
            }
        )
    return out
