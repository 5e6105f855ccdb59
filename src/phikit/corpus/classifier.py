"""A small linear classifier of texts and the calibration of its scores (report section 2.3: small non-LLM classifiers
trained on an LLM's annotations).

Multinomial logistic regression on hashed words and pairs of words, full gradients, own numpy: a few seconds for
thousands of texts, the same bits on every run. Training is by Adagrad; what was not annotated has no weight.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from phikit.corpus.features import BITS, Features, features
from phikit.text import ngrams


@dataclass(frozen=True)
class Classifier:
    """`names` of the K classes; weights float32 [2^BITS, K], bias [K]; `curve`: see `calibrate`, of the last class."""

    names: tuple[str, ...]
    weights: np.ndarray
    bias: np.ndarray
    curve: tuple[np.ndarray, np.ndarray] | None = None

    def probabilities(self, x: Features) -> np.ndarray:
        """float64 [D, K]; of a calibrated classifier of two classes, the calibrated ones."""
        p = _softmax(x.dot(self.weights) + self.bias)
        if self.curve is not None:
            p[:, 1] = np.interp(p[:, 1], *self.curve)
            p[:, 0] = 1 - p[:, 1]
        return p

    def of_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self.probabilities(features(ngrams.words(texts)))

    def save(self, path: Path) -> None:
        """Arrays alone (.npz), the weights of buckets that are used."""
        used = np.flatnonzero(self.weights.any(1))
        curve = np.zeros((0, 0)) if self.curve is None else np.stack(self.curve)
        names = np.frombuffer(json.dumps(self.names).encode(), np.uint8)
        with path.open("wb") as f:
            np.savez(f, names=names, used=used, weights=self.weights[used], bias=self.bias, curve=curve)

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Raises ValueError where the file is no classifier of ours."""
        try:
            with np.load(path, allow_pickle=False) as f:
                names = tuple(json.loads(f["names"].tobytes()))
                weights = np.zeros((1 << BITS, len(names)), np.float32)
                weights[f["used"]] = f["weights"]
                curve = f["curve"]
                return cls(names, weights, f["bias"], (curve[0], curve[1]) if curve.size else None)
        except (OSError, KeyError, ValueError, IndexError, EOFError) as e:
            raise ValueError(f"{path}: not a classifier that phikit wrote ({type(e).__name__}: {e})") from e


def train(
    x: Features,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    steps: int = 150,
    rate: float = 0.5,
    decay: float = 1e-4,
) -> Classifier:
    """labels: class numbers int [D]. Classes weigh the same however many texts they have. Raises ValueError where
    fewer than two classes have a text."""
    counts = np.bincount(labels, minlength=len(names))
    if (counts > 0).sum() < 2:
        raise ValueError(f"a classifier needs texts of two classes, got {dict(zip(names, counts.tolist()))}")
    weight = (len(labels) / np.maximum(counts, 1) / (counts > 0).sum())[labels] / len(labels)
    truth = np.eye(len(names))[labels]
    used, places = np.unique(x.columns, return_inverse=True)
    x = replace(x, columns=places)
    weights, bias = np.zeros((len(used), len(names))), np.zeros(len(names))
    squares, bias_squares = np.full_like(weights, 1e-8), np.full_like(bias, 1e-8)
    for _ in range(steps):
        wrong = (_softmax(x.dot(weights) + bias) - truth) * weight[:, None]
        slope, bias_slope = x.add(wrong, len(used)) + decay * weights, wrong.sum(0)
        squares += slope**2
        bias_squares += bias_slope**2
        weights -= rate * slope / np.sqrt(squares)
        bias -= rate * bias_slope / np.sqrt(bias_squares)
    whole = np.zeros((1 << BITS, len(names)), np.float32)
    whole[used] = weights
    return Classifier(tuple(names), whole, bias)


def calibrate(scores: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(scores, probabilities) of a rising curve through texts that were not trained on: isotonic regression by pooling
    neighbours, each pool with one hit and one miss added so that no probability is 0 or 1."""
    if not len(scores):
        raise ValueError("calibration needs at least one text")
    order = np.argsort(scores, kind="stable")
    pools: list[list[float]] = []  # hits, texts, sum of scores
    for score, hit in zip(scores[order].tolist(), hits[order].tolist()):
        pools.append([float(hit), 1.0, score])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last)]
    middles = np.array([s / n for _, n, s in pools])
    shares = np.array([(h + 1) / (n + 2) for h, n, _ in pools])
    return middles, np.maximum.accumulate(shares)


def auc(scores: np.ndarray, hits: np.ndarray) -> float:
    """The chance that a hit scores above a miss, ties half; 0.5 where there are none of one kind."""
    good, bad = scores[hits.astype(bool)], scores[~hits.astype(bool)]
    if not len(good) or not len(bad):
        return 0.5
    bad = np.sort(bad)
    below = np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")
    return float(below.sum() / (2 * len(good) * len(bad)))


def auc_interval(value: float, good: int, bad: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of an AUC of `good` hits and `bad` misses: the areas whose own standard error (Hanley and McNeil,
    as Newcombe 2006 pools it) does not rule the value out. (0, 1) where there are none of one kind."""
    if not good or not bad:
        return 0.0, 1.0
    more = (good + bad) / 2 - 1

    def far(area: float) -> bool:
        spread = area * (1 - area) * (1 + more * ((1 - area) / (2 - area) + area / (1 + area))) / (good * bad)
        return abs(value - area) > z * spread**0.5

    ends = []
    for outside in (0.0, 1.0):
        inside = value
        for _ in range(50):
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if far(middle) else (outside, middle)
        ends.append(inside)
    return ends[0], ends[1]


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's agreement beyond chance of two labellings; 0 where both are constant."""
    classes = np.unique(np.concatenate([a, b]))
    chance = sum(float((a == c).mean() * (b == c).mean()) for c in classes)
    return 0.0 if chance == 1 else (float((a == b).mean()) - chance) / (1 - chance)


def calibration_error(probabilities: np.ndarray, hits: np.ndarray, bins: int = 10) -> float:
    """Mean distance of probability and share of hits over bins of equally many texts."""
    order = np.argsort(probabilities, kind="stable")
    parts = [p for p in np.array_split(order, bins) if len(p)]
    return float(
        sum(len(p) * abs(probabilities[p].mean() - hits[p].mean()) for p in parts) / max(len(order), 1)
    )


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)
