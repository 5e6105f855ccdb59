"""What pivotal pairs are compared with, from the rollouts of the same search (report section 4.3 argues against both),
and what tells pivotal pairs that choose a path from those that choose a fact.

whole answers   a right answer over a wrong one, from the first token to the end of turn
random tokens   the form of pivotal pairs at tokens that are not pivotal: the token that a right rollout takes next over
                the one that a wrong rollout takes there
holding         a pair holds elsewhere when its chosen token beats its rejected one after the same few tokens in the
                rollouts of *other* questions too. A choice of path does; a digit is better in its own sum alone
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from phikit.preference.answer import common
from phikit.preference.rollouts import Prefix, Question, Rollout
from phikit.records.types import Preference

Text = Callable[[Sequence[int]], str]
Known = Mapping[tuple[str, Prefix], Sequence[Rollout]]  # (question id, prefix) -> its rollouts
CONTEXT = 3  # tokens before a choice that say what kind of choice it is
LEAST = 20  # rollouts of other questions that each token needs in such a context, or a shorter one is taken


def whole_answer_pairs(
    question: Question, answers: Iterable[Rollout], count: int, rng: random.Random, text: Text
) -> list[Preference]:
    """At most `count` pairs of a right over a wrong whole answer; every answer is used before one is used again.
    `answers` were sampled from the empty prefix; one cut by the token limit is on neither side."""
    sides: dict[bool, list[Prefix]] = {True: [], False: []}
    for r in answers:
        if r.outcome != "truncated" and r.tokens not in sides[r.right]:
            sides[r.right].append(r.tokens)
    right, wrong = (rng.sample(sides[s], len(sides[s])) for s in (True, False))
    out: dict[tuple[Prefix, Prefix], Preference] = {}
    for k in range(len(right) * len(wrong)):
        turn = k // max(len(right), len(wrong))
        two = right[k % len(right)], wrong[(k + turn) % len(wrong)]
        if len(out) < count and two not in out:
            out[two] = _pair(question, (), *two, "whole", text)
    return list(out.values())


def random_token_pairs(
    question: Question,
    answers: Iterable[Prefix],
    pivotal: Iterable[Prefix],
    known: Known,
    count: int,
    rng: random.Random,
    text: Text,
) -> list[Preference]:
    """At most `count` one-token pairs along `answers`, at places drawn at random among those that are not in `pivotal`
    (prefixes where a pivotal token was found) and where rollouts of both outcomes take different tokens."""
    closed = set(pivotal)
    places: dict[Prefix, dict[bool, list[int]]] = {}
    for answer in answers:
        for i, taken in next_tokens(question.id, answer, known).items():
            if answer[:i] not in closed and any(a != b for a in taken[True] for b in taken[False]):
                places[answer[:i]] = taken
    out: dict[tuple[Prefix, int, int], Preference] = {}
    for _ in range(20 * count if places else 0):
        prefix = rng.choice(sorted(places))
        good, bad = rng.choice(places[prefix][True]), rng.choice(places[prefix][False])
        if good != bad and len(out) < count:
            out.setdefault((prefix, good, bad), _pair(question, prefix, (good,), (bad,), "random", text))
    return list(out.values())


def next_tokens(question: str, answer: Prefix, known: Known) -> dict[int, dict[bool, list[int]]]:
    """For each depth of an answer, the tokens that rollouts through it take next, by whether they come out right. A
    token is counted where it was sampled, not where it was given."""
    out: dict[int, dict[bool, list[int]]] = {}
    for (q, prefix), rollouts in known.items():
        if q != question or prefix != answer[: len(prefix)]:
            continue
        for r in rollouts:
            if r.outcome == "truncated":
                continue
            whole = prefix + r.tokens
            last = min(common(whole, answer), len(answer) - 1, len(whole) - 1)
            for i in range(len(prefix), last + 1):
                out.setdefault(i, {True: [], False: []})[r.right].append(whole[i])
    return out


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Outcomes of a pair's two tokens in other questions, after the same `context` tokens. `n` 0: never seen."""

    context: int
    n_chosen: int
    right_chosen: int
    n_rejected: int
    right_rejected: int

    @property
    def difference(self) -> float:
        """Share of right answers after the chosen token less that after the rejected one; 0 where one was not seen."""
        if not self.n_chosen or not self.n_rejected:
            return 0.0
        return self.right_chosen / self.n_chosen - self.right_rejected / self.n_rejected


class Moves:
    """How often each token came out right after the last few tokens before it, by question."""

    def __init__(self, known: Known) -> None:
        self._by: dict[tuple[Prefix, int], dict[str, list[int]]] = {}
        for (question, prefix), rollouts in known.items():
            for r in rollouts:
                whole = prefix + r.tokens
                for i in range(len(prefix), len(whole)):
                    for k in range(CONTEXT + 1):
                        tally = self._by.setdefault((_context(whole, i, k), whole[i]), {})
                        seen = tally.setdefault(question, [0, 0])
                        seen[0] += 1
                        seen[1] += r.right

    def elsewhere(self, pair: Preference) -> Elsewhere:
        """The longest context in which both tokens were seen LEAST times in other questions, else the shortest."""
        whole, i = pair.prefix_ids, len(pair.prefix_ids)
        found = Elsewhere(0, 0, 0, 0, 0)
        for k in range(CONTEXT, -1, -1):
            n = [
                self._outside(_context(whole, i, k), t[0], pair) for t in (pair.chosen_ids, pair.rejected_ids)
            ]
            found = Elsewhere(k, *n[0], *n[1])
            if min(found.n_chosen, found.n_rejected) >= LEAST:
                break
        return found

    def _outside(self, context: Prefix, token: int, pair: Preference) -> tuple[int, int]:
        by = self._by.get((context, token), {})
        others = [v for q, v in by.items() if q != pair.meta["question"]]
        return sum(n for n, _ in others), sum(r for _, r in others)


def holds_elsewhere(pair: Preference, moves: Moves, least: float) -> bool:
    """Whether the chosen token is right at least `least` more often than the rejected one in other questions."""
    return moves.elsewhere(pair).difference >= least


def recovers(pair: Preference) -> bool:
    """Whether any rollout of the same question came out right after the rejected token: a shrunk share of 1/2 right in
    n is what none right in n gives."""
    return pair.meta["p_rejected"] * (pair.meta["n_rejected"] + 1) > 0.75


def _context(whole: Prefix, i: int, k: int) -> Prefix:
    """The k tokens before i, with -1 for the beginning of the answer."""
    return ((-1,) * max(0, k - i)) + whole[max(0, i - k) : i]


def _pair(q: Question, prefix: Prefix, chosen: Prefix, rejected: Prefix, form: str, text: Text) -> Preference:
    kind = "judged" if form == "whole" else "pivotal"
    meta = {"question": q.id, "kind": q.kind, "form": form}
    return Preference(
        q.turns, prefix, chosen, rejected, text(chosen), text(rejected), kind, meta, parents=(q.id,)
    )
