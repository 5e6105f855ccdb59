"""The parts of one answer that may hold a pivotal token: which prefix to sample next, and when a part is decided.

A part a..b is cut where its cumulative log-probability reaches half, until it is given up or holds one candidate token;
that token is tested, and when it passes, an alternative to it is verified by rollouts of its own.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from phikit.preference.answer import Answer, common
from phikit.preference.evalues import Stream, chance, log_e_change, log_e_difference, log_ratio
from phikit.preference.priors import Prior, Priors, Tokens, far_mass, kind_of, tilted
from phikit.preference.rollouts import Prefix, Question, Rollout

NONE = Stream(0, 0)
NO_EFFECT, NEARLY = 0.1, 0.75  # of the gap
OPTIONS = 3  # alternatives that are tried at a pivotal token
Wanted = tuple[Prefix, int]  # a prefix and how many rollouts of it there should be
Key = tuple[str, Prefix, int]  # a token: question, what stands before it, its id


@dataclass(frozen=True)
class SearchConfig:
    """`trajectories` answers a question are searched, right and wrong ones in turn. `rollouts` is the most that is
    spent on each side of one decision. A token is listed when its posterior chance of a change of 3/4 gap is at least
    1 - `error`; with `certified` also only when e-BH at `error` rejects that it has no effect: more rollouts. Without
    `pairs` tokens are listed only: no alternative is verified.

    What follows steers cost, never validity: `first` rollouts of a question; then `few` a side to begin with, and
    `least_more` to `most` at a time; a part is cut after `part` a side, and given up when its chance of a change of
    `gap` is below `hopeless`. `active` questions are searched side by side."""

    gap: float = 0.2
    low: float = 0.2
    high: float = 0.8
    trajectories: int = 2
    rollouts: int = 96
    error: float = 0.05
    certified: bool = False
    pairs: bool = True
    first: int = 20
    few: int = 6
    least_more: int = 4
    most: int = 8
    hopeless: float = 0.05
    part: int = 16
    active: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.gap < 1 or not 0 < self.error < 1:
            raise ValueError(
                f"pivotal search needs 0 < gap < 1 and 0 < error < 1, not {self.gap} and {self.error}"
            )
        if min(self.trajectories, self.rollouts, self.first, self.few, self.part, self.active) < 1:
            raise ValueError(
                "pivotal search: trajectories, rollouts, first, few, part and active are at least 1"
            )

    @property
    def least(self) -> float:
        """A change up to this counts as none: what the e-values reject."""
        return NO_EFFECT * self.gap

    @property
    def nearly(self) -> float:
        """The change that a listed token has with a posterior chance of 1 - error."""
        return NEARLY * self.gap


@dataclass(frozen=True, slots=True)
class Pivot:
    """A pivotal token: `token` after `prefix`, with the outcomes after it (`taken`) and after every other token
    (`apart`). `change` estimates p(prefix + token) - p(prefix). `other` is the alternative it is paired with."""

    question: Question
    prefix: Prefix
    token: int
    probability: float
    taken: Stream
    apart: Stream
    log_e: float
    likely: float
    weight: float
    other: int | None = None
    outcomes: Stream = NONE
    log_e_pair: float = -math.inf
    likely_pair: float = 0.0

    @property
    def key(self) -> Key:
        return self.question.id, self.prefix, self.token

    @property
    def change(self) -> float:
        return (1 - self.probability) * (self.taken.mean - self.apart.mean)

    @property
    def before(self) -> float:
        return self.taken.mean - self.change


@dataclass
class Run:
    """What the stopping rule of one test needs to know of the others: e-BH rejects from e = candidates / (error x
    rejected) on, and about one pivotal token an answer is expected until there are more."""

    error: float
    certified: bool = False
    candidates: int = 0
    answers: int = 0
    pivots: int = 0
    priors: Priors = field(default_factory=Priors)
    tokens: Tokens = field(default_factory=Tokens)

    @property
    def needed(self) -> float:
        if not self.certified:
            return -math.inf
        return math.log(max(1, self.candidates) / max(1, self.answers, self.pivots) / self.error)


class Parts:
    """The parts of one answer that are still open, and the tokens under test."""

    def __init__(
        self,
        question: Question,
        answer: Answer,
        c: SearchConfig,
        ends: Sequence[int],
        picked: Sequence[Rollout],
        run: Run,
        priors: dict[str, Prior],
    ) -> None:
        self.question, self.answer, self.c, self.ends = question, answer, c, frozenset(ends)
        self.open: list[tuple[int, int]] = [(0, len(answer))]
        self.tokens: dict[int, str] = {}  # candidate -> testing | pairing | done
        self.run, self.priors = run, priors
        self.passed: set[int] = set()
        self.slots: dict[int, _Slot] = {}
        # Where another answer leaves this one, its token is an alternative that was fixed before any outcome was seen.
        # The answer that was sampled later keeps it; the earlier one looks for another, so that no pair comes twice.
        self.fixed: dict[int, int] = {}
        for other in picked[: next(i for i, x in enumerate(picked) if x.tokens == answer.tokens)]:
            i = common(answer.tokens, other.tokens)
            if i < min(len(answer), len(other.tokens)):
                self.fixed.setdefault(i, other.tokens[i])
        self.taboo = {
            common(answer.tokens, x.tokens): x.tokens[common(answer.tokens, x.tokens)]
            for x in picked
            if x.tokens != answer.tokens and common(answer.tokens, x.tokens) < min(len(answer), len(x.tokens))
        }

    def step(self) -> list[Wanted]:
        wanted: list[Wanted] = []
        todo, self.open = self.open, []
        while todo:
            a, b = todo.pop()
            verdict = self._part(a, b)
            if isinstance(verdict, int):
                todo += [(verdict, b), (a, verdict)]
            elif verdict:
                wanted += verdict
                self.open.append((a, b))
        for i, state in self.tokens.items():
            # Rollouts for other purposes may take a verdict back.
            if state != "testing" and i in self.passed and self._likely(i) < 1 - self.c.error:
                self.passed.discard(i)
                self.tokens[i] = state = "testing"
            if state == "testing":
                wanted += self._test(i)
        for i, state in self.tokens.items():
            if state == "pairing":
                wanted += self._pair(i)
        return wanted

    # -- parts ------------------------------------------------------------------------------------------------------

    def _part(self, a: int, b: int) -> list[Wanted] | int:
        """What a part wants: rollouts, to be cut at a depth, or nothing any more."""
        inside = [i for i in self.answer.candidates if a <= i < b]
        if not inside or self.answer.bound(a, b) < self.c.gap:
            return []
        if len(inside) == 1:
            self.tokens.setdefault(inside[0], "testing")
            return []
        taken, apart = self.answer.at(b), self.answer.apart(a, b)
        least = min(_n(taken), apart.n)
        if least < self.c.few:
            return self._both(a, b, self.c.few)
        likely = chance(taken, apart, self.c.gap / self.answer.bound(a, b))
        if likely < self.c.hopeless:
            return []
        if likely > 0.5 or least >= self.c.part:
            return self._cut(a, b, inside)
        return self._both(a, b, self.c.part)

    def _both(self, a: int, b: int, each: float) -> list[Wanted]:
        """Rollouts of both sides of the part a..b until each has about `each` outcomes; at least a few."""
        taken, apart = self.answer.at(b), self.answer.apart(a, b)
        wanted = []
        if (lack := each - apart.n) > 0:
            wanted.append((self.answer.tokens[:a], lack / max(self.answer.bound(a, b), 0.2)))
        if (lack := each - _n(taken)) > 0:
            wanted.append((self.answer.tokens[:b], lack))
        return [(p, min(self.c.most, max(self.c.least_more, math.ceil(n)))) for p, n in wanted]

    def _cut(self, a: int, b: int, inside: list[int]) -> int:
        """Where the running log-probability is nearest to half of the part's, at an edge of a candidate."""
        s = self.answer.surprise
        half = (s[a] + s[b]) / 2
        edges = {e for i in inside for e in (i, i + 1) if a < e < b}
        edges = {e for e in edges if any(i < e for i in inside) and any(i >= e for i in inside)}
        return min(edges, key=lambda e: (abs(s[e] - half), e))

    # -- tokens -----------------------------------------------------------------------------------------------------

    def _test(self, i: int) -> list[Wanted]:
        taken, apart = self.answer.at(i + 1), self.answer.apart(i, i + 1)
        likely, scale = self._likely(i), self.answer.bound(i, i + 1)
        self.run.tokens.note(self._key(i), self._alike(i), likely)
        if min(taken.n, apart.n) < self.c.few:
            if chance(taken, apart, self.c.gap / scale, self._expected(i)) < self.c.hopeless:
                self.tokens[i] = "done"
                return []
            return self._both(i, i + 1, self.c.few)
        log_e, needed = self._log_e(i), self.run.needed - math.log(self.answer.weights[i])
        if log_e >= needed and likely >= 1 - self.c.error:
            self.tokens[i] = "pairing" if self.c.pairs else "done"
            self.passed.add(i)
            self.run.pivots += 1
            return []
        least = self.c.least / scale
        if self._lost(taken, apart, self.c.gap / scale, least, log_e, needed, self._expected(i)):
            self.tokens[i] = "done"
            return []
        return self._both(i, i + 1, self._enough(taken, apart, least, log_e, needed, self._expected(i)))

    def _enough(
        self, a: Stream, b: Stream, least: float, log_e: float, needed: float, prior: np.ndarray
    ) -> float:
        """How many outcomes a side the test will take if things go on as they did: a little less, to look again."""
        if needed == -math.inf:
            # Small steps where it may end any moment.
            far = 0.2 < chance(a, b, least / NO_EFFECT, prior) < 0.7
            return min(a.n, b.n) + (self.c.most if far else self.c.least_more)
        ratio = max(log_ratio(a, b, least), 1e-9)
        n = (a.n + b.n) * (needed + max(0.0, ratio - log_e)) / ratio
        return max(min(a.n, b.n) + self.c.least_more, min(self.c.rollouts, 0.45 * n))

    def _lost(
        self,
        a: Stream,
        b: Stream,
        difference: float,
        least: float,
        log_e: float,
        needed: float,
        prior: np.ndarray,
    ) -> bool:
        """Whether it is not worth to go on: a change of the gap is unlikely, the rollouts are spent, or what they have
        shown so far, and two standard deviations more, would not be enough when they are."""
        n, most = a.n + b.n, 2 * self.c.rollouts
        if n >= most or chance(a, b, difference, prior) < self.c.hopeless:
            return True
        ratio = log_ratio(a, b, least)
        hoped = (ratio + 2 * math.sqrt(2 * ratio)) * most / n
        return n >= 4 * self.c.few and hoped - max(0.0, ratio - log_e) < needed

    def _log_e(self, i: int) -> float:
        a = self.answer
        return log_e_change(
            a.at(i + 1), a.apart(i, i + 1), self.c.least, a.ranges[i], a.drawn(i), self._prior(i).test
        )

    def _likely(self, i: int) -> float:
        a = self.answer
        nearly = self.c.nearly / a.bound(i, i + 1)
        return chance(a.at(i + 1), a.apart(i, i + 1), nearly, self._expected(i))

    def _key(self, i: int) -> Key:
        return self.question.id, self.answer.tokens[:i], self.answer.tokens[i]

    def _alike(self, i: int) -> tuple[Hashable, ...]:
        """What tests of a run have in common: the token, and the token after the same one before it."""
        token = self.answer.tokens[i]
        return token, (self.answer.tokens[i - 1] if i else None, token)

    def _expected(self, i: int) -> np.ndarray:
        """The prior of a posterior, [POINTS, POINTS], with what the run knows of this token."""
        prior, nearly = self._prior(i).chance, self.c.nearly / self.answer.bound(i, i + 1)
        share = self.run.tokens.share(self._key(i), self._alike(i), far_mass(prior, nearly))
        return tilted(prior, nearly, share)

    def _prior(self, i: int) -> Prior:
        return self.priors[kind_of(self.answer.bound(i, i + 1))]

    def learn(self) -> None:
        """What this answer showed, for questions that begin later."""
        a = self.answer
        for i in self.tokens:
            self.run.priors.learn(kind_of(a.bound(i, i + 1)), a.at(i + 1), a.apart(i, i + 1))
            if (slot := self.slots.get(i)) is not None and slot.other is not None:
                self.run.priors.learn("pair", a.at(i + 1), a.others[i][slot.other])

    def _pair(self, i: int) -> list[Wanted]:
        """Verifies an alternative by rollouts of its own: those that made it look good are no evidence."""
        slot = self.slots.setdefault(i, _Slot())
        taken, needed = self.answer.at(i + 1), self.run.needed - math.log(self.answer.weights[i])
        while slot.tried < OPTIONS:
            if slot.other is None and not self._pick(i, slot, taken):
                break
            assert slot.other is not None
            s = slot.fresh(self.answer)
            own = self.answer.tokens[:i] + (slot.other,)
            if s.n < 3:  # a prior alone verifies nothing
                return [(own, self.c.few)]
            pair = self.priors["pair"]
            slot.log_e = log_e_difference(taken, s, self.c.least, pair.test) - (slot.tried + 1) * math.log(2)
            slot.likely = chance(taken, s, self.c.nearly, pair.chance)
            if slot.log_e >= needed and slot.likely >= 1 - self.c.error:
                break
            if not self._lost(taken, s, self.c.gap, self.c.least, slot.log_e, needed, pair.chance):
                each = self._enough(taken, s, self.c.least, slot.log_e, needed, pair.chance)
                lack = ((own, each - s.n), (self.answer.tokens[: i + 1], each - taken.n))
                return [(p, min(self.c.most, max(self.c.least_more, math.ceil(x)))) for p, x in lack if x > 0]
            slot.failed.add(slot.other)
            slot.other, slot.log_e, slot.likely, slot.tried = None, -math.inf, 0.0, slot.tried + 1
        self.tokens[i] = "done"
        return []

    def _pick(self, i: int, slot: _Slot, taken: Stream) -> bool:
        """The alternative that looks farthest from the token; one that another answer took comes first."""
        found = self.answer.others.get(i, {})
        fixed = self.fixed.get(i)
        if slot.tried == 0 and fixed is not None and fixed not in self.ends:
            if fixed in found and chance(taken, found[fixed], self.c.gap) >= 0.5:
                slot.take(i, fixed, NONE)
                return True
            slot.tried = 1
        side = math.copysign(1, taken.mean - self.answer.apart(i, i + 1).mean)
        options = [
            (side * (taken.mean - s.mean), s.n, o) for o, s in found.items()
            if o not in self.ends and o not in slot.failed and s.n >= 2 and o != self.taboo.get(i)
        ]  # fmt: skip
        if not options or max(options)[0] < self.c.least:
            return False
        o = max(options)[2]
        slot.take(i, o, found[o])
        return True

    def tested(self) -> list[Pivot]:
        a = self.answer
        out = []
        for i in self.tokens:
            slot = self.slots.get(i) or _Slot()
            out.append(
                Pivot(
                    self.question, a.tokens[:i], a.tokens[i], sum(a.ranges[i]) / 2, a.at(i + 1), a.apart(i, i + 1),
                    self._log_e(i),
                    self._likely(i),
                    a.weights[i], slot.other, slot.fresh(a), slot.log_e, slot.likely,
                )
            )  # fmt: skip
        return out


@dataclass
class _Slot:
    """The alternative that a pivotal token is paired with, tried one after another; `before` is what was known when it
    was picked, and is left out of its test."""

    at: int = 0
    other: int | None = None
    before: Stream = NONE
    tried: int = 0
    failed: set[int] = field(default_factory=set)
    log_e: float = -math.inf
    likely: float = 0.0

    def take(self, at: int, other: int, before: Stream) -> None:
        self.at, self.other, self.before = at, other, before

    def fresh(self, answer: Answer) -> Stream:
        if self.other is None:
            return NONE
        now = answer.others[self.at][self.other]
        return Stream(now.n - self.before.n, now.right - self.before.right)


def _n(s: Stream) -> float:
    return math.inf if s.exact is not None else s.n
