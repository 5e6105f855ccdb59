"""The data card of a pivotal search: what was asked, what came out, what it cost, how sure it is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phikit.preference.pivotal import SearchConfig, SearchResult
from phikit.preference.rollouts import Rollouts
from phikit.records.io import write_json, write_text
from phikit.records.types import Preference

# Table 7 of the report: pairs of DPO stage 1 by kind. Its "python" and other languages are `code` here.
REPORT = {
    "unknown + safety": 3_000, "generic multiple-choice Q&A": 132_859, "math data": 76_552, "python data": 16_080,
    "cpp, go, java, js, rust data": 21_806,
}  # fmt: skip
KINDS = {"choice": "generic multiple-choice Q&A", "math": "math data", "code": "python data"}


def card(
    result: SearchResult, pairs: Sequence[Preference], rollouts: Rollouts, c: SearchConfig
) -> dict[str, Any]:
    """Counts, costs and error rate as one JSON object. All of it follows from the rollouts, so that a search that was
    killed and resumed gives the same card."""
    pivots = result.pivots
    kinds = Counter(p.meta["kind"] for p in pairs)
    depths = [len(p.prefix_ids) for p in pairs]
    processed = rollouts.generated + rollouts.prefilled
    return {
        "model": rollouts.engine.info.name,
        "numerics": rollouts.engine.info.numerics,
        "sampling": {
            "temperature": rollouts.temperature, "top_p": rollouts.top_p, "max_tokens": rollouts.max_tokens,
            "seed": rollouts.seed, "stop": rollouts.stop,
        },
        "search": asdict(c),
        "questions": {
            "searched": len(result.found), **result.skipped, "answers": sum(len(f.answers) for f in result.found),
        },
        "pivotal_tokens": len(pivots),
        "up": sum(v.change > 0 for v in pivots), "down": sum(v.change < 0 for v in pivots),
        "changes": changes([v.change for v in pivots]),
        "pairs": len(pairs),
        "pairs_by_kind": dict(kinds),
        "pairs_at_first_token": depths.count(0),
        "pivotal_without_pair": len(pivots) - len(result.pairs),
        "error": {
            "rate": c.error, "nearly": c.nearly, "no_effect": c.least, "candidates": result.hypotheses,
            "tested": result.tested, "certified": result.certified, "certified_pairs": result.certified_pairs,
            "expected": round(sum(1 - v.likely for v in pivots) / len(pivots), 4) if pivots else None,
            "method": "posterior with a prior learned from earlier questions; certificate: weighted e-BH over all "
            "candidates, e-values by universal inference, valid at any stopping time",
            "says": f"each token listed changes p(success) by {c.nearly:g} or more with a posterior chance of at least "
            f"{1 - c.error:.0%}, and so do the two tokens of a pair differ; of the certified ones at most "
            f"{c.error:.0%} are expected to have no effect ({c.least:g} or less), for any model",
        },
        "cost": {
            "rollouts": sum(map(len, rollouts.known.values())), "prefixes": len(rollouts.known),
            "waves": rollouts.waves, "outcomes": rollouts.outcomes(), "tokens_generated": rollouts.generated,
            "tokens_prefilled": rollouts.prefilled, "budget": rollouts.budget,
            "tokens_per_pair": round(processed / len(pairs), 1) if pairs else None,
        },
        "stopped": result.stopped,
    }  # fmt: skip


def changes(values: Sequence[float], width: float = 0.05) -> dict[str, Any]:
    """How many tokens raise and lower p, by the size of the change in steps of `width`."""
    count = round(1 / width)
    size = [min(int(abs(v) / width + 1e-9), count - 1) for v in values]
    tally = {up: Counter(s for s, v in zip(size, values) if (v > 0) is up) for up in (True, False)}
    return {
        "width": width,
        **{k: [tally[up][i] for i in range(count)] for k, up in (("up", True), ("down", False))},
    }


def write_card(folder: Path, value: dict[str, Any]) -> None:
    write_json(folder / "card.json", value)
    write_text(folder / "card.md", markdown(value))


def markdown(c: dict[str, Any]) -> str:
    """The card for people."""
    cost, error, q = c["cost"], c["error"], c["questions"]
    total = sum(REPORT.values())
    pairs = max(1, c["pairs"])
    by_kind = {KINDS.get(k, k): n for k, n in c["pairs_by_kind"].items()}
    kinds = [
        f"| {k} | {by_kind.get(k, 0):,} | {by_kind.get(k, 0) / pairs:.1%} | {n:,} | {n / total:.1%} |"
        for k, n in REPORT.items()
    ]
    kinds += [f"| {k} | {n:,} | {n / pairs:.1%} | - | - |" for k, n in by_kind.items() if k not in REPORT]
    outcomes = ", ".join(f"{n:,} {k}" for k, n in cost["outcomes"].items())
    skipped = ", ".join(f"{n:,} {k}" for k, n in q.items() if k not in ("searched", "answers"))
    lines = [
        "# Pivotal token preference pairs", "",
        f"Model `{c['model']}` ({c['numerics']}), temperature {c['sampling']['temperature']:g}, "
        f"top_p {c['sampling']['top_p']:g}, at most {c['sampling']['max_tokens']:,} tokens an answer.", "",
        "| | |", "| --- | --- |",
        f"| questions searched | {q['searched']:,} ({q['answers']:,} answers; left out: {skipped}) |",
        f"| pivotal tokens | {c['pivotal_tokens']:,} ({c['up']:,} up, {c['down']:,} down) |",
        f"| pairs | {c['pairs']:,} ({c['pairs_at_first_token']:,} at the first token; "
        f"{c['pivotal_without_pair']:,} pivotal tokens gave none) |",
        f"| rollouts | {cost['rollouts']:,} of {cost['prefixes']:,} prefixes: {outcomes} |",
        f"| tokens | {cost['tokens_generated']:,} generated, {cost['tokens_prefilled']:,} prefilled"
        + (f", {cost['tokens_per_pair']:,} a pair |" if cost["tokens_per_pair"] else " |"),
        "", f"Gap {c['search']['gap']:g}. Error rate: {error['says']}.",
        f"{error['candidates']:,} candidate tokens, {error['tested']:,} tested one by one, {error['certified']:,} "
        f"tokens and {error['certified_pairs']:,} pairs certified. Method: {error['method']}.", "",
        "| kind | pairs | share | report (Table 7) | share |", "| --- | --- | --- | --- | --- |", *kinds, "",
        "Columns of `preferences.parquet`: `prompt`, `chosen`, `rejected` (text), `prompt_ids`, `chosen_ids`, "
        "`rejected_ids` (exact), `kind`, `question`, `p_chosen`, `p_rejected`, `id`. "
        "No end of turn follows either side.", "",
    ]  # fmt: skip
    if c["stopped"]:
        lines += [f"The search ended early: {c['stopped']}.", ""]
    return "\n".join(lines)


def summary(c: dict[str, Any]) -> str:
    """One line for the terminal."""
    return json.dumps({k: c[k] for k in ("pivotal_tokens", "pairs", "pairs_by_kind")} | {"cost": c["cost"]})
