"""Pivotal Token Search (report section 4.3): the tokens of an answer that decide whether it comes out right.

p(i) is the probability of a right answer after the first i tokens, estimated by rollouts. A token is pivotal if
it moves p by at least `gap`. Only questions with `low` <= p(0) <= `high` are searched; an answer is cut at the
midpoint of its cumulative log-probability until a part moves p by less than `gap` or is one token long.

Beyond the report, at no cost: p at the end of an answer is exact (0 or 1), and since
p(prefix) = sum over tokens of pi * p(prefix + token), a part whose tokens have probability prod(pi) moves p by at
most 1 - prod(pi): parts that cannot reach the gap are not sampled.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from phikit.jobs.progress import bar
from phikit.preference.rollouts import BudgetSpent, Prefix, Question, Rollout, Rollouts, rollout_id
from phikit.records.types import Preference

Wanted = list[Prefix]


@dataclass(frozen=True)
class SearchConfig:
    """`trajectories` answers a question are searched, right and wrong ones in turn. An alternative token needs
    `least_alternative` rollouts that begin with it before its own p is estimated."""

    gap: float = 0.2
    low: float = 0.2
    high: float = 0.8
    trajectories: int = 2
    least_alternative: int = 2


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a searched answer. p is None where the search had no need to know it."""

    id: int
    p_before: float | None
    p_after: float | None


@dataclass(frozen=True, slots=True)
class Pivot:
    """A pivotal token: after `prefix`, `token` leads to p = `p_after`; `other` is the best verified alternative of
    the opposite direction, with its own p."""

    question: Question
    prefix: Prefix
    token: int
    p_before: float
    p_after: float
    other: int
    p_other: float


@dataclass
class Found:
    """What one question gave."""

    question: Question
    p0: float
    pivots: list[Pivot] = field(default_factory=list)
    answers: list[list[Token]] = field(default_factory=list)
    lone: int = 0  # pivotal tokens without a verified alternative: no pair


@dataclass
class SearchResult:
    found: list[Found]
    skipped: dict[str, int]  # questions by reason
    stopped: str = ""  # why the search ended early


def search(
    questions: Sequence[Question], rollouts: Rollouts, config: SearchConfig, label: str = "pivotal"
) -> SearchResult:
    """Searches all questions side by side: each wave samples what every question wants next."""
    result = SearchResult([], {"too easy": 0, "too hard": 0})
    active: list[tuple[Question, Generator[Wanted, None, Found | None]]] = []
    wanted: list[tuple[Question, Prefix]] = []
    with bar(label, unit="rollouts") as progress:
        for q in questions:
            steps = _explore(q, rollouts, config)
            wanted += [(q, p) for p in next(steps)]
            active.append((q, steps))
        while active:
            try:
                rollouts.ensure(wanted, progress)
            except BudgetSpent as e:
                result.stopped = str(e)
                result.skipped["budget spent"] = len(active)
                break
            wanted, still = [], []
            for q, steps in active:
                try:
                    wanted += [(q, p) for p in next(steps)]
                    still.append((q, steps))
                except StopIteration as end:
                    _keep(result, end.value, rollouts.p(q, ()), config)
            active = still
    return result


def _keep(result: SearchResult, found: Found | None, p0: float, config: SearchConfig) -> None:
    if found is not None:
        result.found.append(found)
    else:
        result.skipped["too easy" if p0 > config.high else "too hard"] += 1


def _explore(q: Question, rollouts: Rollouts, c: SearchConfig) -> Generator[Wanted, None, Found | None]:
    """The search of one question as a coroutine: yields prefixes to sample, ends with what it found."""
    yield [()]
    p0 = rollouts.p(q, ())
    if not c.low <= p0 <= c.high:
        return None
    found = Found(q, p0)
    searches = [_Trajectory(t) for t in _choose(rollouts.of(q, ()), c.trajectories)]
    for s in searches:
        s.open(0, len(s.tokens), c.gap)
    while any(s.open_parts for s in searches):
        cuts = [p for s in searches for p in s.wanted(rollouts, q)]
        if cuts:
            yield cuts
        for s in searches:
            s.subdivide(lambda prefix: rollouts.p(q, prefix), c.gap)
    pivotal = {
        s.tokens[: i + 1]: (s, i) for s in searches for i in s.pivotal(lambda p: rollouts.p(q, p), c.gap)
    }
    yield [prefix[:-1] for prefix in pivotal] + list(pivotal)
    ends = rollouts.engine.stop_ids
    others = {p: _alternatives(p, rollouts.of(q, p[:-1]), rollouts.p(q, p), c, ends) for p in pivotal}
    yield [p[:-1] + (o,) for p, options in others.items() for o in options]
    for prefix, options in others.items():
        pivot = _best(q, prefix, options, rollouts, c)
        if pivot is None:
            found.lone += 1
        else:
            found.pivots.append(pivot)
    found.answers = [s.walk(rollouts, q) for s in searches]
    return found


