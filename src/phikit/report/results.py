"""What was measured, in detail: intervals, pivotal tokens, published figures, contamination, more samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phikit.report.charts import whiskers
from phikit.report.details import figure, number_text, numbers
from phikit.report.load import RunData
from phikit.report.markup import Html, clip, tag
from phikit.report.numbers import MEANING, checkpoint_order, is_share, score_text, with_interval
from phikit.report.page import absent, command, conversation, grouped, section
from phikit.report.pivots_page import component
from phikit.report.published import PHI4_PARAMETERS, PUBLISHED
from phikit.report.verdicts import OWN, Scores

SHOWN_SAMPLES = 16


def intervals(data: RunData, table: Scores) -> Html:
    title = "Scores with intervals"
    if not table.rows:
        return section(title, absent(data.missing.get("scores")), anchor="intervals")
    figures = []
    for task, metric in table.columns:
        rows = sorted(
            (r for (_, t, m), r in table.rows.items() if (t, m) == (task, metric)),
            key=lambda r: checkpoint_order(r["checkpoint"]),
        )
        share = is_share(task, metric)
        dots = [
            (
                r["checkpoint"],
                r["value"],
                r["low"],
                r["high"],
                f"{r['checkpoint']}: {with_interval(dict(r))}\n"
                f"n = {int(r.get('n') or 0):,}\n{r.get('method', '')}",
            )
            for r in rows
        ]
        unit = "per cent" if share else "bits, lower is better"
        name = task.replace("_", " ")
        says = f"{metric.replace('_', ' ')}; {MEANING.get(task, 'held-out')}"
        figures.append(
            figure(name, whiskers(dots, share=share, x_name=unit, title=f"{name} by checkpoint"), says)
        )
    lead = (
        "95 % intervals. The axes differ from panel to panel, to show changes that a common axis would hide."
    )
    return section(title, tag("div", figures, class_="grid3"), anchor="intervals", lead=lead)


def pivotal(data: RunData) -> Html:
    """Answers with p(success) along them and every pivotal token (report section 4.3)."""
    title, anchor = "Pivotal tokens", "pivotal"
    if data.pivotal is None:
        return section(title, absent(data.missing.get("pivotal")), anchor=anchor)
    more = f"`phikit pts view {command(data)}` shows the others too."
    return section(title, component(data.pivotal, data.pivotal_card, more), anchor=anchor)


def published(data: RunData, table: Scores) -> Html:
    if any(task == OWN for task, _ in table.columns):
        reason = "Phi-4's figures are of other tasks: this run measured your own questions."
        return section("Published figures beside ours", absent(reason), anchor="published")
    rows, same = [], 0
    for p in PUBLISHED:
        ours_task = p.task if any(t == p.task for t, _ in table.columns) else p.nearest
        comparable = ours_task == p.task
        same += comparable
        metric = next((m for t, m in table.columns if t == ours_task), "")
        ours = [
            table.rows.get((c, ours_task, metric)) if ours_task else None for c in ("sft", "dpo1", "dpo2")
        ]
        if comparable:
            verdict = tag("span", "same task", class_="mark good")
        else:
            verdict = tag("span", "not comparable" if any(ours) else "not measured", class_="mark")
        rows.append(
            tag(
                "tr",
                tag("th", p.name, scope="row"),
                [tag("td", "-" if v is None else f"{v:.1f}") for v in (p.sft, p.dpo1, p.final)],
                tag("td", (ours_task or "").replace("_", " "), class_="name"),
                [
                    tag("td", score_text(ours_task or "", metric, r["value"]) if r else "-", class_="ours")
                    for r in ours
                ],
                tag(
                    "td",
                    verdict,
                    tag("small", p.difference) if any(ours) and not comparable else None,
                    class_="why",
                ),
                class_=None if any(ours) else "unmeasured",
            )
        )
    scale = data.recipe.get("scale", "this")
    if same:
        lead = (
            f"{same} of {len(PUBLISHED)} published figures have the same task at scale {scale}; the protocol "
        )
        lead += "can still differ in prompts and sampling."
    else:
        lead = f"At scale {scale} no figure is comparable: the tasks are a closed world of sums, recall and "
        lead += "patterns"
        if data.parameters:
            lead += f", and the model is {PHI4_PARAMETERS / data.parameters:,.0f} times smaller than Phi-4"
        lead += (
            ". Our nearest task stands beside each published figure only to compare the direction of change "
        )
        lead += "from stage to stage."
    head = tag(
        "thead",
        tag(
            "tr",
            tag("th", "Phi-4 report"),
            [tag("th", x) for x in ("SFT", "DPO 1", "final")],
            tag("th", "our nearest task", class_="name"),
            [tag("th", x, class_="ours") for x in ("sft", "dpo1", "dpo2")],
            tag("th", "comparable?"),
        ),
    )
    table_html = tag("div", tag("table", head, tag("tbody", rows), class_="published"), class_="scroll")
    note = tag(
        "p",
        "Published: Phi-4 Technical Report (arXiv 2412.08905), Tables 1, 6 and 9, in per cent.",
        class_="note",
    )
    return section("Published figures beside ours", table_html, note, anchor="published", lead=lead)


def contamination(data: RunData) -> Html:
    title, anchor = "Contamination", "contamination"
    if data.contamination is None:
        return section(title, absent(data.missing.get("contamination")), anchor=anchor)
    lead = "Overlap of the training text with the evaluation sets: a shared 13-gram, or a large share of an "
    lead += "item's 7-grams (report, appendix B.1)."
    return section(title, value_block(data.contamination), anchor=anchor, lead=lead)


def value_block(value: Any, depth: int = 0) -> Html:
    """Any JSON value: a list or map of objects as a table, other maps as figures."""
    if isinstance(value, Mapping):
        if value and all(isinstance(v, Mapping) for v in value.values()):
            return value_block([{"": k, **v} for k, v in value.items()], depth)
        flat = {k: v for k, v in value.items() if not isinstance(v, (Mapping, list))}
        nested = [(k, v) for k, v in value.items() if isinstance(v, (Mapping, list)) and v]
        inner = [
            [tag("h4", str(k).replace("_", " ")), value_block(v, depth + 1)] for k, v in nested if depth < 4
        ]
        return tag("div", numbers(flat) if flat else None, inner)
    if isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
        columns = list(dict.fromkeys(k for row in value[:50] for k in row))
        head = tag("thead", tag("tr", [tag("th", str(c).replace("_", " ")) for c in columns]))
        body = [tag("tr", [tag("td", _cell_text(r.get(c))) for c in columns]) for r in value[:50]]
        more = tag("p", f"{len(value) - 50:,} more rows.", class_="note") if len(value) > 50 else None
        return tag("div", tag("table", head, tag("tbody", body), class_="plain"), more, class_="scroll")
    if isinstance(value, list):
        return tag("p", clip(", ".join(map(str, value)), 600))
    return tag("p", clip(value, 600))


def _cell_text(value: Any) -> str:
    if value is None:
        return "-"
    return number_text(value) if not isinstance(value, (Mapping, list)) else clip(value, 120)


def samples(data: RunData) -> Html:
    title, anchor = "More samples", "samples"
    if not data.samples:
        return section(title, absent(data.missing.get("samples")), anchor=anchor)
    by_task: dict[str, list[dict[str, dict[str, Any]]]] = {}
    for (task, _), by in grouped(data.samples).items():
        by_task.setdefault(task, []).append(by)
    blocks = [
        tag(
            "details",
            tag("summary", task.replace("_", " "), tag("small", f" {len(groups)} saved")),
            [conversation(g) for g in groups[: max(2, SHOWN_SAMPLES // len(by_task))]],
        )
        for task, groups in by_task.items()
    ]
    return section(title, blocks, anchor=anchor, lead="The first saved samples of every task, not selected.")
