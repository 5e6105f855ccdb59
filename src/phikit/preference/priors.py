"""What a search expects of a token before it samples it, learned from the other tests of the run.

How outcomes are distributed comes from the questions that are done (`Priors`): an e-value may use any prior that was
fixed before its first outcome, so a question takes them as they are when it begins. How often a token is pivotal at
all comes from all tests so far of the same token after the same one before it (`Tokens`), decided or not: those that
end early are not typical. No e-value reads it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from phikit.preference.evalues import APART, EVEN, POINTS, Stream, posterior

# Before anything is learned: a single token often leads near 0 or 1; what any other token leads to lies between.
_POINT = np.arange(POINTS)
_AT_ENDS = np.where((_POINT < 4) | (_POINT >= POINTS - 4), 0.6 / 8, 0.0) + 0.4 / POINTS
_BETWEEN = 0.15 + np.sin(np.pi * (_POINT + 0.5) / POINTS)
_BETWEEN = _BETWEEN / _BETWEEN.sum()
# And half of the tokens under test change nothing.
_SAME = np.exp(-((_POINT[:, None] - _POINT[None, :]) ** 2) / 8.0)
_DOUBT = 0.5 * EVEN + 0.5 * _SAME / _SAME.sum()
WEIGHT = 6.0  # tests that the first guess counts for
STRENGTH = 4.0  # tests that a coarser share counts for
FREE = 0.5  # tokens that can change p by this much are expected to differ from those that cannot


@dataclass(frozen=True)
class Prior:
    """[POINTS, POINTS] each: of the pairs in e-values, which are about tokens with an effect, and in posteriors."""

    test: np.ndarray
    chance: np.ndarray


@dataclass
class _Learned:
    test: np.ndarray
    chance: np.ndarray
    total: np.ndarray = field(default_factory=lambda: np.zeros_like(EVEN))
    n: int = 0

    def prior(self) -> Prior:
        part = WEIGHT / (self.n + WEIGHT)
        mean = self.total / max(1, self.n)
        return Prior((1 - part) * mean + part * self.test, (1 - part) * mean + part * self.chance)

    def learn(self, a: Stream, b: Stream) -> None:
        self.total = self.total + posterior(a, b, self.prior().chance)
        self.n += 1


class Priors:
    """Learns from finished tests; `of` gives what it knows now."""

    def __init__(self) -> None:
        token, pair = np.outer(_AT_ENDS, _BETWEEN), np.outer(_AT_ENDS, _AT_ENDS)
        self._kinds = {
            "free": _Learned(token, _DOUBT), "bound": _Learned(token, _DOUBT), "pair": _Learned(pair, _DOUBT),
        }  # fmt: skip

    def learn(self, kind: str, a: Stream, b: Stream) -> None:
        self._kinds[kind].learn(a, b)

    def now(self) -> dict[str, Prior]:
        """By kind of test: a token that can change p by FREE or more, one that cannot, the two tokens of a pair."""
        return {k: x.prior() for k, x in self._kinds.items()}


class Tokens:
    """The share of tests in which a token was pivotal, by what is alike in them: `keys` of a test, coarse to fine. Each
    share is drawn to the coarser one, with the weight of STRENGTH tests. A test never counts for itself."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[int, float]] = {}  # key -> tests, sum of their chances
        self._own: dict[Hashable, float] = {}  # test -> what it has put in

    def note(self, test: Hashable, keys: Sequence[Hashable], chance: float) -> None:
        """The present posterior chance that a test's token is pivotal."""
        before = self._own.get(test)
        self._own[test] = chance
        for key in keys:
            n, total = self._seen.get(key, (0, 0.0))
            self._seen[key] = n + (before is None), total + chance - (before or 0.0)

    def share(self, test: Hashable, keys: Sequence[Hashable], before: float) -> float:
        """What to expect of a test, where `before` is expected of any."""
        own = self._own.get(test)
        for key in keys:
            n, total = self._seen.get(key, (0, 0.0))
            if own is not None:
                n, total = n - 1, total - own
            before = (STRENGTH * before + total) / (STRENGTH + n)
        return before


def tilted(prior: np.ndarray, difference: float, share: float) -> np.ndarray:
    """The prior with probability `share` on pairs that differ by `difference` or more."""
    far = difference <= APART
    mass = float(prior[far].sum())
    if not 0 < mass < 1:
        return prior
    return prior * np.where(far, share / mass, (1 - share) / (1 - mass))


def far_mass(prior: np.ndarray, difference: float) -> float:
    return float(prior[difference <= APART].sum())


def kind_of(bound: float) -> str:
    return "free" if bound >= FREE else "bound"
