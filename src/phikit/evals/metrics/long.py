"""Graders of long-context tasks, as HELMET (Yen et al. 2024) defines them: SubEM, nDCG@10, exact label, ROUGE-L."""

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


def word_f1(item: Item, answer: Answer) -> Graded:
    """Metric `f1`: SQuAD's word overlap with the nearest of the answers, which needs no judge."""
    return answers.word_f1(replace(item, reference=item.reference["answers"]), answer)


def rouge(item: Item, answer: Answer) -> Graded:
    """Metric `rouge_l`: F1 of the longest common subsequence with the key points, which needs no judge."""
    return Graded({"rouge_l": rouge_l(answer.text, " ".join(item.reference["points"]))}, "scored")


def rouge_l(said: str, reference: str) -> float:
    """ROUGE-L F1 of lower-case words of letters and digits, as rouge-score without a stemmer."""
    a, b = (re.findall(r"[a-z0-9]+", x.lower()) for x in (said, reference))
    row = [0] * (
        len(b) + 1
    )  # longest common subsequence of the words of `a` so far and each beginning of `b`
    for word in a:
        corner = 0
        for j, other in enumerate(b, 1):
            above = row[j]
            row[j] = corner + 1 if word == other else max(above, row[j - 1])
            corner = above
    return 2 * row[-1] / (len(a) + len(b)) if row[-1] else 0.0


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
