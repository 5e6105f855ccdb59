"""The data card of `phikit synth run`: one self-contained page on which one reads a data set.

Samples stand beside their seed, with every prompt and answer that led to them (critique, revision, marks) a click away;
rejected ones too, with the reason. Reads the folder's files only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phikit.records.io import read_json, read_jsonl, write_text
from phikit.report.document import bars, document
from phikit.report.markup import Html, clip, tag

SHOWN, REJECTED = 120, 80
NAV = (
    ("rates", "Accepted"),
    ("diversity", "Diversity"),
    ("about", "About"),
    ("samples", "Samples"),
    ("made", "Made by"),
)
MEANING = {
    "rows": "rows compared", "distinct_1": "different words over all words", "distinct_2": "different word pairs",
    "distinct_3": "different word triples", "self_overlap": "share of a row's 4-grams that another row has",
    "spread": "mean cosine distance of two rows' embeddings", "nearest": "cosine distance to the nearest other row",
}  # fmt: skip


def write_card(folder: Path) -> Path:
    """Writes card.html of a folder that `phikit synth run` wrote; returns its path. Raises ValueError where it is
    none."""
    if not (folder / "manifest.json").is_file():
        raise ValueError(
            f"{folder}: no manifest.json here; give a folder that `phikit synth run --out` wrote"
        )
    write_text(folder / "card.html", page(folder))
    return folder / "card.html"


def page(folder: Path) -> str:
    """The page as HTML."""
    manifest = read_json(folder / "manifest.json")
    rows = [r for f in ("rows", "documents") for r in _read(folder / f"{f}.jsonl")]
    rejected = list(_read(folder / "rejected.jsonl"))
    seeds: dict[str, Any] = {}
    for path in sorted((folder / "blocks").glob("*/seeds.json")):
        seeds |= read_json(path)
    steps: dict[str, list[dict[str, Any]]] = {}
    for step in _read(folder / "steps.jsonl.zst"):
        steps.setdefault(step["seed"], []).append(step)
    counts = manifest["counts"]
    main = tag(
        "main",
        _header(manifest),
        _section("Accepted, and why not", _rates(counts), anchor="rates"),
        _section("How diverse", _diversity(manifest["quality"]["diversity"]), anchor="diversity"),
        _section("What it is about", _histograms(manifest["quality"]["histograms"]), anchor="about"),
        _section("Samples", _samples(rows, rejected, seeds, steps), anchor="samples"),
        _section("Made by", _made(manifest, rows), anchor="made"),
    )
    nav = tag("nav", [tag("a", text, href=f"#{anchor}") for anchor, text in NAV], aria_label="Sections")
    return document(f"{manifest['name']} - data card", [nav, main], ("style.css", "card.css"), ("card.js",))


def _header(manifest: Mapping[str, Any]) -> Html:
    c, job = manifest["counts"], manifest["job"]
    tokens = f"{manifest['tokens']:,} tokens" + (
        f" of {manifest['budget']:,}" if manifest.get("budget") else ""
    )
    text = f"{c['accepted']:,} rows from {c['seeds']:,} seeds ({c['accepted'] / max(c['seeds'], 1):.0%}), "
    text += (
        f"{c['requests']:,} requests, {tokens}, by {', '.join(dict.fromkeys(manifest['models'].values()))}."
    )
    return tag(
        "header",
        tag("p", "phikit data card", class_="kicker"),
        tag("h1", manifest["name"], " ", tag("span", f"flow {job['flow']}, {job['language']}")),
        tag("p", text, class_="summary"),
    )


def _section(title: str, *body: Any, anchor: str) -> Html:
    return tag("section", tag("h2", title), *body, id=anchor)


def _rates(counts: Mapping[str, Any]) -> Html:
    rows = [("seeds", counts["seeds"], "whole"), ("accepted rows", counts["accepted"], "kept")]
    rows += [(r, n, "") for r, n in sorted(counts["rejected"].items(), key=lambda x: -x[1])]
    note = "A seed may give several rows, and may be rejected at several steps."
    return tag("div", bars(rows), tag("p", note, class_="note"))


def _diversity(measures: Mapping[str, Any]) -> Html:
    cells = [
        tag("div", tag("b", f"{v:,}" if isinstance(v, (int, float)) else "-"), tag("span", k.replace("_", " ")),
            tag("small", MEANING.get(k, "") if isinstance(v, (int, float)) else str(v)), class_="measure")
        for k, v in measures.items()
    ]  # fmt: skip
    return tag("div", cells, class_="measures")


def _histograms(found: Mapping[str, Sequence[tuple[str, int]]]) -> Html:
    parts = [
        tag("figure", tag("figcaption", tag("b", name)), bars([(k, n, "whole") for k, n in values]))
        for name, values in found.items()
        if len(values) > 1 or name in ("words", "topics")
    ]
    return tag("div", parts, class_="grid3 histograms") if parts else tag("p", "No rows.", class_="absent")


def _samples(
    rows: Sequence[Mapping[str, Any]], rejected: Sequence[Mapping[str, Any]], seeds: Mapping[str, Any],
    steps: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Html:  # fmt: skip
    if not rows and not rejected:
        return tag("p", "Nothing was made and nothing rejected.", class_="absent")
    reasons = list(dict.fromkeys(r["reason"] for r in rejected[:REJECTED]))
    options = [tag("option", "accepted and rejected", value="")]
    options += [tag("option", v, value=v) for v in (["accepted"] if rows else []) + reasons]
    controls = tag(
        "div",
        tag(
            "input",
            type="search",
            id="find",
            placeholder="words in seed, sample or reason",
            aria_label="Search",
        ),
        tag("select", options, id="verdict", aria_label="Verdict"),
        tag("span", id="shown", class_="dim"),
        class_="controls",
    )
    cards = [
        _card(
            "accepted",
            r["seed"]["text"],
            r["seed"]["path"],
            _content(r),
            _facts(r),
            steps.get(r["seed"]["id"], ()),
        )
        for r in rows[:SHOWN]
    ]
    for r in rejected[:REJECTED]:
        seed = seeds.get(r["seed"], {"text": "", "meta": {}})
        body = tag("div", clip(r.get("detail") or "(nothing)", 900), class_="text")
        cards.append(
            _card(
                r["reason"], seed["text"], seed["meta"].get("path", ""), body, None, steps.get(r["seed"], ())
            )
        )
    left = len(rows) - SHOWN, len(rejected) - REJECTED
    more = [f"{n:,} more {what}" for n, what in zip(left, ("accepted", "rejected")) if n > 0]
    note = tag("p", f"Not shown: {', '.join(more)}.", class_="note") if more else None
    return tag("div", controls, tag("div", cards, id="cards"), note)


def _card(
    verdict: str, seed: str, path: str, body: Html, facts: Html | None, steps: Sequence[Mapping[str, Any]]
) -> Html:
    asked = [
        tag(
            "div",
            tag("pre", clip(s["prompt"], 1200), class_="asked"),
            tag("pre", clip(s["answer"], 1200)),
            class_="step",
        )
        for s in steps[:24]
    ]
    mark = tag("span", verdict, class_="mark good" if verdict == "accepted" else "mark bad")
    left = tag(
        "div",
        tag("div", tag("b", "seed"), tag("small", path), class_="who"),
        tag("div", clip(seed, 1500), class_="text"),
    )
    right = tag("div", tag("div", mark, class_="who"), body, facts)
    more = tag("details", tag("summary", f"prompts and answers ({len(steps)})"), asked) if asked else None
    return tag(
        "article", tag("div", left, right, class_="pair"), more, class_="talk sample", data_verdict=verdict
    )


def _content(row: Mapping[str, Any]) -> Html:
    if "text" in row:
        return tag("div", clip(row["text"], 3000), class_="text")
    seed = row["seed"]["text"]
    parts = []
    for turn in row["messages"]:
        said = turn["content"].replace(seed, "[the seed]") if len(seed) > 80 else turn["content"]
        parts.append(
            tag(
                "div",
                tag("small", turn["role"]),
                tag("div", clip(said, 1500), class_="text"),
                class_=f"turn {turn['role']}",
            )
        )
    return tag("div", parts)


def _facts(row: Mapping[str, Any]) -> Html:
    hidden = ("solutions", "tests")
    short = [
        tag("span", tag("b", k.replace("_", " ")), " ", _plain(v))
        for k, v in row["meta"].items()
        if k not in (*hidden, "revisions")
    ]
    long = [
        tag(
            "details", tag("summary", k), tag("pre", clip("\n".join(_plain(x) for x in row["meta"][k]), 3000))
        )
        for k in hidden
        if row["meta"].get(k)
    ]
    return tag("div", _revisions(row["meta"].get("revisions") or ()), tag("div", short, class_="facts"), long)


def _revisions(versions: Sequence[Mapping[str, Any]]) -> Html | None:
    """Every version with its total and the advice that led to the next one."""
    if not versions:
        return None
    items = []
    for i, v in enumerate(versions):
        led = v.get("advice") if i + 1 < len(versions) else None
        advice = tag("div", "advice: ", clip(led, 300), class_="dim") if led else None
        items.append(
            tag("li", tag("b", f"{i}: {v.get('total', '')}"), " ", clip(v.get("text", ""), 600), advice)
        )
    return tag("div", tag("small", "revisions and their totals"), tag("ul", items, class_="revisions"))


def _made(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Html:
    prompts = sorted({p for r in rows for p in r["prompts"]})
    job = manifest["job"]
    pairs = [
        ("teachers", ", ".join(f"{k}: {v}" for k, v in manifest["models"].items())),
        ("seeds", str(manifest["seeds"])), ("options", _plain(job["options"]) or "the flow's own"),
        ("prompts (name@version)", ", ".join(prompts) or "none in an accepted row"),
    ]  # fmt: skip
    body = [tag("tr", tag("th", k, scope="row"), tag("td", v)) for k, v in pairs]
    return tag("table", tag("tbody", body), class_="plain made")


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return json.dumps(value, ensure_ascii=False) if len(value) < 12 else f"{len(value)} items"
    return str(value)


def _read(path: Path) -> Any:
    return read_jsonl(path) if path.is_file() else ()
