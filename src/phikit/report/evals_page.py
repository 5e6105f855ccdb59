"""The page of an evaluation (`phikit eval`) and of a pair of them, made of their files alone: run.json, scores.json,
records/*.parquet. What models wrote is data in the page, never markup: the script puts it in as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phikit.records.io import read_json, write_text
from phikit.report.document import document
from phikit.report.evals_examples import EXAMPLES, WORDS, browser, differing, examples
from phikit.report.markup import Html, clip, tag
from phikit.report.numbers import duration, short

PAGE = "report.html"
STYLES, SCRIPTS = ("style.css", "evals.css"), ("page.js", "evals.js")
Row = Mapping[str, Any]


def write_page(folder: Path) -> Path:
    """Writes DIR/report.html of a finished evaluation. Raises OSError or ValueError where its files are not whole."""
    run, scores = read_json(folder / "run.json"), read_json(folder / "scores.json")
    main = tag(
        "main",
        _header(run, scores),
        _scores(run, scores),
        _groups(run, scores),
        examples(folder, run),
        _how(run),
    )
    links = [
        ("scores", "Scores"),
        ("groups", "By subject"),
        ("examples", "Examples"),
        ("how", "How it was asked"),
    ]
    nav = tag("nav", [tag("a", text, href=f"#{anchor}") for anchor, text in links], aria_label="Sections")
    path = folder / PAGE
    write_text(path, document(f"{run['model']} - phikit eval", [nav, main], STYLES, SCRIPTS))
    return path


def write_comparison(a: Path, b: Path, rows: Sequence[Row], out: Path) -> Path:
    """Writes the page of two evaluations; `rows` are those of `phikit eval compare`."""
    runs = [read_json(x / "run.json") for x in (a, b)]
    names = [r["model"] for r in runs]
    if names[0] == names[1]:
        names = [str(a), str(b)]
    intro = [
        tag("b", names[0]), " against ", tag("b", names[1]), ": the same questions, paired one by one. The bar "
        "is the 95 % interval of the difference; a bar that leaves out zero is a difference. ",
        tag("b", "Could see"), " is the smallest true difference that would have been seen in four of five cases.",
    ]  # fmt: skip
    widest = max((abs(v) for r in rows for v in (r["low"], r["high"])), default=0.1) * 1.05 or 0.1
    lines = [_difference(r, names, widest) for r in rows]
    head = tag(
        "header",
        tag("p", "phikit eval compare", class_="kicker"),
        tag("h1", "Two evaluations"),
        tag("p", intro, class_="summary"),
    )
    table = tag(
        "section", tag("h2", "Differences"), tag("div", lines, class_="lines differences"), id="scores"
    )
    found = [differing(a, b, t["name"]) for t in runs[0]["tasks"] if t["name"] in {r["task"] for r in rows}]
    lead = f"Answers with different outcomes, the first {EXAMPLES} of each task."
    main = tag("main", head, table, browser(found, {"names": names}, "Where they differ", lead))
    path = out / PAGE if out.suffix != ".html" else out
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, document(f"{names[0]} against {names[1]}", [main], STYLES, SCRIPTS))
    return path


def _header(run: Row, scores: Sequence[Row]) -> Html:
    answers = sum(s["n"] for s in scores if s["primary"] and not s["group"] and s["subset"] == "all")
    tested = run["sandbox"]
    parts: list[Any] = [
        f"{answers:,} answers to {len(run['tasks'])} tasks in ", tag("b", duration(run["seconds"])), ", ",
        f"{short(run['tokens']['prefilled'])} prompt tokens computed, {short(run['tokens']['generated'])} generated. "
        f"Numerics {run['numerics']}, seed {run['seed']}",
        f", at most {run['limit']} items a task: a part of the benchmark, not its score. " if run["limit"] else ". ",
    ]  # fmt: skip
    if run["judge"]:
        trusted = run.get("judge_agreement")
        parts.append(f"Judged by {run['judge']}" + (f" ({trusted['told']}). " if trusted else ". "))
    if tested:
        held = sum(a["contained"] for a in tested)
        parts.append(
            f"Programs ran in the sandbox, which contained {held} of {len(tested)} attacks before it did. "
        )
    missing = [
        tag("li", tag("b", n["title"]), " ", clip(n["reason"], 600)) for n in run["not_run"]
    ]  # fmt: skip
    return tag(
        "header",
        tag("p", "phikit eval", class_="kicker"),
        tag("h1", run["model"]),
        tag("p", parts, class_="summary"),
        tag(
            "details",
            tag("summary", f"{len(missing)} tasks were not run"),
            tag("ul", missing, class_="missing"),
        )
        if missing
        else None,
    )


def _scores(run: Row, scores: Sequence[Row]) -> Html:
    whole = [s for s in scores if not s["group"] and s["subset"] == "all"]
    clean = {(s["task"], s["metric"]): s for s in scores if s["subset"] == "clean"}
    lines = []
    for task in run["tasks"]:
        mine = [s for s in whole if s["task"] == task["name"]]
        lines.append(
            tag(
                "div",
                tag("h3", task["title"], tag("small", _asked(task))),
                [_line(s["metric"], s, clean.get((s["task"], s["metric"])), run) for s in mine],
                _outcomes(mine[0]),
                class_="task",
            )
        )
    lead = (
        "The dot is the score, the bar its 95 % interval. Answers that are not simply wrong are counted apart; none of "
        "them counts as right."
    )
    return tag(
        "section",
        tag("h2", "Scores"),
        tag("p", lead, class_="lead"),
        tag("div", lines, class_="lines"),
        id="scores",
    )


def _line(name: str, s: Row, clean: Row | None, run: Row) -> Html:
    told = f"{_number(s['value'])}, 95 % from {_ends(s)} ({s['method']}), n {s['n']} in {s['clusters']}"
    if s["run_sd"] is not None:
        told += f"; {s['runs']} runs, standard deviation of their means {s['run_sd']:.4f}"
    if s["detectable"] is not None:
        told += f"; against another model of this spread, unpaired, a difference of {s['detectable']:.3f} would be seen"
    beside = None
    if clean is not None:
        beside = tag(
            "span",
            f"clean {_number(clean['value'])} (n {clean['n']})",
            class_="clean",
            data_tip=f"items without a 13-gram of {run['training']}",
            tabindex=0,
        )
    return tag(
        "div",
        tag("span", name, class_="metric"),
        tag("span", tag("b", _number(s["value"])), tag("small", _ends(s)), class_="score"),
        _track(s, min(0.0, s["low"] or 0.0), max(1.0, s["value"], s["high"] or 0.0)),
        tag("span", f"n {s['n']:,}", class_="n"),
        beside,
        class_="line",
        data_tip=told,
        tabindex=0,
    )


def _groups(run: Row, scores: Sequence[Row]) -> Html | None:
    blocks = []
    for task in run["tasks"]:
        mine = [s for s in scores if s["task"] == task["name"] and s["group"] and s["primary"]]
        if not mine:
            continue
        rows = [
            tag(
                "div",
                tag("span", str(s["group"]).replace("_", " "), class_="metric"),
                tag("span", tag("b", _number(s["value"])), tag("small", _ends(s)), class_="score"),
                _track(s, 0.0, 1.0),
                tag("span", f"n {s['n']}", class_="n"),
                class_="line",
            )
            for s in sorted(mine, key=lambda s: -s["value"])
        ]
        blocks.append(
            tag(
                "details",
                tag("summary", f"{task['title']}: {len(rows)} groups"),
                tag("div", rows, class_="lines"),
                open=len(rows) <= 12,
            )
        )
    if not blocks:
        return None
    return tag("section", tag("h2", "By subject"), blocks, id="groups")


def _how(run: Row) -> Html:
    tasks = [
        tag(
            "tr",
            tag("td", tag("b", t["name"]), tag("br"), tag("small", f"version {t['version']}")),
            tag("td", _asked(t), tag("br"), tag("small", t["note"]) if t["note"] else None),
            tag("td", [_file(f) for f in t["files"]]),
            tag(
                "td",
                tag("code", t["prompts_sha"][:12]),
                tag("br"),
                tag("small", f"{t['prompt_tokens']['least']} to {t['prompt_tokens']['most']} tokens"),
            ),
        )
        for t in run["tasks"]
    ]
    heads = tag("tr", [tag("th", x) for x in ("Task", "How", "Data (sha256)", "Prompts")])
    attacks = [
        tag(
            "li",
            tag(
                "span",
                "contained" if a["contained"] else "ESCAPED",
                class_="mark good" if a["contained"] else "mark bad",
            ),
            " ",
            tag("b", a["name"]),
            " ",
            tag("span", clip(a["detail"], 160), class_="dim"),
        )
        for a in run["sandbox"]
    ]
    versions = ", ".join(f"{k} {v}" for k, v in run["versions"].items())
    return tag(
        "section",
        tag("h2", "How it was asked"),
        tag(
            "div", tag("table", tag("thead", heads), tag("tbody", tasks), class_="plain how"), class_="scroll"
        ),
        [tag("h3", "The sandbox's self-test"), tag("ul", attacks, class_="attacks")] if attacks else None,
        tag(
            "p",
            f"Model identity {run['identity']}; context {run['context']} tokens. {versions}.",
            class_="note",
        ),
        id="how",
    )


def _asked(t: Row) -> str:
    parts = [t["kind"]]
    if t.get("shots"):
        parts.append(f"{t['shots']['n']}-shot ({t['shots']['draw']} of {t['shots']['split']})")
    if "temperature" in t:
        parts.append(f"temperature {t['temperature']:g}, at most {t['max_tokens']} tokens")
    if t["runs"] > 1:
        parts.append(f"{t['runs']} runs")
    if t.get("length"):
        parts.append(f"{t['length']} tokens long")
    return ", ".join([*parts, f"{t['items']:,} items"])


def _file(f: Row) -> Html:
    known = f["known"] or ("not a file that phikit knows" if f["pack"] else "your own file")
    return tag(
        "p",
        tag("b", f["file"]),
        " ",
        tag("code", f["sha256"][:12]),
        tag("br"),
        tag("small", known),
        class_="file",
    )


def _outcomes(s: Row) -> Html:
    total = sum(s["counts"].values())
    order = [o for o in WORDS if s["counts"].get(o)]
    bar = [tag("i", class_=f"o-{o}", style=f"--w:{100 * s['counts'][o] / total:.2f}%") for o in order]
    told = [
        tag("span", tag("i", class_=f"o-{o}"), f"{s['counts'][o]:,} {WORDS[o]}", class_="key") for o in order
    ]  # fmt: skip
    return tag("div", tag("span", bar, class_="stack"), tag("span", told, class_="keys"), class_="outcomes")


def _difference(r: Row, names: Sequence[str], widest: float) -> Html:
    better = names[0] if r["verdict"] == "higher" else names[1] if r["verdict"] == "lower" else ""
    said = f"{better} is higher" if better else "no visible change"
    only = f"right in one alone: {r['only_a']} and {r['only_b']}"
    p = f", McNemar p {r['p']:.2g}" if r["p"] is not None else ""
    seen = "" if r["detectable"] is None else f"; could see {100 * r['detectable']:.1f} points"
    told = f"{r['value']:+.4f}, 95 % from {r['low']:+.4f} to {r['high']:+.4f} ({r['method']}), n {r['n']}; {only}{p}"
    return tag(
        "div",
        tag("h3", r["task"], tag("small", r["metric"])),
        tag(
            "div",
            tag("span", f"{_number(r['value_a'])} - {_number(r['value_b'])}", class_="metric"),
            tag(
                "span",
                tag("b", f"{100 * r['value']:+.1f}"),
                tag("small", f"{100 * r['low']:+.1f} to {100 * r['high']:+.1f}"),
                class_="score",
            ),
            _track(r, -widest, widest),
            tag("span", said, class_=f"chip {'worked' if better else ''}"),
            class_="line",
            data_tip=told,
            tabindex=0,
        ),
        tag("p", f"{only}{p}{seen}", class_="dim"),
        class_="task",
    )


def _track(s: Row, low: float, high: float) -> Html:
    """Interval and value between `low` and `high`; values outside are put at the end."""

    def at(x: float | None, missing: float) -> float:
        return round(100 * (min(max(missing if x is None else x, low), high) - low) / (high - low), 2)

    a, z, v = at(s["low"], low), at(s["high"], high), at(s["value"], low)
    zero = tag("i", class_="zero", style=f"--x:{at(0.0, 0.0)}%") if low < 0 else None
    return tag(
        "span",
        zero,
        tag("i", class_="range", style=f"--x:{a}%;--w:{round(z - a, 2)}%"),
        tag("i", class_="dot", style=f"--x:{v}%"),
        class_="track",
    )


def _number(x: float | None) -> str:
    """A share in per cent; other numbers as they are."""
    if x is None:
        return "none"
    return f"{100 * x:.1f}" if 0 <= x <= 1 else f"{x:.2f}"


def _ends(s: Row) -> str:
    return "no interval" if s["low"] is None else f"{_number(s['low'])} to {_number(s['high'])}"
