"""Unknowns: a model learns to say that it does not know (report section 4.4, appendix A.1).

Each question with a known answer is asked several times. Where the model is usually right it shall answer, where
it is usually wrong it shall refuse, and questions that nobody can answer (`answer` "") are refused always. SFT gets
one dialog a question; DPO gets "correct over refusal" for what it sometimes knows and "refusal over wrong" for what
it sometimes gets wrong, both cut to the first five tokens of the response: there the choice is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from phikit.engine.base import Engine
from phikit.preference.judged import Reply, answers
from phikit.preference.questions import is_right
from phikit.preference.rollouts import Question
from phikit.records.types import Dialog, Preference, Turn
from phikit.verify.refusal import refuses

Grade = Literal["right", "wrong", "refused", "unclear"]
Grader = Callable[[Question, str], Grade]
FIRST = 5  # response tokens of a DPO pair (facts section 5.5)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, the model's replies to it and their grades."""

    question: Question
    replies: tuple[Reply, ...]
    grades: tuple[Grade, ...]

    def share(self, grade: Grade) -> float:
        return self.grades.count(grade) / len(self.grades)

    def texts(self, grade: Grade) -> list[Reply]:
        """Distinct replies of a grade, the most frequent first."""
        found = [r for r, g in zip(self.replies, self.grades) if g == grade]
        times = Counter(r.text for r in found)
        first = {r.text: r for r in reversed(found)}
        return [first[t] for t, _ in sorted(times.items(), key=lambda x: (-x[1], x[0]))]


@dataclass(frozen=True, slots=True)
class Variants:
    """What was written for a question: a correct answer ("" where there is none) and a refusal."""

    correct: str
    refusal: str


@dataclass(frozen=True, slots=True)
class Rules:
    """The report says "usually" and "sometimes" and gives no numbers. `usually`: share of replies from which on a
    question counts as usually right, or wrong. `sometimes`: share that must be exceeded."""

    usually: float = 0.5
    sometimes: float = 0.0
    first: int = FIRST
    wrongs: int = 1  # different wrong replies of a question that get a pair


@dataclass
class UnknownCounts:
    """Pairs made and dialogs written, by their rule; `same_start`: both sides begin with the same tokens."""

    pairs: dict[str, int] = field(default_factory=dict)
    dialogs: dict[str, int] = field(default_factory=dict)
    same_start: int = 0
    no_variant: int = 0
    in_between: int = 0  # neither usually right nor usually wrong


def grade(question: Question, text: str) -> Grade:
    """By the verifier: a refusal, else right or wrong; `unclear` where no answer can be read. A question without
    an answer has no right one."""
    if refuses(text):
        return "refused"
    if not question.answer:
        return "wrong" if text.strip() else "unclear"
    right = is_right(question, text)
    return "unclear" if right is None else "right" if right else "wrong"


def ask_repeatedly(
    engine: Engine,
    questions: Sequence[Question],
    *,
    n: int,
    temperature: float,
    max_tokens: int,
    seed: int,
    grader: Grader = grade,
) -> list[Asked]:
    """Every question `n` times, graded. The report asks the base model; any engine will do."""
    given = answers(
        engine, questions, responder="asked", n=n, temperature=temperature, max_tokens=max_tokens, seed=seed
    )
    return [
        Asked(q, tuple(given[q.id]), tuple(grader(q, r.text) for r in given[q.id])) for q in questions
    ]  # fmt: skip


def sft_dialogs(
    asked: Sequence[Asked], variants: Mapping[str, Variants], rules: Rules, counts: UnknownCounts
) -> list[Dialog]:
    """(question, correct) when usually right, (question, refusal) when usually wrong, (unanswerable, refusal)
    always."""
    out: list[Dialog] = []
    for a in asked:
        written = variants.get(a.question.id)
        if written is None:
            counts.no_variant += 1
            continue
        if not a.question.answer:
            rule, text = "bogus", written.refusal
        elif a.share("right") >= rules.usually:
            rule, text = "known", written.correct
        elif a.share("wrong") >= rules.usually:
            rule, text = "unknown", written.refusal
        else:
            counts.in_between += 1
            continue
        counts.dialogs[rule] = counts.dialogs.get(rule, 0) + 1
        meta = {"kind": "unknown", "rule": rule, "right": a.share("right"), "wrong": a.share("wrong")}
        out.append(Dialog((*a.question.turns, Turn("assistant", text)), "unknown", meta, (a.question.id,)))
    return out


def dpo_pairs(
    asked: Sequence[Asked],
    variants: Mapping[str, Variants],
    encode: Callable[[str], Sequence[int]],
    end: int,
    rules: Rules,
    counts: UnknownCounts,
) -> list[Preference]:
    """Correct over refusal where the model is sometimes right, refusal over its own wrong reply where it is sometimes
    wrong; both may hold for one question. `encode` and `end` (end of turn) belong to the model to be trained."""
    out: list[Preference] = []
    for a in asked:
        written = variants.get(a.question.id)
        if written is None:
            counts.no_variant += 1
            continue
        refusal = (written.refusal, (*encode(written.refusal), end))
        if written.correct and a.share("right") > rules.sometimes:
            correct = (written.correct, (*encode(written.correct), end))
            out += _pair(a, correct, refusal, "correct_over_refusal", rules, counts)
        if a.share("wrong") > rules.sometimes:
            for r in a.texts("wrong")[: rules.wrongs]:
                rule = "refusal_over_wrong" if a.question.answer else "refusal_over_bogus"
                out += _pair(a, refusal, (r.text, r.tokens), rule, rules, counts)
    return out


def _pair(a: Asked, chosen, rejected, rule: str, rules: Rules, counts: UnknownCounts) -> list[Preference]:
    better, worse = tuple(chosen[1][: rules.first]), tuple(rejected[1][: rules.first])
    if better == worse:
        counts.same_start += 1
        return []
    counts.pairs[rule] = counts.pairs.get(rule, 0) + 1
    meta = {
        "question": a.question.id, "rule": rule, "right": a.share("right"), "wrong": a.share("wrong"),
        "n": len(a.grades), "first_tokens": rules.first,
    }  # fmt: skip
    return [
        Preference(
            a.question.turns,
            (),
            better,
            worse,
            chosen[0],
            rejected[0],
            "unknown",
            meta,
            parents=(a.question.id,),
        )
    ]
