"""`phikit study decontamination`: what the hybrid rule (report appendix B.1) finds that 13-grams alone miss.

Items are planted into documents of this machine, changed in known ways. Two sets of items: the closed world's held-out
problems, and passages of the same documents, which are longer and no hosts. Half of the documents are left clean.
Rules: any shared 13-gram; the hybrid of the report (13-grams, then the ratio of 7-grams) at three thresholds; at the
recipe's one beside it 13-grams in which numbers are alike (`corpus.decontaminate.numbers: contaminated`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from phikit import stats
from phikit.records.io import write_json

SEED, PLANTS = 7, 60
CONTAMINATED = (0.6, 0.4, 0.2)  # ratios of the hybrid rule; the recipe's is 0.4
NUMBERS_AT = 0.4
WORDS = (20, 60)  # of an item


def decontamination(out: Path) -> int:
    """Writes study.json and prints a table a set of items."""
    from rich.console import Console
    from rich.table import Table

    texts = hosts()
    sets = {"problems": problems(), "passages": passages(texts)}  # which takes its texts from the hosts
    rows = []
    for name, items in sets.items():
        rows += measure(name, items, texts)
    write_json(out / "study.json", {"study": "decontamination", "plants": PLANTS, "rows": rows})
    console = Console()
    for name in dict.fromkeys(r["items"] for r in rows):
        mine = [r for r in rows if r["items"] == name]
        rules = list(dict.fromkeys(r["rule"] for r in mine))
        table = Table(f"{name}: found of what was planted", *rules)
        for kind in dict.fromkeys(r["kind"] for r in mine):
            cells = {
                r["rule"]: f"{r['value']:.3f} [{r['low']:.3f}, {r['high']:.3f}]"
                for r in mine
                if r["kind"] == kind
            }
            table.add_row(kind, *(cells[rule] for rule in rules))
        console.print(table)
    return 0


def measure(name: str, items: Sequence[tuple[str, str]], texts: Sequence[str]) -> list[dict[str, Any]]:
    """A row a kind and rule: the share found, of the clean documents the share flagged."""
    from phikit.corpus.decontaminate import EvalIndex
    from phikit.corpus.plant import KINDS, plant
    from phikit.text import ngrams

    rng = random.Random(SEED)
    words = [w for t in texts[:200] for w in t.split() if w.isalpha()]
    documents, kinds = [], []
    for kind, change in KINDS.items():
        for _, item in rng.sample(list(items), min(PLANTS, len(items))):
            documents.append(plant(texts[len(documents) % (len(texts) // 2)], change(item, rng, words), rng))
            kinds.append(kind)
    clean = texts[len(texts) // 2 :]
    w = ngrams.words([*documents, *clean])
    index = EvalIndex(items)
    found = {"13-gram": [m.rule == "13-gram" for m in index.check(w)]}
    for ratio in CONTAMINATED:
        matches = index.check(w, info=min(0.1, ratio), contaminated=ratio)
        found[f"hybrid {ratio:.0%}"] = [m.verdict == "contaminated" for m in matches]
    matches = index.check(w, contaminated=NUMBERS_AT, numbers=True)
    found[f"hybrid {NUMBERS_AT:.0%}, numbers alike"] = [m.verdict == "contaminated" for m in matches]
    labels = [*kinds, *["clean documents"] * len(clean)]
    rows = []
    for kind in (*KINDS, "clean documents"):
        for rule, flags in found.items():
            mine = [f for f, k in zip(flags, labels) if k == kind]
            rows.append(
                {"items": name, "kind": kind, "rule": rule, **stats.share(sum(mine), len(mine)).row()}
            )
    return rows


def hosts() -> list[str]:
    """Texts of this machine's documents, about 1,200 words each at most."""
    from phikit.corpus.sources import local_documents
    from phikit.records import Document

    taken = [d for d in local_documents({"text": 3_000_000}) if isinstance(d, Document)]
    texts = []
    for d in taken:
        if d.meta.get("format") != "html":
            parts = d.text.split("\n\n")
            texts += ["\n\n".join(parts[i : i + 20]) for i in range(0, len(parts), 20)]
    texts = [t for t in dict.fromkeys(texts) if len(t.split()) >= 60]
    random.Random(SEED).shuffle(texts)
    return texts


def problems() -> list[tuple[str, str]]:
    """Held-out items of the nano recipe's closed world that are long enough for 13-grams."""
    from phikit.recipe.load import load
    from phikit.recipe.stages.synth import references

    items = [
        (i, t) for i, t in references(load("phi4", scale="nano")) if WORDS[0] <= len(t.split()) <= WORDS[1]
    ]
    return list(islice(items, 600))


def passages(texts: list[str]) -> list[tuple[str, str]]:
    """Paragraphs as items; their texts are taken out of `texts`, so that no host holds them."""
    found: list[tuple[str, str]] = []
    for number in range(len(texts) - 1, -1, -1):
        fits = [p for p in texts[number].split("\n\n") if WORDS[0] <= len(p.split()) <= WORDS[1]]
        if fits and len(found) < 300:
            found.append((f"passage/{number}", " ".join(fits[0].split())))
            del texts[number]
    return found
