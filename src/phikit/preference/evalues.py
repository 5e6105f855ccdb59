"""Anytime-valid statistics of two success probabilities: e-values, confidence sequences, e-BH.

A prefix is sampled until its question is decided, so the number of samples depends on what they showed. What is
said here stays true at any stopping time: an e-value has mean at most 1 under its null hypothesis whenever one
stops, and a confidence sequence holds its truth at all sample sizes at once.

- e-value of |pA - pB| > d: mixture likelihood over the alternative, divided by the best likelihood of the null
  (universal inference; Wasserman, Ramdas, Balakrishnan 2020). Streams may be sampled in any adaptive order.
- confidence sequence of a share: beta-binomial mixture (Robbins 1970).
- e-BH (Wang, Ramdas 2022): of K hypotheses reject the k with e-values of at least K / (error k). The expected share
  of false ones among the rejected is at most `error`, however the e-values depend on one another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

POINTS = 40
# Arcsine-spaced points: equal weights on them are Jeffreys' prior, Beta(1/2, 1/2).
_P = np.sin(np.pi / 2 * (np.arange(POINTS) + 0.5) / POINTS) ** 2
_LOG_P, _LOG_Q = np.log(_P), np.log1p(-_P)
APART = np.abs(_P[:, None] - _P[None, :])
_CELLS = 64  # cells of an unknown token probability
EVEN = np.full((POINTS, POINTS), POINTS**-2.0)  # Jeffreys' prior of both


@dataclass(frozen=True, slots=True)
class Stream:
    """`right` of `n` independent outcomes; `exact` where the probability is known (the end of an answer)."""

    n: int
    right: int
    exact: float | None = None

    @property
    def mean(self) -> float:
        """Share of right outcomes, shrunk by Jeffreys' prior."""
        return self.exact if self.exact is not None else (self.right + 0.5) / (self.n + 1)


def likelihood(s: Stream) -> np.ndarray:
    """Log-likelihood of the stream at the grid's points, [POINTS]. An exact stream has its mass at one end."""
    if s.exact is not None:
        out = np.full(POINTS, -np.inf)
        out[-1 if s.exact > 0.5 else 0] = 0.0
        return out
    return s.right * _LOG_P + (s.n - s.right) * _LOG_Q


def posterior(a: Stream, b: Stream, prior: np.ndarray = EVEN) -> np.ndarray:
    """Probability of each pair of the grid's points, [POINTS, POINTS]."""
    x = likelihood(a)[:, None] + likelihood(b)[None, :]
    x = np.exp(x - x.max()) * prior
    return x / x.sum()


def chance(a: Stream, b: Stream, difference: float, prior: np.ndarray = EVEN) -> float:
    """Posterior probability of |pA - pB| >= difference."""
    return float(posterior(a, b, prior)[difference <= APART].sum()) if difference <= 1 else 0.0


def log_e_difference(a: Stream, b: Stream, difference: float, prior: np.ndarray = EVEN) -> float:
    """Log of the e-value against |pA - pB| <= difference. -inf where nothing could reject it. `prior` [POINTS, POINTS]
    says what pairs are expected; any one that was fixed before the first outcome is valid."""
    if a.n == 0 or b.n == 0 or not (weights := prior * (difference < APART)).any():
        return -math.inf
    return _mixture(a, b, weights) - _best_null(a, b, difference)


def log_ratio(a: Stream, b: Stream, difference: float) -> float:
    """Log of the likelihood of the best pair of probabilities over that of the best pair within `difference`: what
    the e-value tends to, but for the price of not knowing the pair. No evidence: a forecast."""
    if difference >= 1 or a.n == 0 or b.n == 0:
        return 0.0
    return _log(a, a.right / a.n) + _log(b, b.right / b.n) - _best_null(a, b, difference)


def _mixture(a: Stream, b: Stream, weights: np.ndarray) -> float:
    """Log-likelihood averaged over weighted pairs."""
    joint = likelihood(a)[:, None] + likelihood(b)[None, :]
    top = float(joint[weights > 0].max())
    return top + math.log(float((np.exp(np.minimum(joint - top, 0.0)) * weights).sum() / weights.sum()))


