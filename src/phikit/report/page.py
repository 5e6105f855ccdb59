"""The upper half of the page: what was made, the score table, verdicts, conversations, next commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phikit.report.load import RunData
from phikit.report.markup import Html, clip, tag
from phikit.report.numbers import (
    CHECKPOINTS,
    MEANING,
    checkpoint_order,
    duration,
    is_share,
    lower_is_better,
    score_text,
    short,
    with_interval,
)
from phikit.report.verdicts import Scores, Verdict, last_line

CONVERSATIONS = 4
GOOD = {"true", "1", "1.0", "correct", "right", "ok", "pass", "passed", "well-formed", "win"}
BAD = {"false", "0", "0.0", "wrong", "incorrect", "fail", "failed", "malformed", "unparsed", "loss"}
GLYPH = {"worked": "+", "no effect": "=", "harmed": "-", "not judged": "?", "not run": "", "failed": "x"}


def section(title: str, *body: Any, anchor: str, lead: Any = None) -> Html:
    return tag("section", tag("h2", title), tag("p", lead, class_="lead") if lead else None, *body, id=anchor)


def absent(reason: str | None) -> Html:
    return tag("p", reason or "Not run.", class_="absent")


def command(data: RunData) -> str:
    """The run folder as a person would type it: relative where it lies under the working folder."""
    full, here = data.folder.resolve(), Path.cwd()
    return str(full.relative_to(here) if full.is_relative_to(here) else data.folder)


def tokens_of(data: RunData, stage: str) -> int | None:
    """Tokens a training stage saw: its manifest's count, else the last logged step."""
    n = data.counts(stage).get("tokens")
    if not isinstance(n, (int, float)):
        rows = data.metrics.get(stage) or [{}]
        n = rows[-1].get("tokens")
    return int(n) if isinstance(n, (int, float)) else None


def summary(data: RunData, verdicts: Sequence[Verdict]) -> Html:
    """Title, the failure if there is one, and one paragraph."""
    recipe = data.recipe
    made = [n for n in CHECKPOINTS if data.stage(n).get("status") == "done"]
    total = sum(s.get("seconds") or 0 for s in data.stages)
    cached = sum(1 for s in data.stages if s.get("cached"))
    tokens = {n: tokens_of(data, n) for n in made}
    parts: list[Any] = []
    if data.parameters:
        what = "a chat model" if "sft" in made else "a base model"
        parts += ["This run made ", what, " of ", _b(f"{short(data.parameters)} parameters"), ". "]
    elif made:
        parts += ["This run trained ", _b(", ".join(made)), ". "]
    else:
        parts += ["This run has no trained checkpoint yet. "]
    seen = [f"{short(tokens[n])} in {n}" for n in made if tokens[n]]
    if seen:
        whole = short(sum(t for t in tokens.values() if t))
        parts += ["It read ", _b(f"{whole} tokens"), " in training (", ", ".join(seen), "). "]
    done = sum(1 for s in data.stages if s.get("status") == "done")
    parts += [f"{done} of {len(data.stages)} stages took ", _b(duration(total))]
    parts += [f", {cached} of them kept from an earlier run. " if cached else ". "]
    by_word = {w: [v.stage for v in verdicts if v.word == w] for w in ("worked", "no effect", "harmed")}
    said = [
        text.format(_list(by_word[w]))
        for w, text in (
            ("worked", "{} worked"),
            ("no effect", "{} had no visible effect"),
            ("harmed", "{} harmed"),
        )
        if by_word[w]
    ]
    if said:
        parts += ["By the measured scores, ", "; ".join(said), "."]
    return tag(
        "header",
        tag("p", "phikit run report", class_="kicker"),
        tag(
            "h1",
            recipe.get("name", "run"),
            " ",
            tag("span", f"scale {recipe.get('scale', 'unknown')}, seed {recipe.get('seed', 'unknown')}"),
        ),
        failure(data),
        tag("p", parts, class_="summary"),
    )


def failure(data: RunData) -> Html | None:
    row = data.failed
    if row is None:
        return None
    error = str(row.get("error") or "no message")
    whole = (
        tag("details", tag("summary", "whole error"), tag("pre", clip(error, 6000)))
        if "\n" in error
        else None
    )
    trace = f"errors/{row['name']}.txt"  # where the runner puts the traceback
    return tag(
        "div",
        tag("strong", f"Stage {row['name']} failed."),
        " The page shows what the stages before it made. ",
        tag("pre", clip(last_line(error), 1500)),
        whole,
        tag("p", "Details: ", tag("code", trace), " in the run folder.")
        if (data.folder / trace).is_file()
        else None,
        class_="failure",
        role="alert",
    )


