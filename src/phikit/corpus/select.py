"""The quality loop: annotate a sample -> train -> calibrate -> threshold, agreement on texts that took no part, select.

The report trains small non-LLM classifiers on about 10^6 LLM annotations, sees that they prefer STEM words, and
amplifies the other topics by labels distilled from the annotator (section 2.3; facts 3.3). `learn` makes the two
classifiers and says how far they agree with the teacher; `select` keeps a share of any documents by them.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from phikit import stats
from phikit.ask.structured import ReadCounts
from phikit.corpus.annotate import NON_STEM, RUBRIC, TOPICS, Annotation, annotate
from phikit.corpus.classifier import (
    Classifier,
    auc,
    auc_interval,
    calibrate,
    calibration_error,
    kappa,
    train,
)
from phikit.corpus.features import Features, features
from phikit.corpus.rejection import Rejection
from phikit.records import Document, content_id, to_row
from phikit.records.io import atomic_path, line_writer, write_json, write_jsonl
from phikit.text import ngrams

PARTS = (0.6, 0.2, 0.2)  # of the annotated texts: trained on, calibrated on, tested on
BATCH = 1000
FOLDS, CROSSED = 5, 3000  # of cross-fitting; annotated texts up to which it is done


@dataclass(frozen=True)
class Learning:
    """sample: documents to annotate. votes: of the teacher on each. good: the mean score from which a text is good.
    rubric: what the teacher is told."""

    sample: int = 1000
    votes: int = 1
    good: float = 3.0
    rubric: str = RUBRIC
    seed: int = 0


def learn(teacher: Any, documents: Iterable[Document], out: Path, settings: Learning) -> dict[str, Any]:
    """Writes quality.npz, topics.npz (where the teacher named two topics or more), annotations.jsonl and learned.json;
    returns what is in the last. Raises ValueError where nothing can be learned, and why."""
    sample = choose(documents, settings.sample, settings.seed)
    if not sample:
        raise ValueError("phikit quality: there is no document to annotate")
    counts = ReadCounts()
    found = teacher.run(
        annotate(teacher, sample, counts, votes=settings.votes, rubric=settings.rubric, seed=settings.seed)
    )
    pairs = [(d, a) for d, a in zip(sample, found) if a is not None]
    write_jsonl(out / "annotations.jsonl", (asdict(a) for _, a in pairs))
    good = np.array([a.score >= settings.good for _, a in pairs])
    place = np.array([int(content_id("part", d.id)[:8], 16) / 2**32 for d, _ in pairs])
    part = np.searchsorted(np.cumsum(PARTS)[:-1], place, side="right")
    for number, name in enumerate(("train on", "calibrate on", "test on")):
        if not len(pairs) or len(set(good[part == number].tolist())) < 2:
            raise ValueError(
                f"phikit quality: of {len(sample)} texts {len(pairs)} were graded, {int(good.sum())} of them "
                f"{settings.good:g} or better: too few of one kind to {name}. Annotate more, or change the score "
                "from which a text is good"
            )
    x = features(ngrams.words([d.text for d, _ in pairs]))
    rows = [np.flatnonzero(part == k) for k in range(3)]
    quality = train(x.take(rows[0]), good[rows[0]].astype(int), ("low", "good"))
    raw = quality.probabilities(x)[:, 1]
    quality = replace(quality, curve=calibrate(raw[rows[1]], good[rows[1]]))
    quality.save(out / "quality.npz")
    topics = np.array([TOPICS.index(a.topic) for _, a in pairs])
    report = {
        "model": teacher.model, "settings": asdict(settings), "graded": len(pairs), "unread": dict(counts.dropped),
        "good": stats.share(int(good.sum()), len(good)).row(),
        "scores": dict(sorted(Counter(f"{a.score:.2g}" for _, a in pairs).items())),
        "topics": dict(Counter(a.topic for _, a in pairs).most_common()),
        "teacher_with_itself": _itself([a for _, a in pairs], settings.good),
        "quality": _agreement(raw, quality.probabilities(x)[:, 1], good, rows[2]),
    }  # fmt: skip
    if len(pairs) <= CROSSED:
        report["crossed"] = _crossed(x, good, place)
    if len(set(topics[rows[0]].tolist())) > 1:
        named = train(x.take(rows[0]), topics[rows[0]], TOPICS)
        named.save(out / "topics.npz")
        said = named.probabilities(x.take(rows[2])).argmax(1)
        right = int((said == topics[rows[2]]).sum())
        report["topic"] = {
            "agreement": stats.share(right, len(said)).row(),
            "kappa": kappa(said, topics[rows[2]]),
        }
    write_json(out / "learned.json", report)
    return report


def choose(documents: Iterable[Document], n: int, seed: int) -> list[Document]:
    """n documents by a hash of their id, whatever their order; memory holds no more than those."""
    keyed = ((content_id("annotate", str(seed), d.id), d) for d in documents)
    return [d for _, d in heapq.nsmallest(n, keyed, key=lambda pair: pair[0])]


@dataclass(frozen=True)
class Selection:
    """keep: share of the documents. amplify: of a non-STEM topic so many times that share is kept, by a lower
    threshold of its own; 1 keeps one threshold for all."""

    keep: float = 0.3
    amplify: float = 1.0


def select(
    documents: Any,
    learned: Path,
    out: Path,
    settings: Selection,
    judged: Callable[[Document], bool] | None = None,
) -> dict[str, Any]:
    """`documents()` gives them twice: first their scores set the thresholds, then selected.jsonl.zst and
    rejected.jsonl.zst are written, each document with meta.quality and meta.topic. `judged`: which of them are; the
    others are kept as they are, in their places. Returns the counts by topic and by source."""
    if not 0 < settings.keep <= 1 or settings.amplify < 1:
        raise ValueError(
            "phikit quality: keep must lie in (0, 1] and amplify must be 1 or more, got "
            f"{settings.keep:g} and {settings.amplify:g}"
        )
    quality = Classifier.load(learned / "quality.npz")
    topic_file = learned / "topics.npz"
    topics = Classifier.load(topic_file) if topic_file.exists() else None
    if topics is None and settings.amplify > 1:
        raise ValueError(f"phikit quality: amplify needs topics, and {learned} has no topics.npz")
    scores, named = [np.zeros(0)], [np.zeros(0, np.int64)]
    judge = judged or (lambda d: True)
    for _, p, t in _scored(filter(judge, documents()), quality, topics):
        scores.append(p)
        named.append(t)
    p, t = np.concatenate(scores), np.concatenate(named)
    if not len(p):
        raise ValueError("phikit quality: there is no document to select from")
    least = thresholds(p, t, settings)
    counts: dict[str, Counter[str]] = {"kept": Counter(), "dropped": Counter()}
    by_source: dict[str, dict[str, Counter[str]]] = {"kept": {}, "dropped": {}}

    def count(what: str, source: str, topic: str) -> None:
        counts[what][topic] += 1
        by_source[what].setdefault(source, Counter())[topic] += 1

    with ExitStack() as stack:
        keep, drop = (
            stack.enter_context(line_writer(stack.enter_context(atomic_path(path)), like=path))
            for path in (out / "selected.jsonl.zst", out / "rejected.jsonl.zst")
        )
        for some, p, t in _scored(documents(), quality, topics):
            for d, probability, number in zip(some, p.tolist(), t.tolist()):
                topic = TOPICS[number] if topics else ""
                if not judge(d):
                    keep(to_row(d))
                elif probability >= least[number]:
                    count("kept", d.source, topic)
                    keep(
                        to_row(replace(d, meta={**d.meta, "quality": round(probability, 4), "topic": topic}))
                    )
                else:
                    count("dropped", d.source, topic)
                    why = f"{probability:.3f} is below {least[number]:.3f}" + (f" ({topic})" if topic else "")
                    drop(dict(Rejection.of(d, "low_quality", why).row()))
    report = {
        "thresholds": {name: round(float(v), 4) for name, v in zip(TOPICS, least)} if topics else float(least[0]),
        **{name: dict(sorted(c.items())) for name, c in counts.items()}, "settings": asdict(settings),
        "by_source": {
            what: {name: dict(sorted(c.items())) for name, c in sorted(by.items())} for what, by in by_source.items()
        },
    }  # fmt: skip
    write_json(out / "selected.json", report)
    return report


def thresholds(scores: np.ndarray, topics: np.ndarray, settings: Selection) -> np.ndarray:
    """The least score to keep, for each topic (float64 [topics])."""
    least = np.full(len(TOPICS), _least(scores, settings.keep))
    for name in NON_STEM if settings.amplify > 1 else ():
        number = TOPICS.index(name)
        mine = scores[topics == number]
        if len(mine):
            least[number] = min(least[number], _least(mine, min(settings.keep * settings.amplify, 1.0)))
    return least


def _least(scores: np.ndarray, share: float) -> float:
    return float(np.sort(scores)[len(scores) - max(round(share * len(scores)), 1)])


def _scored(
    documents: Iterable[Document], quality: Classifier, topics: Classifier | None
) -> Iterator[tuple[list[Document], np.ndarray, np.ndarray]]:
    """(documents, probability of good, topic number) in batches."""
    rows = iter(documents)
    while some := list(islice(rows, BATCH)):
        x = features(ngrams.words([d.text for d in some]))
        named = topics.probabilities(x).argmax(1) if topics else np.zeros(len(some), np.int64)
        yield some, quality.probabilities(x)[:, 1], named


def _agreement(raw: np.ndarray, p: np.ndarray, good: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """On the texts that took no part: agreement at one half, beyond chance, ranking, calibration, and the share of
    good ones among the best tenth, third and half."""
    said, truth = p[test] >= 0.5, good[test]
    order = np.argsort(-raw[test], kind="stable")
    best = {}
    for share in (0.1, 1 / 3, 0.5):
        top = truth[order[: max(round(share * len(test)), 1)]]
        best[f"best {share:.0%}"] = stats.share(int(top.sum()), len(top)).row()
    return {
        "tested": len(test), "agreement": stats.share(int((said == truth).sum()), len(test)).row(),
        "majority": float(max(truth.mean(), 1 - truth.mean())), "kappa": kappa(said, truth),
        **_ranking(raw[test], truth), "calibration_error": calibration_error(p[test], truth), "good_among": best,
    }  # fmt: skip


def _ranking(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    value = auc(scores, truth)
    low, high = auc_interval(value, int(truth.sum()), int((~truth).sum()))
    return {"auc": value, "auc_low": low, "auc_high": high}


def _crossed(x: Features, good: np.ndarray, place: np.ndarray) -> dict[str, Any] | None:
    """How well the method ranks texts that it did not see, on all of them: five classifiers, each trained on four
    fifths and asked about the last. (Few annotations leave too few for one test part.) None where a fold cannot be
    trained."""
    fold = (place * FOLDS).astype(int)
    scores = np.zeros(len(good))
    for k in range(FOLDS):
        inside, outside = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        if len(set(good[outside].tolist())) < 2:
            return None
        if len(inside):
            model = train(x.take(outside), good[outside].astype(int), ("low", "good"))
            scores[inside] = model.probabilities(x.take(inside))[:, 1]
    said = scores >= 0.5
    return {
        "tested": len(good), "agreement": stats.share(int((said == good).sum()), len(good)).row(),
        "majority": float(max(good.mean(), 1 - good.mean())), "kappa": kappa(said, good), **_ranking(scores, good),
    }  # fmt: skip


def _itself(found: Sequence[Annotation], good: float) -> dict[str, float] | None:
    """How far the teacher's first two votes agree: what no classifier can be expected to exceed by much."""
    votes = np.array([a.scores[:2] for a in found if len(a.scores) > 1])
    if not len(votes):
        return None
    a, b = (votes >= good).T
    return {"agreement": float((a == b).mean()), "kappa": kappa(a, b)}