def _best_null(a: Stream, b: Stream, difference: float) -> float:
    """The largest log-likelihood with |pA - pB| <= difference: concave, so at the maximum or on an edge."""
    pa, pb = a.right / a.n, b.right / b.n
    if abs(pa - pb) <= difference:
        return _log(a, pa) + _log(b, pb)
    shift = math.copysign(difference, pa - pb)  # pA = pB + shift
    low, high = max(0.0, -shift), min(1.0, 1.0 - shift)
    for _ in range(40):
        m = (low + high) / 2
        if _slope(a, m + shift) + _slope(b, m) > 0:
            low = m
        else:
            high = m
    m = (low + high) / 2
    return _log(a, min(1.0, max(0.0, m + shift))) + _log(b, m)


def _log(s: Stream, p: float) -> float:
    wrong = s.n - s.right
    if (s.right and p <= 0) or (wrong and p >= 1):
        return -math.inf
    return (s.right * math.log(p) if s.right else 0.0) + (wrong * math.log1p(-p) if wrong else 0.0)


def _slope(s: Stream, p: float) -> float:
    wrong = s.n - s.right
    up = s.right / max(p, 1e-12) if s.right else 0.0
    return up - (wrong / max(1 - p, 1e-12) if wrong else 0.0)


def log_e_change(
    taken: Stream,
    other: Stream,
    change: float,
    probability: tuple[float, float],
    seen: tuple[int, int] = (0, 0),
    prior: np.ndarray = EVEN,
) -> float:
    """Log of the e-value against |p(prefix + token) - p(prefix)| <= change, from the outcomes after the token
    and after any other token. Since p(prefix) = pi p(token) + (1 - pi) p(other), the change is
    (1 - pi) (p(token) - p(other)). `probability` bounds pi from both sides; where it is not known exactly, `seen` =
    (how often the token, how often another one, was drawn at the prefix) takes part in the test."""
    low, high = probability
    if high - low < 1e-9:
        return log_e_difference(taken, other, change / max(1e-9, 1 - high), prior)
    t, o = seen
    if t + o == 0 or taken.n == 0 or other.n == 0:
        return -math.inf
    # The token's probability is a parameter too: Jeffreys' mixture above, the best cell of its range below.
    mixture = (
        _log_beta(t + 0.5, o + 0.5) - _log_beta(0.5, 0.5) + _mixture(taken, other, prior * (change < APART))
    )
    edges = np.linspace(low, high, _CELLS + 1)
    draws = Stream(t + o, t)
    best = -math.inf
    for x, y in pairwise(edges):
        p = min(max(t / (t + o), float(x)), float(y))
        best = max(best, _log(draws, p) + _best_null(taken, other, change / max(1e-9, 1 - float(y))))
    return mixture - best


def interval(s: Stream, error: float = 0.05) -> tuple[float, float]:
    """The confidence sequence of a share at its present n: right at every n at once with probability 1 - error."""
    if s.exact is not None:
        return s.exact, s.exact
    if s.n == 0:
        return 0.0, 1.0
    wrong = s.n - s.right
    bound = _log_beta(s.right + 0.5, wrong + 0.5) - _log_beta(0.5, 0.5) + math.log(error)
    top = s.right / s.n

    def edge(inside: float, outside: float) -> float:
        if _log(s, outside) >= bound:
            return outside
        for _ in range(40):
            m = (inside + outside) / 2
            inside, outside = (m, outside) if _log(s, m) >= bound else (inside, m)
        return outside

    return edge(top, 0.0), edge(top, 1.0)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def e_bh(log_e: Sequence[float], hypotheses: float, error: float) -> float:
    """The log e-value from which on hypotheses are rejected, of `hypotheses` in all (those not listed have e = 0);
    inf where none is. With weights that sum to `hypotheses`, give log(weight x e-value)."""
    threshold = math.inf
    for k, x in enumerate(sorted(log_e, reverse=True), 1):
        needed = math.log(hypotheses) - math.log(error) - math.log(k)
        if x >= needed:
            threshold = needed
    return threshold