def score_table(data: RunData, table: Scores) -> Html:
    """Rows are checkpoints, columns tasks; tinted where a score moved visibly since the row above."""
    title = "Every checkpoint, every score"
    if not table.rows:
        return section(title, absent(data.missing.get("scores")), anchor="scores")
    checkpoints = sorted({c for c, _, _ in table.rows}, key=checkpoint_order)
    unfinished = {s["name"] for s in data.stages if s.get("status") != "done"}
    shown = [c for c in CHECKPOINTS if c in checkpoints or c in unfinished]
    shown += [c for c in checkpoints if c not in shown]
    head = [tag("th", "checkpoint", scope="col", class_="corner")]
    for j, (task, metric) in enumerate(table.columns):
        unit = "%" if is_share(task, metric) else "lower is better"
        tip = MEANING.get(task)
        name = tag("span", task.replace("_", " "), class_="task", data_tip=tip, tabindex=0 if tip else None)
        small = tag("small", metric.replace("_", " "), " ", tag("span", unit))
        head.append(tag("th", name, small, scope="col", style=f"--i:{j}", class_="column"))
    body = []
    for r, checkpoint in enumerate(shown):
        cells = [tag("th", checkpoint, scope="row", style=f"--r:{r}", class_="checkpoint")]
        for j, (task, metric) in enumerate(table.columns):
            before = next((c for c in reversed(shown[:r]) if (c, task, metric) in table.rows), None)
            cells.append(_cell(table, checkpoint, before, task, metric, f"--i:{j};--r:{r}"))
        body.append(tag("tr", cells))
    legend = tag(
        "p",
        tag("span", "better", class_="swatch up"),
        tag("span", "worse", class_="swatch down"),
        " than the checkpoint before, visibly: a paired interval that excludes 0 where one was written, "
        "otherwise disjoint 95 % intervals. ",
        tag("b", "Bold", class_="best"),
        " is the best of its task. Under each value stands its 95 % interval.",
        class_="note legend",
    )
    grid = tag("table", tag("thead", tag("tr", head)), tag("tbody", body), class_="scores")
    wrapper = tag("div", grid, class_="scroll", style=f"--n:{len(shown)}")
    return section(title, wrapper, legend, anchor="scores")


def _cell(table: Scores, checkpoint: str, before: str | None, task: str, metric: str, style: str) -> Html:
    row = table.rows.get((checkpoint, task, metric))
    if row is None:
        return tag("td", tag("span", "-", class_="value"), class_="none", style=style)
    column = [r["value"] for (_, t, m), r in table.rows.items() if (t, m) == (task, metric)]
    best = (min if lower_is_better(task, metric) else max)(column)
    change = table.change(checkpoint, before, task, metric) if before else None
    sign = change.sign if change else 0
    low, high = (score_text(task, metric, row.get(k)) for k in ("low", "high"))
    kind = {1: "up", -1: "down", 0: ""}[sign]
    rose = (sign > 0) != lower_is_better(task, metric)
    arrow = tag("span", "\u2191" if rose else "\u2193", class_="arrow") if sign else None
    is_best = row["value"] == best and len(column) > 1 and min(column) != max(column)
    tip = f"{checkpoint}, {task} {metric}\n{with_interval(dict(row))}\nn = {int(row.get('n') or 0):,}"
    tip += f"\nagainst {before}: {change.text}" if change else ""
    return tag(
        "td",
        tag(
            "span", arrow, score_text(task, metric, row["value"]), class_="value best" if is_best else "value"
        ),
        tag("small", f"{low}\u2013{high}"),
        class_=kind or None,
        style=style,
        data_tip=tip,
        tabindex=0,
    )


def verdict_list(data: RunData, verdicts: Sequence[Verdict]) -> Html:
    items = []
    for v in verdicts:
        extra = [
            tag("p", label, ", ".join(names), ".", class_="aside")
            for label, names in (("Also better: ", v.gains), ("Cost: ", v.costs))
            if names
        ]
        items.append(
            tag(
                "li",
                tag("div", tag("h3", v.stage), _chip(v.word), class_="side"),
                tag("div", tag("p", v.text), extra),
                class_="verdict " + v.word.replace(" ", "-"),
            )
        )
    lead = "Each stage is judged against the checkpoint before it, on what the stage is for."
    return section("What each stage did", tag("ol", items, class_="verdicts"), anchor="verdicts", lead=lead)