class _Trajectory:
    """One full answer and the parts of it that are still to be cut."""

    def __init__(self, rollout: Rollout) -> None:
        self.tokens, self.right = rollout.tokens, rollout.right
        self.before = [0.0, *accumulate(rollout.logprobs)]  # cumulative log-probability
        self.open_parts: list[tuple[int, int]] = []
        self.single: list[int] = []

    def open(self, a: int, b: int, gap: float) -> None:
        """Part a..b is to be searched, unless the bound 1 - prod(pi) says that it cannot move p by `gap`."""
        if b - a < 1 or 1 - math.exp(self.before[b] - self.before[a]) < gap:
            return
        if b - a == 1:
            self.single.append(a)
        else:
            self.open_parts.append((a, b))

    def cut(self, a: int, b: int) -> int:
        """Where the running log-probability reaches half of the part's, both sides non-empty."""
        half = (self.before[a] + self.before[b]) / 2
        for i in range(a + 1, b):
            if self.before[i] <= half:
                return i
        return b - 1

    def p(self, i: int, p_of) -> float:
        return float(self.right) if i == len(self.tokens) else p_of(self.tokens[:i])

    def wanted(self, rollouts: Rollouts, q: Question) -> Wanted:
        cuts = {self.cut(a, b) for a, b in self.open_parts}
        return [self.tokens[:i] for i in sorted(cuts) if (q.id, self.tokens[:i]) not in rollouts.known]

    def subdivide(self, p_of, gap: float) -> None:
        parts, self.open_parts = self.open_parts, []
        for a, b in parts:
            m = self.cut(a, b)
            for x, y in ((a, m), (m, b)):
                if abs(self.p(y, p_of) - self.p(x, p_of)) >= gap:
                    self.open(x, y, gap)

    def pivotal(self, p_of, gap: float) -> list[int]:
        """Single tokens that move p by `gap`. The last token is never one: after it there is nothing to choose."""
        moved = (i for i in sorted(set(self.single)) if i + 1 < len(self.tokens))
        return [i for i in moved if abs(self.p(i + 1, p_of) - self.p(i, p_of)) >= gap]

    def walk(self, rollouts: Rollouts, q: Question) -> list[Token]:
        """Every token with p before and after, where known."""
        n = len(self.tokens)
        known = [
            float(self.right)
            if i == n
            else rollouts.p(q, self.tokens[:i])
            if (q.id, self.tokens[:i]) in rollouts.known
            else None
            for i in range(n + 1)
        ]
        return [Token(t, known[i], known[i + 1]) for i, t in enumerate(self.tokens)]


def _choose(rollouts: Sequence[Rollout], count: int) -> list[Rollout]:
    """Right and wrong answers in turn, without repeats, none that was cut."""
    whole = {r.tokens: r for r in rollouts if r.outcome != "truncated" and len(r.tokens) > 1}
    right = [r for r in whole.values() if r.right]
    wrong = [r for r in whole.values() if not r.right]
    turns = [x for pair in zip(right, wrong) for x in pair]
    return turns[:count]


def _alternatives(
    prefix: Prefix, rollouts: Sequence[Rollout], p: float, c: SearchConfig, ends: Sequence[int]
) -> list[int]:
    """First tokens of the rollouts at a pivot that look at least `gap` better or worse than the token taken,
    most different first, two at most. They come from the rollouts that estimated p there (footnote 7). A token of
    `ends` is none: a pair has no end of turn, and after one there is nothing to sample."""
    outcomes: dict[int, list[bool]] = {}
    for r in rollouts:
        if r.tokens and r.tokens[0] not in ends:
            outcomes.setdefault(r.tokens[0], []).append(r.right)
    shares = {
        t: sum(x) / len(x) for t, x in outcomes.items() if t != prefix[-1] and len(x) >= c.least_alternative
    }
    far = [t for t, share in shares.items() if abs(share - p) >= c.gap]
    return sorted(far, key=lambda t: (-abs(shares[t] - p), t))[:2]


def _best(
    q: Question, prefix: Prefix, options: Iterable[int], rollouts: Rollouts, c: SearchConfig
) -> Pivot | None:
    """The alternative whose own estimate is farthest from the token's, if that is still `gap` or more."""
    p = rollouts.p(q, prefix)
    verified = [(rollouts.p(q, prefix[:-1] + (o,)), o) for o in options]
    verified = [(po, o) for po, o in verified if abs(po - p) >= c.gap]
    if not verified:
        return None
    po, other = max(verified, key=lambda x: (abs(x[0] - p), -x[1]))
    return Pivot(q, prefix[:-1], prefix[-1], rollouts.p(q, prefix[:-1]), p, other, po)


def to_pair(pivot: Pivot, text_of) -> Preference:
    """The preference pair of a pivot: two single tokens, no end of turn. `text_of(id)` shows a token."""
    up = pivot.p_after > pivot.p_other
    chosen, rejected = (pivot.token, pivot.other) if up else (pivot.other, pivot.token)
    prefix = pivot.prefix
    meta = {
        "question": pivot.question.id, "kind": pivot.question.kind, "p_before": pivot.p_before,
        "p_chosen": max(pivot.p_after, pivot.p_other), "p_rejected": min(pivot.p_after, pivot.p_other),
        "rollouts": [rollout_id(pivot.question.id, p) for p in (prefix, (*prefix, chosen), (*prefix, rejected))],
    }  # fmt: skip
    return Preference(
        pivot.question.turns, prefix, (chosen,), (rejected,), text_of(chosen), text_of(rejected), "pivotal", meta,
        parents=(pivot.question.id,),
    )  # fmt: skip
