"""Graders of long-context tasks, as HELMET (Yen et al. 2024) defines them: SubEM, nDCG@10, exact label."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from phikit.evals.metrics import answers
from phikit.evals.task import Answer, Graded, Item


def sub_em(item: Item, answer: Answer) -> Graded:
    """Metric `sub_em`: one of the answers occurs in what was said, both normalized as SQuAD does."""
    found = answers.contains(replace(item, reference=item.reference["answers"]), answer)
    return replace(found, scores={"sub_em": found.scores["contains"]})


def ranked(item: Item, answer: Answer) -> Graded:
    """Metric `ndcg@10` of the ids in the order in which the answer names them; ids that were not shown, and
    repetitions, are left out. `right` is a perfect order."""
    labels: Mapping[str, float] = item.reference["labels"]
    said = list(dict.fromkeys(x for x in re.findall(r"\d+", answer.text) if x in labels))
    if not said:
        return Graded({"ndcg@10": 0.0}, "unparsed")
    value = ndcg(said, labels, 10)
    return Graded({"ndcg@10": value}, "right" if value > 1 - 1e-9 else "wrong", " > ".join(said))


def ndcg(order: Sequence[str], labels: Mapping[str, float], k: int) -> float:
    """Discounted cumulative gain of the first k, over the best possible: linear gains, log2 discounts (trec_eval's
    ndcg_cut). 0 where nothing is relevant."""

    def gain(values: Sequence[float]) -> float:
        return math.fsum(v / math.log2(i + 2) for i, v in enumerate(values[:k]))

    best = gain(sorted(labels.values(), reverse=True))
    return gain([labels.get(x, 0.0) for x in order]) / best if best > 0 else 0.0


def label(item: Item, answer: Answer) -> Graded:
    """Metric `acc`: the first integer of the first line is the label's."""
    found = re.search(r"\d+", answer.text.strip().partition("\n")[0])
    if found is None:
        return answers.verdict("acc", answers.Verdict.unparsed)
    right = int(found[0]) == item.reference["label"]
    return answers.verdict("acc", answers.Verdict.right if right else answers.Verdict.wrong, found[0])
