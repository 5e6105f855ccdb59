"""Multiple choice by log-likelihood: the choice with the highest sum of log-probabilities (report section 3's
protocol for MMLU and ARC). `icl` is the same with the labels of the pattern as choices.

Items: choice {id, prompt, choices, gold: index}; icl {id, prompt, choices, answer: one of the choices}. A
choice is the text that follows the prompt, with its leading blank where it has one.
"""

from __future__ import annotations

from collections.abc import Sequence

from phikit.evals.world.plan import Item, Prompter, Row, Scored, Settings, field
from phikit.records.types import Score

TASKS = ("icl", "choice")


def acc(task: str, items: Sequence[Item], ask: Prompter, settings: Settings) -> Scored:
    gold = [_gold(task, i) for i in items]
    requests = [ask.continuation(field(i, "prompt", task), c) for i in items for c in i["choices"]]

    def rows(scores: Sequence[Score]) -> list[Row]:
        out, at = [], 0
        for item, right in zip(items, gold):
            some = [s.logprob for s in scores[at : at + len(item["choices"])]]
            at += len(some)
            hit = some.index(max(some)) == right and some.count(max(some)) == 1
            out.append(Row(task, "acc", str(item["id"]), float(hit), "right" if hit else "wrong"))
        return out

    return Scored(requests, rows)


def _gold(task: str, item: Item) -> int:
    choices = list(field(item, "choices", task))
    gold = item.get("gold")
    if gold is None:
        answer = field(item, "answer", task)
        gold = choices.index(answer) if answer in choices else None
    if not isinstance(gold, int) or not 0 <= gold < len(choices) or len(set(choices)) < len(choices):
        raise ValueError(
            f"task {task}, item {item.get('id')}: needs distinct choices, `gold` (index) or `answer` (of "
            f"them); got gold {item.get('gold')!r}, answer {item.get('answer')!r}, choices {choices}"
        )
    return gold
