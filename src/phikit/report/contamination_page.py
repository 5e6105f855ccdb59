"""The page of `phikit decontaminate`: what was found, and each match beside the evaluation item that it is."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from phikit.records.io import read_json, read_jsonl, write_text
from phikit.report.document import bars, document
from phikit.report.markup import Html, clip, tag

_COLUMNS = ("rows", "contaminated", "partial", "unreadable")
SHOWN = 300  # matches on the page; flagged.jsonl holds all


def write_page(folder: Path) -> Path:
    """Writes report.html of a folder that `phikit decontaminate` wrote; returns its path."""
    write_text(folder / "report.html", page(folder))
    return folder / "report.html"


def page(folder: Path) -> str:
    s = read_json(folder / "summary.json")
    flagged = sorted(islice(read_jsonl(folder / "flagged.jsonl"), 20 * SHOWN), key=_rank)[:SHOWN]
    asked = s.get("paraphrase", "")
    found = s["contaminated"] + s["partial"] + s.get("paraphrase_alone", 0)
    head = tag(
        "header",
        tag("p", "phikit decontaminate", class_="kicker"),
        tag("h1", _percent(s["contaminated"], s["rows"]), tag("span", "of the rows are contaminated")),
        tag(
            "p",
            f"{s['rows']:,} rows were compared with {s['items']:,} evaluation items: {s['contaminated']:,} are "
            f"contaminated, {s['partial']:,} match in part, {s['unreadable']:,} could not be read. "
            f"{s['items_found']:,} items were found at least once."
            + (
                f" {s['paraphrased']:,} rows hold an item in other words, "
                f"{s['paraphrase_alone']:,} of them without a shared n-gram."
                if asked
                else ""
            ),
            class_="summary",
        ),
    )
    body = tag(
        "main",
        head,
        tag("h2", "By file"),
        _table(
            ("File", "Rows", "Contaminated", "Partial", "Unreadable", *(("Paraphrases",) if asked else ())),
            [
                (f, *(c.get(k, 0) for k in (*_COLUMNS, *(("paraphrased",) if asked else ()))))
                for f, c in s["by_file"].items()
            ],
        ),
        tag("h2", "Items found most often") if s["top_items"] else None,
        bars(_top(s["top_items"])) if s["top_items"] else None,
        tag("h2", "Matches"),
        _controls(len(flagged), found + s["unreadable"])
        if flagged
        else tag("p", "Nothing was found.", class_="absent"),
        *(_match(row) for row in flagged),
        tag("h2", "The rule"),
        tag(
            "p",
            "A row is contaminated when it shares a 13-gram of words with an item, boilerplate that many items share "
            f"left out ({s['boilerplate_13grams']:,} such 13-grams here). Otherwise its distinct 7-grams are compared: "
            f"shared / min(row, item) above {s['info']:g} is a partial match, from {s['contaminated_from']:g} on it is "
            "contaminated (Phi-4 report, appendix B.1; it does not give the thresholds). Words are lower-cased runs of "
            "letters and digits: wrapping, case and punctuation change nothing. "
            "An item with other numbers in it is looked for too, by 13-grams in which numbers are alike and at least "
            f"eight words are none, by the same ratio: it is {'contaminated' if s['numbers_dropped'] else 'partial'}. "
            f"{s['items_too_short']:,} items have fewer than 7 words, which no n-gram rule can find; nor can it find a "
            "paraphrase.",
            class_="lead",
        ),
        tag(
            "p",
            f"Paraphrases: a passage whose embedding ({asked}) has a cosine of {s['paraphrase_from']:g} or more with "
            "an item's. This is a place to look, no proof: a different question in the same words is as close. "
            f"Such rows were {'left out' if s['paraphrases_dropped'] else 'kept'}. "
            f"{s['items_too_short_for_it']:,} items were too short to be looked for.",
            class_="lead",
        )
        if asked
        else None,
        tag("p", "Against: " + ", ".join(s["against"]), class_="note"),
    )
    return document("Decontamination", [body], ("style.css", "contamination.css"), ("card.js",))


def _rank(row: dict[str, Any]) -> tuple:
    return (
        ("contaminated", "partial", "paraphrase", "unreadable").index(row["verdict"]),
        -row["ratio"]
        - ((row.get("paraphrase") or {}).get("score", 0) if row["verdict"] == "paraphrase" else 0),
        row["file"],
        row["row"],
    )


def _match(row: dict[str, Any]) -> Html:
    bad = row["verdict"] not in ("partial", "paraphrase")
    other = row.get("paraphrase")
    facts = [f"{row['file']}, row {row['row'] + 1:,}"]
    if row["rule"]:
        facts.append(row["shown"])
    if other:
        facts.append(f"cosine {other['score']:.3f} with {other['item']}")
    who = tag(
        "div",
        tag("span", row["rule"] or row["verdict"], class_="mark bad" if bad else "mark"),
        tag("b", row["item"] or (other["item"] if other else "cannot be read")),
        tag("span", "; ".join(facts), class_="dim"),
        class_="who",
    )
    sides = []
    if row["item"] or not other:
        match = tag("mark", clip(row["match"], 1500))
        mine = tag("p", _cut(row["before"], front=True), match, _cut(row["after"]), class_="text")
        sides.append(tag("div", tag("h4", "In your data"), mine))
    if row["item"]:
        sides.append(tag("div", tag("h4", "The item"), tag("p", clip(row["item_text"], 1500), class_="text")))
    if other and other["item"] != row["item"]:
        near = tag("p", tag("mark", clip(other["match"], 1500)), class_="text")
        sides.append(tag("div", tag("h4", "In other words, in your data"), near))
        sides.append(
            tag("div", tag("h4", "The item"), tag("p", clip(other["item_text"], 1500), class_="text"))
        )
    return tag(
        "article", who, tag("div", sides, class_="sides"), class_="sample", data_verdict=row["verdict"]
    )


def _cut(text: str, front: bool = False) -> str:
    return ("... " if front else "") + text + ("" if front else " ...") if text else ""


def _controls(shown: int, total: int) -> Html:
    options = [
        ("", "all"),
        ("contaminated", "contaminated"),
        ("partial", "partial"),
        ("paraphrase", "paraphrase alone"),
        ("unreadable", "unreadable"),
    ]
    return tag(
        "form",
        tag("label", "Search ", tag("input", id="find", type="search", placeholder="words in row or item")),
        tag("label", "Verdict ", tag("select", *(tag("option", t, value=v) for v, t in options), id="verdict")),
        tag("output", "", id="shown", class_="dim"),
        tag("span", f"first {shown:,} of {total:,}; all are in flagged.jsonl", class_="dim") if total > shown else None,
        class_="controls",
    )  # fmt: skip


def _top(items: dict[str, int]) -> list[tuple[str, int, str]]:
    return [(clip(name, 60), n, "") for name, n in sorted(items.items(), key=lambda x: -x[1])]


def _table(head: tuple[str, ...], rows: list[tuple]) -> Html:
    return tag(
        "div",
        tag("table", tag("thead", tag("tr", *(tag("th", h) for h in head))),
            tag("tbody", *(tag("tr", *(tag("td", f"{c:,}" if isinstance(c, int) else c) for c in r)) for r in rows)),
            class_="plain"),
        class_="scroll",
    )  # fmt: skip


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "0%"
