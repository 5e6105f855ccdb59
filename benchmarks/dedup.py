"""Near duplicates: recall and precision of MinHash-LSH with verified Jaccard against every pair compared exactly.

About 20 MB of real texts (books, web, encyclopedia, documentation, code, LaTeX), a fifth of them a second time with up
to 4 % of the words replaced, so that many pairs lie near the threshold of 0.8. Truth is the exact Jaccard similarity of
the sets of word 5-grams of all pairs that share one. `ratio` is the CPU time of comparing all over ours; `unverified`
is what the candidates alone would be worth, `usual` the same for 14 bands of 8 rows, which other tools use.
"""

from __future__ import annotations

import argparse
import json
import random
import time

import numpy as np
from _texts import DATA, books, code, documentation, edited, encyclopedia, latex, web

from phikit.corpus import dedup
from phikit.text import ngrams

THRESHOLD, GOAL = 0.8, 0.95


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=20)
    a = parser.parse_args()
    if not DATA.is_dir():
        print(f"{DATA}: the texts are not at hand")
        return 2
    texts = documents(a.megabytes)
    size = sum(len(t.encode()) for t in texts) / 1e6
    begin = time.process_time()
    words = ngrams.words(texts)
    grams, offsets = dedup.shingles(words)
    shared = time.process_time() - begin
    begin = time.process_time()
    truth = exhaustive(grams, offsets)
    slow = time.process_time() - begin
    begin = time.process_time()
    candidates = lsh(grams, offsets, dedup.BANDS, dedup.ROWS)
    found = {p for p in candidates if similar(grams, offsets, *p) >= THRESHOLD}
    fast = time.process_time() - begin
    usual = lsh(grams, offsets, 14, 8)
    rows = {
        "verified": scores(found, truth),
        "unverified": scores(candidates, truth),
        "usual": scores(usual, truth),
    }
    for name, row in rows.items():
        print(f"{name:10} recall {row['recall']:.4f} precision {row['precision']:.4f}")
    near = [(p, j) for p, j in truth.items() if j < THRESHOLD + 0.05]
    print(
        f"{len(texts)} texts, {size:.1f} MB, {len(truth)} pairs at {THRESHOLD} or above, {len(near)} of them below "
        f"{THRESHOLD + 0.05:.2f}; words and 5-grams {size / shared:.1f} MB/s, sketches to pairs {size / fast:.1f} MB/s"
    )
    recall, precision = rows["verified"]["recall"], rows["verified"]["precision"]
    print(json.dumps({
        "name": "dedup", "ours": recall, "peer": 1.0, "peer_name": "all pairs compared", "peer_version": "exact",
        "unit": "recall of pairs", "ratio": round(slow / fast, 1), "agree": recall >= GOAL and precision == 1.0,
        "n": len(truth), "goal": GOAL, "precision": precision, "megabytes": round(size, 1), "documents": len(texts),
        "unverified": rows["unverified"], "usual": rows["usual"],
        "mb_s": round(size / (shared + fast), 1),
    }))  # fmt: skip
    return 0 if recall >= GOAL and precision == 1.0 else 1


def documents(megabytes: float) -> list[str]:
    rng = random.Random(11)
    plain = [
        t for t in (*web(), *books(), *encyclopedia(), *documentation(), *code(), *latex()) if len(t) > 200
    ]
    rng.shuffle(plain)
    enough = np.searchsorted(np.cumsum([len(t) for t in plain]), megabytes * 1e6 / 1.2)
    plain = plain[: int(enough) + 1]
    words = [w for t in plain[:200] for w in t.split() if w.isalpha()]
    again = [edited(t, rng.uniform(0, 0.04), words, rng) for t in rng.sample(plain, len(plain) // 5)]
    texts = plain + again
    rng.shuffle(texts)
    return texts


def exhaustive(grams: np.ndarray, offsets: np.ndarray) -> dict[tuple[int, int], float]:
    """Every pair of texts with a similarity of THRESHOLD or more: shared 5-grams counted by an inverted index."""
    sizes = np.diff(offsets)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    order = np.argsort(grams, kind="stable")
    place = np.empty(len(grams), np.int64)
    values, starts, counts = np.unique(grams[order], return_index=True, return_counts=True)
    place[order] = np.repeat(np.arange(len(values)), counts)
    holders = owner[order]
    pairs = {}
    for i in range(len(sizes)):
        mine = place[offsets[i] : offsets[i + 1]]
        others = holders[ngrams.ranges(starts[mine], counts[mine])]
        shared = np.bincount(others[others > i], minlength=len(sizes))
        for j in np.flatnonzero(shared):
            likeness = shared[j] / (sizes[i] + sizes[j] - shared[j])
            if likeness >= THRESHOLD:
                pairs[i, int(j)] = float(likeness)
    return pairs


def lsh(grams: np.ndarray, offsets: np.ndarray, bands: int, rows: int) -> set[tuple[int, int]]:
    keys = dedup.bands(grams, offsets, bands, rows)
    some = np.flatnonzero(np.diff(offsets))
    pairs = np.concatenate([dedup.bucket_pairs(keys[some, band], some) for band in range(bands)])
    return {(int(i), int(j)) for i, j in dedup.distinct_pairs(pairs)}


def similar(grams: np.ndarray, offsets: np.ndarray, i: int, j: int) -> float:
    return dedup.jaccard(*(grams[offsets[k] : offsets[k + 1]] for k in (i, j)))


def scores(found: set[tuple[int, int]], truth: dict[tuple[int, int], float]) -> dict[str, float]:
    right = len(found & truth.keys())
    return {"recall": round(right / max(len(truth), 1), 4), "precision": round(right / max(len(found), 1), 4)}


if __name__ == "__main__":
    raise SystemExit(main())
