"""HTML extraction: token F1 on phrases labelled by hand, and speed, against trafilatura and resiliparse alone.

A label is a short phrase that a page's text must hold, or must not. A phrase counts by its words, and is found where
its words stand in a row in the text: true positives are words of wanted phrases found, false negatives those not
found, false positives words of unwanted phrases found. Snippets of code must stand there character by character.

Two sets. `fresh` (25 pages, the headline): chosen by a hash of their names (`chosen`), labelled from their HTML before
any extractor had run on them; no rule was changed for them. `development` (13 pages): our rules were changed
after looking at these and the peers' were not, so it compares nothing. Bound on F1: 1. Bound on speed: resiliparse's
parser and extractor in C++, which keep no mathematics.
"""

from __future__ import annotations

import argparse
import hashlib
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
SETS = {"fresh": "extract_labels_fresh.json", "development": "extract_labels.json"}
# Of each archive so many pages, at most one of each package where the pages come from packages.
CHOSEN = (
    ("html/debian-docs-en.tar.gz", 14, True),
    ("multilingual/libreoffice-help-html-29langs.tar.gz", 8, True),
    ("multilingual/udhr_html.tar.gz", 3, False),
)
LEAST = 2000  # bytes of a page
DATA = ROOT.parent / "shared/data/corpora"
VERSION = "2.3.1"
WORD = re.compile(r"[^\W_]+")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", choices=SETS, default="fresh")
    parser.add_argument("--show", action="store_true", help="the phrases that each gets wrong")
    a = parser.parse_args()
    if not DATA.is_dir():
        print("no shared/data/corpora here")
        return 2
    labels = labelled(a.set)
    if a.set == "fresh" and [(x["archive"], x["path"]) for x in labels] != chosen():
        print("the labelled pages are not those that the rule chooses")
        return 1
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
        hit, miss, extra = (sum(c[i] for c in counts) for i in range(3))
        code = [snippet in t for t, x in zip(result["texts"], labels) for snippet in x.get("code", ())]
        low, high = interval(counts)
        found[name] = {
            "f1": round(f1(counts), 4), "low": round(low, 4), "high": round(high, 4),
            "recall": round(hit / (hit + miss), 4), "unwanted": round(extra / unwanted(labels), 4),
            "code_exact": f"{sum(code)} of {len(code)}", "mb_s": round(size / 1e6 / median(result["seconds"]), 2),
            "counts": counts,
        }  # fmt: skip
        shown = {k: v for k, v in found[name].items() if k != "counts"}
        print(f"{name:12} {a.set}: {shown}")
        if a.show:
            wrong(result["texts"], labels)
    ours, peer = found["phikit"], found["trafilatura"]
    gains = {n: gain(ours["counts"], found[n]["counts"]) for n in ("trafilatura", "resiliparse")}
    for row in found.values():
        del row["counts"]
    print(json.dumps({
        "name": "extract", "ours": ours["f1"], "peer": peer["f1"], "peer_name": "trafilatura", "peer_version": VERSION,
        "unit": "token F1 on labelled phrases", "ratio": round(ours["f1"] / peer["f1"], 3), "low": ours["low"],
        "high": ours["high"], "agree": all(low > 0 for _, low, _ in gains.values()), "n": len(pages), "set": a.set,
        "bound": 1.0, "f1_gain": gains, "scores": found,
    }))  # fmt: skip
    return 0


def labelled(name: str) -> list[dict[str, Any]]:
    return json.loads((ROOT / "tests/golden" / SETS[name]).read_text(encoding="utf-8"))


def chosen() -> list[tuple[str, str]]:
    """(archive, path) of the fresh pages: the first in the order of a hash of their paths that are no development
    pages, of LEAST bytes and more."""
    old = {label["path"] for label in labelled("development")}
    pages = []
    for archive, n, packages in CHOSEN:
        with tarfile.open(DATA / archive) as tar:
            names = [m.name for m in tar if m.name.endswith((".html", ".htm")) and m.size >= LEAST]
        seen: dict[str, str] = {}
        for name in sorted(set(names) - old, key=lambda x: hashlib.sha256(x.encode()).hexdigest()):
            seen.setdefault(name.split("/")[0] if packages else name, name)
        pages += [(archive, name) for name in list(seen.values())[:n]]
    return pages


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


def unwanted(labels: list[dict[str, Any]]) -> int:
    return sum(len(WORD.findall(phrase)) for label in labels for phrase in label["not"])


def f1(counts: list[tuple[int, int, int]]) -> float:
    hit, miss, extra = (sum(c[i] for c in counts) for i in range(3))
    return 2 * hit / (2 * hit + miss + extra) if hit else 0.0


def interval(counts: list[tuple[int, int, int]]) -> tuple[float, float]:
    """95 % by resampling pages."""
    rng = random.Random(0)
    drawn = sorted(f1(rng.choices(counts, k=len(counts))) for _ in range(1000))
    return drawn[25], drawn[974]


def gain(ours: list[tuple[int, int, int]], peer: list[tuple[int, int, int]]) -> tuple[float, float, float]:
    """Our F1 less the peer's on the same pages, with 95 % by resampling pages."""
    rng = random.Random(0)
    pages = [rng.choices(range(len(ours)), k=len(ours)) for _ in range(1000)]
    drawn = sorted(f1([ours[i] for i in p]) - f1([peer[i] for i in p]) for p in pages)
    return round(f1(ours) - f1(peer), 4), round(drawn[25], 4), round(drawn[974], 4)


def wrong(texts: list[str], labels: list[dict[str, Any]]) -> None:
    for text, label in zip(texts, labels, strict=True):
        for key in ("kept", "not"):
            for phrase in label[key]:
                hit, _, extra = score(text, {"kept": [], "not": []} | {key: [phrase]})
                if bool(hit or extra) != (key == "kept"):
                    print(f"    {key}: {phrase!r} ({Path(label['path']).name})")
        for snippet in label.get("code", ()):
            if snippet not in text:
                print(f"    code: {snippet!r} ({Path(label['path']).name})")


if __name__ == "__main__":
    sys.exit(main())