def conversations(data: RunData) -> Html:
    """The same question to the base model and to every chat checkpoint."""
    title, anchor = "The same question, before and after", "conversations"
    if not data.samples:
        return section(title, absent(data.missing.get("samples")), anchor=anchor)
    groups = grouped(data.samples)
    turned: dict[str, list[tuple[str, str]]] = {"better": [], "worse": [], "same": []}
    for key, by in groups.items():
        first, last = by.get("sft"), by.get("dpo2") or by.get("dpo1")
        if key[0] in ("arithmetic", "questions") and first and last:
            a, b = passed(first.get("verdict")), passed(last.get("verdict"))
            if a is not None and b is not None:
                turned["same" if a == b else "better" if b else "worse"].append(key)
    limit = int(data.recipe.get("conversations", CONVERSATIONS))
    picked = turned["better"][:2] + turned["worse"][:1] + turned["same"][:1]
    picked += [k for k in groups if k not in picked and len(groups[k]) > 1]
    picked = picked[:limit]
    n = sum(len(v) for v in turned.values())
    lead = "Picked by rule from the saved samples: the first two that turned right, the first that turned "
    lead += "wrong, the first unchanged, then the others in order."
    if n:
        lead = (
            f"Of {n} saved answers to problems, {len(turned['better'])} turned from wrong to right between "
            f"sft and the last DPO, {len(turned['worse'])} from right to wrong. " + lead
        )
    return section(title, [conversation(groups[k]) for k in picked], anchor=anchor, lead=lead)


def grouped(samples: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Samples by (task, id), then by checkpoint; the first sample of a checkpoint counts."""
    out: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in samples:
        by = out.setdefault((str(row.get("task")), str(row.get("id"))), {})
        by.setdefault(str(row.get("checkpoint")), row)
    return out


def conversation(by: dict[str, dict[str, Any]]) -> Html:
    order = sorted(by, key=checkpoint_order)
    if "midtrain" in order and "pretrain" in order:
        order.remove("pretrain")  # one base model is enough beside the chat models
    asked = by["sft"] if "sft" in by else by[order[-1]]
    answers = [
        tag(
            "div",
            tag("div", tag("b", name), outcome(by[name].get("verdict")), class_="who"),
            tag("div", clip(by[name].get("output", ""), 900) or "(nothing)", class_="text"),
            class_="answer",
        )
        for name in order
    ]
    return tag(
        "article",
        tag("div", clip(prompt_text(asked.get("prompt", "")), 900), class_="question"),
        tag("div", answers, class_="answers"),
        class_="talk",
    )


def prompt_text(prompt: Any) -> str:
    """A prompt as text: a string, or the turns of a chat."""
    if isinstance(prompt, list):
        turns = [t for t in prompt if isinstance(t, dict)]
        if len(turns) == 1:
            return str(turns[0].get("content", ""))
        return "\n".join(f"{t.get('role', '')}: {t.get('content', '')}" for t in turns)
    return str(prompt)


def passed(verdict: Any) -> bool | None:
    """Whether a sample's verdict says right or wrong; None where it says neither."""
    if isinstance(verdict, dict):
        verdict = next((verdict[k] for k in ("correct", "ok", "passed", "verdict") if k in verdict), None)
    word = str(verdict).strip().lower()
    return True if word in GOOD else False if word in BAD else None


def outcome(verdict: Any) -> Html | None:
    ok = passed(verdict)
    if ok is None:
        return tag("span", clip(verdict, 40), class_="mark") if isinstance(verdict, str) and verdict else None
    return tag("span", "right" if ok else "wrong", class_="mark good" if ok else "mark bad")


def next_commands(data: RunData) -> Html:
    folder = command(data)
    rows: list[tuple[str, str]] = []
    if data.failed is not None:
        rows = [
            (
                f"phikit show {folder}",
                "what is there and what failed; mend the cause, then give the same run "
                "command again: finished stages are kept",
            )
        ]
    if data.stage("sft").get("status") == "done":
        rows.append((f"phikit chat {folder}", "talk to the last chat model of this run"))
    if data.failed is None:
        rows.append((f"phikit show {folder}", "this page in the terminal"))
    if data.pair_id:
        rows.append(
            (
                f"phikit trace {folder} {data.pair_id[:12]}",
                "from one preference pair back to its question, rollouts and source",
            )
        )
    lines = [tag("div", tag("code", line), tag("span", says), class_="command") for line, says in rows]
    return section("Type this next", lines, anchor="next")


def _chip(word: str) -> Html:
    return tag("span", GLYPH[word], " " if GLYPH[word] else "", word, class_="chip " + word.replace(" ", "-"))


def _b(text: str) -> Html:
    return tag("b", text)


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
