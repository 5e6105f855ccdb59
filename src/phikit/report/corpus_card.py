"""The data card of a corpus: what is in it, by source, language, topic, licence, length; what was left out, why.

Reads the files of a corpus stage alone, row by row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phikit.records.io import read_json, read_jsonl, write_text
from phikit.report.document import bars, document
from phikit.report.markup import Html, clip, tag

EXAMPLES, MOST = 3, 12  # of each reason; rows of a list, the rest are summed up
MEASURES = ("language", "topic", "format", "licence")


@dataclass
class _Source:
    documents: int = 0
    characters: int = 0
    lengths: Counter[int] = field(default_factory=Counter)  # bits of the length in characters
    named: dict[str, Counter[str]] = field(default_factory=lambda: {m: Counter() for m in MEASURES})

    def add(self, row: Mapping[str, Any]) -> None:
        size = len(row["text"])
        self.documents += 1
        self.characters += size
        self.lengths[size.bit_length()] += 1
        for measure in MEASURES:
            if value := row["meta"].get(measure):
                self.named[measure][str(value)] += 1


def write_card(folder: Path, out: Path) -> None:
    """Writes the card of a corpus stage's folder. Raises ValueError where it is none."""
    if not (folder / "documents.jsonl.zst").is_file() or not (folder / "manifest.json").is_file():
        raise ValueError(
            f"{folder}: no finished corpus here; give the folder of a corpus stage, such as runs/nano/corpus"
        )
    write_text(out, page(folder))


def page(folder: Path) -> str:
    counts = read_json(folder / "manifest.json")["counts"]
    sources: dict[str, _Source] = {}
    for row in read_jsonl(folder / "documents.jsonl.zst"):
        sources.setdefault(row["source"], _Source()).add(row)
    main = tag(
        "main",
        _header(counts, sources),
        tag("h2", "Sources"),
        _table(sources),
        *(part for name, s in sorted(sources.items()) for part in _source(name, s)),
        tag("h2", "Left out"),
        *_rejections(folder, counts),
    )
    return document("Corpus", [main], ("style.css", "card.css", "contamination.css"), ())


def _header(counts: Mapping[str, Any], sources: Mapping[str, _Source]) -> Html:
    kept = sum(s.documents for s in sources.values())
    size = sum(s.characters for s in sources.values())
    lost = sum(counts.get("dropped", {}).values())
    text = f"{counts.get('in', 0):,} files and rows were read, long files cut into {counts.get('parts', 0):,} more "
    text += f"parts. {kept:,} documents are kept, {counts.get('heldout', 0):,} held out, {lost:,} left out, each with "
    text += "its reason."
    return tag(
        "header",
        tag("p", "phikit corpus card", class_="kicker"),
        tag("h1", f"{kept:,} documents", tag("span", f"{size / 1e6:,.1f} million characters")),
        tag("p", text, class_="summary"),
        classifier_note(counts),
    )


def classifier_note(counts: Mapping[str, Any]) -> Html | None:
    """What the quality classifier learned from its teacher, on texts that took no part; None where there is none."""
    c = counts.get("classifier")
    if not isinstance(c, Mapping):
        return None
    text = (
        f"Quality classifier: {c['graded']:,} texts graded by the teacher. On {c['tested']:,} that took no part it "
        f"agrees with {c['agreement']:.0%} [{c['agreement_low']:.0%}, {c['agreement_high']:.0%}] of the grades (always "
        f"the same answer: {c['majority']:.0%}), kappa {c['kappa']:.2f}, AUC {c['auc']:.2f} [{c['auc_low']:.2f}, "
        f"{c['auc_high']:.2f}]. It kept {c['kept']:,} and dropped {c['dropped']:,}."
    )
    return tag("p", text, class_="note")


def _table(sources: Mapping[str, _Source]) -> Html:
    head = ("Source", "Documents", "Characters", "Mean length")
    rows = [
        (name, f"{s.documents:,}", f"{s.characters:,}", f"{s.characters // max(s.documents, 1):,}")
        for name, s in sorted(sources.items())
    ]
    body = [tag("tr", [tag("td", cell) for cell in row]) for row in rows]
    table = tag(
        "table", tag("thead", tag("tr", [tag("th", h) for h in head])), tag("tbody", body), class_="plain"
    )
    return tag("div", table, class_="scroll")


def _source(name: str, s: _Source) -> list[Html]:
    figures = [
        _figure("length in characters", [(_length(k), s.lengths[k], "kept") for k in sorted(s.lengths)])
    ]
    for measure in MEASURES:
        if found := s.named[measure]:
            rows = [(clip(k, 32), n, "whole") for k, n in sorted(found.items(), key=lambda x: (-x[1], x[0]))]
            rest = sum(n for _, n, _ in rows[MOST:])
            none = s.documents - sum(found.values())
            rows = rows[:MOST] + ([(f"{len(rows) - MOST:,} others", rest, "")] if rest else [])
            figures.append(_figure(measure, rows + ([("not stated", none, "")] if none else [])))
    return [tag("h3", name), tag("div", figures, class_="grid3 histograms")]


def _figure(name: str, rows: list[tuple[str, int, str]]) -> Html:
    return tag("figure", tag("figcaption", tag("b", name)), bars(rows))


def _length(bits: int) -> str:
    low = 1 << max(bits - 1, 0)
    return f"{low:,}+" if low < 1024 else f"{low >> 10:,}K+"


def _rejections(folder: Path, counts: Mapping[str, Any]) -> list[Html]:
    reasons = sorted(counts.get("dropped", {}).items(), key=lambda x: (-x[1], x[0]))
    if not reasons:
        return [tag("p", "Nothing was left out.", class_="absent")]
    examples: dict[str, list[Mapping[str, Any]]] = {}
    by_source: Counter[str] = Counter()
    for row in read_jsonl(folder / "rejected.jsonl.zst"):
        by_source[row["source"]] += 1
        some = examples.setdefault(row["reason"], [])
        if len(some) < EXAMPLES:
            some.append(row)
    shown = [
        tag("details", tag("summary", f"{reason}: {n:,}"), [_example(r) for r in examples.get(reason, [])])
        for reason, n in reasons
    ]
    told = ", ".join(f"{source} {n:,}" for source, n in sorted(by_source.items()))
    return [
        bars([(r, n, "loss") for r, n in reasons]),
        tag("p", f"By source: {told}.", class_="note"),
        *shown,
    ]


def _example(row: Mapping[str, Any]) -> Html:
    where = tag("div", f"{clip(row['path'], 160)}: {clip(row['detail'], 240)}", class_="dim")
    return tag("div", where, tag("div", clip(row["text"], 300), class_="text"), class_="example")
