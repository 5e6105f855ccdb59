"""HELMET's categories beside recall at multiples of the base context (report section 3.3), with scores that need no
judge.

rag {prompt, answer}: `sub_em`, the answer is what the model says first (every token of it the arg-max, as in recall).
rerank {prompt, choices, relevant}: `ndcg`, nDCG@10 of the ids of the documents in the order of their log-probabilities.
icl: `acc`, as task `icl`. qa {question, answer, max_tokens}: `exact`, as in arithmetic. summ {prompt, facts,
max_tokens}: `f1` of the facts that were said against the true ones, in place of a judge's key points. qa is asked as
`Prompter` asks; the others are plain text for all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from phikit.evals.metrics.long import ndcg
from phikit.evals.world import arithmetic, choice, recall
from phikit.evals.world.plan import Generated, Item, Plan, Prompter, Row, Scored, Settings, field
from phikit.records.types import Completion, Score

RANKED = 10


def plans(held: Mapping[str, Sequence[Item]], ask: Prompter, settings: Settings) -> list[tuple[str, Plan]]:
    """(task, plan) of the long tasks that `held` has: names end in the multiple, `rag_2x`."""
    makers = {"rag": _rag, "rerank": _rerank, "icl": choice.acc, "qa": _qa, "summ": _summ}
    named = [(task, makers.get(task.partition("_")[0])) for task in held]
    return [(task, make(task, held[task], ask, settings)) for task, make in named if make and "_" in task]


def _rag(task: str, items: Sequence[Item], ask: Prompter, settings: Settings) -> Scored:
    return recall.exact(task, items, ask, settings, metric="sub_em")


def _qa(task: str, items: Sequence[Item], ask: Prompter, settings: Settings) -> Generated:
    requests = [
        ask.question(field(i, "question", task), max_tokens=field(i, "max_tokens", task)) for i in items
    ]

    def rows(results: Sequence[list[Completion]]) -> list[Row]:
        out = []
        for item, (c,) in zip(items, results):
            result = arithmetic.outcome(c, str(field(item, "answer", task)))
            out.append(Row(task, "exact", str(item["id"]), float(result == "right"), result))
        return out

    return Generated(requests, rows)


def _summ(task: str, items: Sequence[Item], ask: Prompter, settings: Settings) -> Generated:
    requests = [ask.plain(field(i, "prompt", task), max_tokens=field(i, "max_tokens", task)) for i in items]

    def rows(results: Sequence[list[Completion]]) -> list[Row]:
        out = []
        for item, (c,) in zip(items, results):
            value = _said(c.text, item["prompt"].rpartition(" ")[2], set(field(item, "facts", task)))
            out.append(Row(task, "f1", str(item["id"]), value, "right" if value == 1.0 else "wrong"))
        return out

    return Generated(requests, rows)


def _said(text: str, subject: str, facts: set[str]) -> float:
    """F1 of what is said of `subject` in "mo, ka zu, be ti": its first word and what follows the subject."""
    said = set(re.findall(rf"(?:^|\b{subject}) (\w+)", text))
    return 2 * len(said & facts) / (len(said) + len(facts))


def _rerank(task: str, items: Sequence[Item], ask: Prompter, settings: Settings) -> Scored:
    requests = [ask.continuation(field(i, "prompt", task), c) for i in items for c in i["choices"]]

    def rows(scores: Sequence[Score]) -> list[Row]:
        out, at = [], 0
        for item in items:
            choices, relevant = field(item, "choices", task), field(item, "relevant", task)
            some = [s.logprob for s in scores[at : at + len(choices)]]
            at += len(choices)
            order = sorted(range(len(choices)), key=lambda k: -some[k])
            gain = ndcg([choices[k] for k in order], dict(zip(choices, relevant)), RANKED)
            out.append(Row(task, "ndcg", str(item["id"]), gain, "right" if gain > 1 - 1e-9 else "wrong"))
        return out

    return Scored(requests, rows)
