"""The lower half of the page: stages, loss curves, data funnel, and where everything comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from phikit.report.charts import line
from phikit.report.corpus_card import classifier_note
from phikit.report.lengths import lengths
from phikit.report.load import RunData, why
from phikit.report.markup import Html, clip, tag
from phikit.report.numbers import (
    CHECKPOINTS,
    duration,
    short,
)
from phikit.report.page import absent, section, tokens_of
from phikit.report.verdicts import last_line

INLINE = 8  # entries of a map shown without opening it
READ = ("read", "documents_in", "in", "seen", "candidates", "generated", "questions")
KEPT = ("kept", "documents_out", "out", "accepted", "documents", "train")


def stage_table(data: RunData) -> Html:
    """Per stage: status, seconds with a bar, tokens, and its counts."""
    longest = max([s.get("seconds") or 0 for s in data.stages] or [0]) or 1
    rows = []
    for s in data.stages:
        seconds = s.get("seconds")
        share = 100 * (seconds or 0) / longest
        status = s.get("status", "not run")
        label = "cached" if s.get("cached") else status
        counts = s.get("counts") or {}
        rest = {k: v for k, v in counts.items() if k != "tokens"}  # tokens stand beside the seconds
        body = numbers(rest) if counts else tag("span", _state(data, s), class_="dim")
        tokens = tokens_of(data, s["name"])
        rows.append(
            tag(
                "div",
                tag(
                    "div", tag("b", s["name"]), tag("span", label, class_=f"state {label.replace(' ', '-')}")
                ),
                tag(
                    "div",
                    tag("span", duration(seconds), class_="time"),
                    tag("span", class_="bar", style=f"--w:{share:.1f}%") if seconds else None,
                    tag("span", f"{short(tokens)} tokens", class_="dim") if tokens else None,
                ),
                tag("div", body),
                class_="stage",
            )
        )
    total = sum(s.get("seconds") or 0 for s in data.stages)
    lead = f"{duration(total)} of work in all; a cached stage shows what it cost when it was made."
    return section(
        "What happened in each stage", tag("div", rows, class_="stages"), anchor="stages", lead=lead
    )


def _state(data: RunData, s: Mapping[str, Any]) -> str:
    if s.get("status") == "failed":
        return clip(last_line(s.get("error")) or "failed without a message", 400)
    if s.get("status") == "done":
        return "finished; counted nothing"
    return why(data, s["name"])


def numbers(counts: Mapping[str, Any]) -> Html:
    """Counts as small labelled figures; a map of numbers has a line of its own, a long one opens below."""
    flat = [_count(k, v) for k, v in counts.items() if not isinstance(v, Mapping)]
    maps = []
    for k, v in counts.items():
        name = str(k).replace("_", " ")
        if not isinstance(v, Mapping) or not v:
            continue
        if len(v) <= INLINE and not any(isinstance(x, Mapping) for x in v.values()):
            line = [_count(key, value) for key, value in v.items()]
            maps.append(tag("div", tag("span", name, ":", class_="dim"), line, class_="counts"))
        else:
            maps.append(
                tag(
                    "details",
                    tag("summary", name, tag("small", f" {len(v)}")),
                    tag("div", numbers(v), class_="inner"),
                )
            )
    return tag("div", tag("div", flat, class_="counts") if flat else None, maps)


def _count(name: Any, value: Any) -> Html:
    return tag("span", tag("b", number_text(value)), " ", str(name).replace("_", " "), class_="count")


def number_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return clip(value, 60)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def loss_curves(data: RunData) -> Html:
    figures = []
    run = {s["name"] for s in data.stages} - {"init"}
    for stage in [c for c in CHECKPOINTS if c in run or c in data.metrics]:
        rows = data.metrics.get(stage)
        if not rows:
            figures.append(
                figure(stage, absent(data.missing.get(f"metrics:{stage}") or "No loss was logged."))
            )
            continue
        labels = [
            f"step {r.get('step', i)}\nloss {r['loss']:.4f}"
            + (f"\n{short(r['tokens'])} tokens" if isinstance(r.get("tokens"), (int, float)) else "")
            + (f"\nlearning rate {r['lr']:.2e}" if isinstance(r.get("lr"), (int, float)) else "")
            for i, r in enumerate(rows)
        ]
        points = [(float(r.get("step", i)), float(r["loss"])) for i, r in enumerate(rows)]
        speed = sorted(r["tokens_per_s"] for r in rows if isinstance(r.get("tokens_per_s"), (int, float)))
        says = f"{points[0][1]:.3f} to {points[-1][1]:.3f} in {int(points[-1][0]):,} steps"
        says += f", {short(speed[len(speed) // 2])} tokens/s" if speed else ""
        name = "DPO loss" if stage.startswith("dpo") else "loss"
        chart = line(points, labels, x_name="optimizer step", y_name=name, title=f"{name} of {stage}: {says}")
        figures.append(figure(stage, chart, says))
    lead = "Thin: each logged step. Thick: running mean. Hover or tap for a step's values."
    return section("Loss", tag("div", figures, class_="grid3"), anchor="loss", lead=lead)


def funnel(data: RunData) -> Html:
    """Documents or questions read, rejected by reason, kept."""
    blocks = []
    own = any(s["name"] == "questions" for s in data.stages)
    for stage in ("questions",) if own else ("corpus", "synth"):
        counts, reasons = data.counts(stage), _reasons(data, stage)
        if data.stage(stage).get("status") != "done" and not reasons:
            blocks.append([tag("h3", stage), absent(why(data, stage))])
            continue
        lost = sum(reasons.values())
        if stage == "synth":
            flows = [f for f in (counts.get("flows") or {}).values() if isinstance(f, Mapping)]
            read, kept = (sum(int(f.get(k) or 0) for f in flows) or None for k in ("seeds", "accepted"))
            named, held = ("seeds of flows", "rows of flows"), None
        else:
            kept, held = _first(counts, KEPT), counts.get("heldout")
            read = _first(counts, READ) or (kept + lost if kept is not None else None)
            read = (
                read + counts["parts"] if read is not None and isinstance(counts.get("parts"), int) else read
            )
            named = "read", "kept"
        top = max([x for x in (read, kept, lost) if x] or [1])
        bars = [_bar(named[0], read, top, "whole")] if read is not None else []
        bars += [_bar(r, n, top, "loss") for r, n in sorted(reasons.items(), key=lambda x: -x[1])]
        bars += [_bar("held out", held, top, "kept")] if isinstance(held, int) and held else []
        bars += [_bar(named[1], kept, top, "kept")] if kept is not None else []
        body = [tag("div", bars, class_="bars"), _kept(counts), _examples(data, stage)]
        blocks.append([tag("h3", stage), _by_program(counts) if stage == "synth" else None, *body])
    lead = (
        "What came in, what was turned away and why, and what is left. Every rejected row is kept with its "
    )
    lead += "reason."
    shown = [tag("div", b, class_="block") for b in blocks]
    shown += [] if own else [tag("div", lengths(data), class_="block")]
    return section("Data funnel", shown, anchor="data", lead=lead)


def _reasons(data: RunData, stage: str) -> dict[str, int]:
    """Rejected rows by reason, as the manifest counts them, else as the rows say."""
    counts, rejected = data.counts(stage), data.rejected.get(stage)
    found = [counts.get("dropped") or counts.get("rejected")]
    flows = counts.get("flows")
    if isinstance(flows, Mapping):
        found += [f.get("rejected") for f in flows.values() if isinstance(f, Mapping)]
    reasons: Counter[str] = Counter()
    for by_reason in found:
        if isinstance(by_reason, Mapping):
            reasons.update(
                {str(k): int(v) for k, v in by_reason.items() if isinstance(v, (int, float)) and v}
            )
    if reasons:
        return dict(reasons)
    return dict(rejected.reasons) if rejected else {}


def _by_program(counts: Mapping[str, Any]) -> Html | None:
    """What the closed world made beside the flows; nothing of it is rejected."""
    made = counts.get("by_source")
    if not isinstance(made, Mapping) or not made:
        return None
    listed = ", ".join(f"{k.replace('_', ' ')} {n:,}" for k, n in sorted(made.items(), key=lambda x: -x[1]))
    return tag(
        "p", f"Texts and dialogs made, most by program, right by construction: {listed}.", class_="note"
    )


def _kept(counts: Mapping[str, Any]) -> Html | None:
    """What the quality classifier says of itself, and topics of what it kept."""
    if (note := classifier_note(counts)) is None:
        return None
    topics = counts.get("topics")
    kept = sorted(topics.items(), key=lambda x: -x[1]) if isinstance(topics, Mapping) else []
    more = (
        tag("p", "Kept by topic: " + ", ".join(f"{k} {n:,}" for k, n in kept) + ".", class_="note")
        if kept
        else None
    )
    return tag("div", note, more)


def _examples(data: RunData, stage: str) -> Html | None:
    rejected = data.rejected.get(stage)
    if not rejected:
        return None
    out = []
    for reason, rows in rejected.examples.items():
        shown = [
            tag(
                "div",
                tag("div", _where(r), class_="dim"),
                tag("div", clip(r.get("text") or r.get("output") or "", 260), class_="text"),
                class_="example",
            )
            for r in rows
        ]
        out.append([tag("h4", reason), shown])
    return tag("details", tag("summary", "rejected examples, a few of each reason"), out)


def _where(row: Mapping[str, Any]) -> str:
    return " / ".join(clip(row[k], 160) for k in ("source", "path", "flow", "detail") if row.get(k))


def provenance(data: RunData) -> Html:
    stages = [
        tag(
            "tr",
            tag("th", s["name"], scope="row"),
            tag("td", tag("code", m.fingerprint[:16]), data_tip=m.fingerprint),
            tag("td", ", ".join(sorted(m.inputs)) or "-"),
            tag("td", str(len(m.files))),
        )
        if (m := data.manifests.get(s["name"]))
        else tag(
            "tr", tag("th", s["name"], scope="row"), tag("td", data.missing.get(s["name"], "-"), colspan=3)
        )
        for s in data.stages
    ]
    head = tag("thead", tag("tr", [tag("th", x) for x in ("stage", "fingerprint", "read from", "files")]))
    versions = {k: str(v) for k, v in (data.recipe.get("versions") or {}).items()}
    lead = "A fingerprint is a hash of a stage's settings, inputs, sources and libraries: equal fingerprints "
    lead += "mean the same stage, which is then not run again."
    return section(
        "Provenance",
        tag("div", tag("table", head, tag("tbody", stages), class_="plain"), class_="scroll"),
        [tag("h3", "versions"), numbers(versions)] if versions else None,
        anchor="provenance",
        lead=lead,
    )


def figure(title: str, chart: Html, says: str = "") -> Html:
    return tag("figure", tag("figcaption", tag("b", title), tag("span", says) if says else None), chart)


def _bar(label: str, n: int | float, top: float, kind: str) -> Html:
    return tag(
        "div",
        tag("span", label.replace("_", " "), class_="label"),
        tag("span", tag("i", style=f"--w:{100 * n / top:.2f}%"), class_="track"),
        tag("span", f"{int(n):,}", class_="n"),
        class_=f"row {kind}",
    )


def _first(counts: Mapping[str, Any], names: Sequence[str]) -> int | None:
    return next((int(counts[k]) for k in names if isinstance(counts.get(k), (int, float))), None)
