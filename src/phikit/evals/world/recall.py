"""Key-value recall at one, two and four times the base context: the closed world's place for HELMET's recall
(report section 3.3).

Items: {id, prompt, answer}; the answer is the text that follows the prompt, with its leading blank. `exact`:
every token of the answer is the arg-max given the ones before, which is greedy decoding at the price of one
forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from phikit.evals.world.plan import Item, Prompter, Row, Scored, Settings, field
from phikit.records.types import Score

TASKS = ("recall_1x", "recall_2x", "recall_4x")


def exact(
    task: str, items: Sequence[Item], ask: Prompter, settings: Settings, *, metric: str = "exact"
) -> Scored:
    requests = [ask.continuation(field(i, "prompt", task), str(field(i, "answer", task))) for i in items]

    def rows(scores: Sequence[Score]) -> list[Row]:
        return [
            Row(task, metric, str(i["id"]), float(s.greedy), "right" if s.greedy else "wrong")
            for i, s in zip(items, scores)
        ]

    return Scored(requests, rows)
