"""Decontamination: recall and precision by kind of planted contamination, and MB/s; datatrove and plain 13-grams.

Real benchmark items (GSM8K, MMLU, ARC, HumanEval, MATH, AGIEval) are planted into real web and book text: verbatim,
wrapped at eight words a line, in capitals, with other punctuation, with other numbers, with every twelfth or eighth
word replaced, with the sentences in another order, half of it, or reworded by rule. As many documents are left clean,
and others hold what is like an item and is none: problems of GSM8K's training part, 30 problems written in the words
of an item (tests/golden/paraphrases.json), and sums and tables of numbers. Every method sees the same documents and
items; ours are the recipe's thresholds (10 %, 40 %), once as they are, once with items whose numbers differ called
contaminated, once with all partial matches. CPU time of one core, index built before. `ratio` is of speed; `agree`: our
recall is not lower than the peers' for any kind, and our precision is at least theirs, by default and with other
numbers.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _peers import peer_python

from phikit.corpus.decontaminate import EvalIndex
from phikit.corpus.plant import KINDS, plant
from phikit.corpus.references import read_references
from phikit.text import ngrams

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
OTHERS = ("none: GSM8K's training part", "none: in an item's words", "none: sums and tables")
ITEMS = (
    "gsm8k/test-200.jsonl.gz", "mmlu/val.tar.gz", "arc/ARC-Challenge-Dev.jsonl.gz", "humaneval/HumanEval.jsonl.gz",
    "math/math500.jsonl.gz", "decontamination/agieval.tar.gz",
)  # fmt: skip
ROUNDS, GOAL_MB = 5, 15
DATATROVE = "0.10.1"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plants", type=int, default=60, help="planted items of each kind")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    a = parser.parse_args()
    if not DATA.is_dir():
        print(f"{DATA}: the benchmark rows are not at hand")
        return 2
    rng = random.Random(7)
    pairs = [pair for name in ITEMS for pair in read_references(DATA / "benchmarks" / name)]
    golden = json.loads((ROOT / "tests/golden/paraphrases.json").read_text())
    texts, kinds = documents(pairs, golden, a.plants, rng)
    pairs += [(f"golden/{i}", row["item"]) for i, row in enumerate(golden)]
    size = sum(len(t.encode()) for t in texts) / 1e6
    index = EvalIndex(pairs)
    thirteen = np.unique(ngrams.ngrams(ngrams.words([t for _, t in pairs]), 13)[0])
    flags, seconds = {}, {}
    methods: dict[str, Callable[[], list[bool]]] = {
        "ours": lambda: ours(index, texts), "ours, numbers": lambda: ours(index, texts, numbers=True),
        "ours, partial": lambda: ours(index, texts, partial=True), "13-gram": lambda: plain(thirteen, texts),
    }  # fmt: skip
    for name, check in methods.items():
        seconds[name] = []
        for _ in range(a.rounds):
            begin = time.process_time()
            flags[name] = check()
            seconds[name].append(time.process_time() - begin)
    peer = datatrove([t for _, t in pairs], texts, a.rounds)
    flags["datatrove"], seconds["datatrove"] = peer["flags"], peer["seconds"]
    table = {name: scores(f, kinds) for name, f in flags.items()}
    show(table, {name: size / statistics.median(s) for name, s in seconds.items()})
    ratios = sorted(p / o for o, p in zip(seconds["ours"], seconds["datatrove"]))
    judged = [*KINDS, "precision"]
    better = {
        name: all(table[name][k] >= table[other][k] for other in ("13-gram", "datatrove") for k in judged)
        for name in ("ours", "ours, numbers")
    }
    speed = {name: round(size / statistics.median(s), 2) for name, s in seconds.items()}
    print(json.dumps({
        "name": "decontaminate", "ours": speed["ours"], "peer": speed["datatrove"], "peer_name": "datatrove",
        "peer_version": DATATROVE, "unit": "MB/s of CPU time, one core", "ratio": round(statistics.median(ratios), 1),
        "low": round(ratios[0], 1), "high": round(ratios[-1], 1), "agree": all(better.values()), "n": a.rounds,
        "goal": GOAL_MB, "documents": len(texts), "megabytes": round(size, 2), "items": len(dict(pairs)),
        "scores": table, "plain_13gram_mb_s": speed["13-gram"],
    }))  # fmt: skip
    return 0


def documents(
    pairs: list[tuple[str, str]], golden: list[dict[str, str]], plants: int, rng: random.Random
) -> tuple[list[str], list[str]]:
    """(documents, what is planted in each: a kind of contamination, a kind of what is none, or "" for nothing)."""
    hosts = [json.loads(x)["text"] for x in _read(DATA / "corpora/web/c4-300.jsonl.gz").splitlines()]
    for path in sorted((DATA / "corpora/books").glob("*.txt.gz")):
        paragraphs = _read(path).split("\n\n")
        hosts += ["\n\n".join(paragraphs[i : i + 12]) for i in range(0, len(paragraphs), 12)][:200]
    rng.shuffle(hosts)
    words = [w for t in hosts[:200] for w in t.split() if w.isalpha()]
    questions = [t for _, t in pairs if len(t.split()) >= 20]
    texts, kinds = [], []

    def put(kind: str, planted: str) -> None:
        texts.append(plant(hosts[len(texts) % len(hosts)], planted, rng))
        kinds.append(kind)

    for kind, change in KINDS.items():
        for item in rng.sample(questions, plants):
            put(kind, change(item, rng, words))
    train = [json.loads(x) for x in _read(DATA / "benchmarks/gsm8k/train.jsonl.gz").splitlines()]
    for row in rng.sample(train, plants):
        put(OTHERS[0], f"{row['question']}\n{row['answer']}")
    for row in golden:
        put(OTHERS[1], row["other"])
    for _ in range(plants):
        put(OTHERS[2], sums(rng))
    clean = hosts[len(texts) :][: len(texts)]
    return texts + clean, kinds + [""] * len(clean)


def sums(rng: random.Random) -> str:
    """A work sheet of one form: thirty sums, prices or results in words."""
    names = rng.sample(("Ann", "Ben", "Eva", "Jim", "Kim", "Lea", "Max", "Tom"), 4)
    form = rng.choice((
        "{}. {} + {} = {}", "Table {}. Page {} of {}: {}", "What is {} plus {}? The answer is {}, not {}.",
        "On day {} they sold {} tickets for {} dollars each and {} for less.",
        "In {} {w} had {} apples and {} pears and gave away {}.",
    ))  # fmt: skip
    rows = [form.format(*(rng.randint(1, 99) for _ in range(4)), w=rng.choice(names)) for _ in range(30)]
    return "\n".join(rows)


def _read(path: Path) -> str:
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return f.read()


def ours(index: EvalIndex, texts: list[str], *, numbers: bool = False, partial: bool = False) -> list[bool]:
    matches = index.check(ngrams.words(texts), info=0.1, contaminated=0.4, numbers=numbers)
    return [m.verdict == "contaminated" or (partial and m.verdict == "partial") for m in matches]


def plain(thirteen: np.ndarray, texts: list[str]) -> list[bool]:
    """Any 13-gram that an item has."""
    grams, offsets = ngrams.ngrams(ngrams.words(texts), 13)
    hit = np.concatenate([[0], np.cumsum(np.isin(grams, thirteen))])
    return list((hit[offsets[1:]] - hit[offsets[:-1]]) > 0)


def datatrove(items: list[str], texts: list[str], rounds: int) -> dict:
    needs = ("spacy", "regex", "tldextract", "ftfy", "fasteners", "nltk", "xxhash")
    python = peer_python("datatrove", "datatrove", DATATROVE, *needs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "given.json"
        path.write_text(json.dumps({"items": items, "texts": texts, "rounds": rounds}))
        script = Path(__file__).with_name("_datatrove_decont.py")
        done = subprocess.run([python, script, path], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def scores(flags: list[bool], kinds: list[str]) -> dict[str, float]:
    """Recall by kind, flagged by kind of what is none; precision: planted items among the flagged."""
    out = {}
    for kind in (*KINDS, *OTHERS, ""):
        mine = [f for f, k in zip(flags, kinds) if k == kind]
        out[kind or "clean"] = round(sum(mine) / len(mine), 3)
    flagged = sum(flags)
    out["precision"] = (
        round(sum(f for f, k in zip(flags, kinds) if k in KINDS) / flagged, 4) if flagged else 0.0
    )
    return out


def show(table: dict[str, dict[str, float]], speed: dict[str, float]) -> None:
    print(f"{'':28}" + "".join(f"{n:>14}" for n in table))
    for key in next(iter(table.values())):
        print(f"{key:28}" + "".join(f"{row[key]:14.3f}" for row in table.values()))
    print(f"{'MB/s':28}" + "".join(f"{speed[n]:14.2f}" for n in table))


if __name__ == "__main__":
    raise SystemExit(main())
