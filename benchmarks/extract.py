"""HTML extraction: token F1 on phrases labelled by hand, and speed, against trafilatura and resiliparse alone.

A label is a short phrase that a page's text must hold, or must not. A phrase counts by its words, and is found where
its words stand in a row in the text: true positives are words of wanted phrases found, false negatives those not
found, false positives words of unwanted phrases found. Few pages and phrases, and a development set: our rules were
changed after looking at these pages and the peers' were not. A check of gross behaviour, not a ranking. Bound on F1: 1.
Bound on speed: resiliparse's parser and extractor in C++, which keep no mathematics.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _peers import peer_python

from phikit.corpus.html_tree import decode

ROOT = Path(__file__).parents[1]
LABELS = ROOT / "tests/golden/extract_labels.json"
DATA = ROOT.parent / "shared/data/corpora"
VERSION = "2.3.1"
WORD = re.compile(r"[^\W_]+")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--show", action="store_true", help="the phrases that each gets wrong")
    a = parser.parse_args()
    labels = json.loads(LABELS.read_text(encoding="utf-8"))
    if not DATA.is_dir():
        print("no shared/data/corpora here")
        return 2
    pages = read(labels)
    size = sum(len(p.encode()) for p in pages)
    found: dict[str, Any] = {}
    for name, python in (
        ("phikit", Path(sys.executable)),
        ("trafilatura", peer_python("trafilatura", "trafilatura", VERSION, "lxml_html_clean")),
        ("resiliparse", Path(sys.executable)),
    ):
        command = [python, Path(__file__).with_name("_extract_peer.py"), name, str(a.rounds)]
        lines = "\n".join(map(json.dumps, pages))
        done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        counts = [score(text, label) for text, label in zip(result["texts"], labels, strict=True)]
        speed = size / 1e6 / median(result["seconds"])
        found[name] = {"f1": f1(counts), "interval": interval(counts), "mb_s": speed, "counts": counts}
        low, high = found[name]["interval"]
        print(
            f"{name:12} development set, token F1 {f1(counts):.3f} [{low:.3f}, {high:.3f}]  {speed:.2f} MB/s of HTML"
        )
        if a.show:
            wrong(result["texts"], labels)
    ours, peer = found["phikit"], found["trafilatura"]
    print(
        json.dumps(
            {
                "name": "extract",
                "ours": round(ours["f1"], 4),
                "peer": round(peer["f1"], 4),
                "peer_name": "trafilatura",
                "peer_version": VERSION,
                "unit": "token F1 on labelled phrases",
                "ratio": round(ours["f1"] / peer["f1"], 3),
                "low": round(ours["interval"][0], 4),
                "high": round(ours["interval"][1], 4),
                "agree": ours["f1"] >= max(peer["f1"], found["resiliparse"]["f1"]),
                "n": len(pages),
                "set": "development",
                "bound": 1.0,
                "mb_s": {k: round(v["mb_s"], 2) for k, v in found.items()},
                "f1": {k: round(v["f1"], 4) for k, v in found.items()},
            }
        )
    )
    return 0


def read(labels: list[dict[str, Any]]) -> list[str]:
    pages = []
    for label in labels:
        with tarfile.open(DATA / label["archive"]) as tar:
            f = tar.extractfile(label["path"])
            assert f is not None
            pages.append(decode(f.read()))
    return pages


def score(text: str, label: dict[str, Any]) -> tuple[int, int, int]:
    """Words of (wanted phrases found, wanted phrases missed, unwanted phrases found)."""
    whole = f" {' '.join(WORD.findall(text.lower()))} "
    hit = miss = extra = 0
    for phrase in label["kept"]:
        words = WORD.findall(phrase.lower())
        if f" {' '.join(words)} " in whole:
            hit += len(words)
        else:
            miss += len(words)
    for phrase in label["not"]:
        words = WORD.findall(phrase.lower())
        extra += len(words) if f" {' '.join(words)} " in whole else 0
    return hit, miss, extra


def f1(counts: list[tuple[int, int, int]]) -> float:
    hit, miss, extra = (sum(c[i] for c in counts) for i in range(3))
    return 2 * hit / (2 * hit + miss + extra) if hit else 0.0


def interval(counts: list[tuple[int, int, int]]) -> tuple[float, float]:
    """95 % by resampling pages."""
    rng = random.Random(0)
    drawn = sorted(f1(rng.choices(counts, k=len(counts))) for _ in range(1000))
    return drawn[25], drawn[974]


def wrong(texts: list[str], labels: list[dict[str, Any]]) -> None:
    for text, label in zip(texts, labels, strict=True):
        for key in ("kept", "not"):
            for phrase in label[key]:
                hit, _, extra = score(text, {"kept": [], "not": []} | {key: [phrase]})
                if bool(hit or extra) != (key == "kept"):
                    print(f"    {key}: {phrase!r} ({Path(label['path']).name})")


if __name__ == "__main__":
    sys.exit(main())
