"""Evaluates one checkpoint: all tasks' requests in one batch, outcome rows back, scores from the rows
alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phikit import stats
from phikit.engine.base import Engine
from phikit.evals.world import arithmetic, bits, choice, long, preference, recall
from phikit.evals.world.plan import Generated, Item, Kind, Plan, Prompter, Row, Scored, Settings
from phikit.jobs.progress import Bar, bar
from phikit.records.io import read_jsonl
from phikit.records.types import Completion, Score
from phikit.verify.worked import Worked

SCORE_REQUESTS = 512  # scored between two movements of the bar


@dataclass(frozen=True)
class Evaluation:
    """`scores`: {checkpoint, task, metric, value, low, high, n, clusters, method, counts}. `rows`: one
    outcome an answer, for pairing (see Row). `references`: this checkpoint's own judged reference answers,
    where it made any."""

    scores: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    references: dict[str, list[dict[str, Any]]]


def evaluate(
    engine: Engine,
    checkpoint: str,
    kind: Kind,
    data: Path,
    corpus_heldout: Path,
    settings: Settings,
    reference: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    long_items: Mapping[str, Sequence[Item]] | None = None,
) -> Evaluation:
    """All tasks on one checkpoint.

    `data` holds <task>.jsonl, `corpus_heldout` Document rows. `reference` are the `references` of the
    checkpoint that `preference_wins` compares with; without them this checkpoint makes its own and meets
    those (it comes out near 0.5). `long_items` are the items of long.py by task.
    ValueError names the file, task or item that is at fault, also where a
    prompt does not fit the engine's context: nothing is cut or left out.
    """
    held = load_items(data, corpus_heldout, settings)
    ask = Prompter(engine, kind)
    own: dict[str, list[Worked]] = {}
    against = own if reference is None else {i: [Worked(**w) for w in ws] for i, ws in reference.items()}
    plans: list[tuple[str, Plan]] = [
        (arithmetic.TASK, arithmetic.greedy(held[arithmetic.TASK], ask, settings)),
        (arithmetic.TASK, arithmetic.sampled(held[arithmetic.TASK], ask, settings)),
        (arithmetic.FORMAT, arithmetic.form(held[arithmetic.TASK], ask, settings)),
        *((t, recall.exact(t, held[t], ask, settings)) for t in recall.TASKS),
        *((t, choice.acc(t, held[t], ask, settings)) for t in choice.TASKS),
        *long.plans(long_items or {}, ask, settings),
        (bits.TASK, bits.bits(held[bits.TASK], ask, settings)),
    ]
    some = held[preference.TASK]
    if reference is None:  # before the wins, which read what it keeps
        plans.append((preference.TASK, preference.references(some, ask, settings, own)))
    plans.append((preference.TASK, preference.wins(some, ask, settings, against)))
    rows = [r.row(checkpoint) for r in run_plans(engine, checkpoint, plans)]
    return Evaluation(summarize(rows), rows, {i: [asdict(w) for w in ws] for i, ws in own.items()})


def load_items(data: Path, corpus_heldout: Path, settings: Settings) -> dict[str, list[Item]]:
    """The held-out items of every task by its name, capped as the settings say."""
    held: dict[str, list[Item]] = {
        t: _items(data / f"{t}.jsonl", None) for t in (*recall.TASKS, *choice.TASKS)
    }
    held[arithmetic.TASK] = _items(data / "arithmetic.jsonl", settings.problems)
    held[preference.TASK] = _items(data / "preference.jsonl", settings.problems)
    held[bits.TASK] = bits.chosen(_items(corpus_heldout, None), settings.documents)
    if len(held[bits.TASK]) < 2:
        raise ValueError(
            f"{corpus_heldout}: one document gives no interval for {bits.TASK}; raise corpus.heldout"
        )
    return held


def summarize(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Scores of outcome rows, by checkpoint, task and metric in order of appearance. `counts` says how many
    rows were right, wrong, unparsed and cut. Bits per byte get metric `all` over the sources beside each
    source's own (a source with one document has no interval and no row of its own)."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        metrics = ["all", row["metric"]] if row["task"] == bits.TASK else [row["metric"]]
        for metric in metrics:
            groups.setdefault((row["checkpoint"], row["task"], metric), []).append(row)
    out = []
    for (checkpoint, task, metric), some in groups.items():
        e = _estimate(task, some)
        if task == bits.TASK and e.clusters < 2:
            continue
        counts = dict(Counter(r["outcome"] for r in some))
        name = {"checkpoint": checkpoint, "task": task, "metric": metric}
        out.append({**name, **e.row(), "counts": counts})
    return out


def _estimate(task: str, rows: Sequence[Mapping[str, Any]]) -> stats.Estimate:
    values, ids = [r["value"] for r in rows], [r["id"] for r in rows]
    if task == bits.TASK:
        return stats.ratio(values, [r["weight"] for r in rows], ids)
    return stats.share_of(values, ids)


def run_plans(engine: Engine, checkpoint: str, plans: Sequence[tuple[str, Plan]]) -> list[Row]:
    """The outcome rows of all plans; ValueError where a prompt does not fit, or the network gives no numbers."""
    for task, plan in plans:
        _check_fits(engine, checkpoint, task, plan)
    generated = [p for _, p in plans if isinstance(p, Generated)]
    scored = [p for _, p in plans if isinstance(p, Scored)]
    total = sum(r.n for p in generated for r in p.requests) + sum(len(p.requests) for p in scored)
    with bar(f"eval {checkpoint}", total, unit="answers") as b:
        completions, scores = _generate(engine, generated, b), _score(engine, scored, b)
    _check_finite(checkpoint, completions, scores)
    rows: list[Row] = []
    for _, plan in plans:
        n = len(plan.requests)
        if isinstance(plan, Generated):
            some, completions = completions[:n], completions[n:]
            rows += plan.rows(some)
        else:
            part, scores = scores[:n], scores[n:]
            rows += plan.rows(part)
    return rows


def _generate(engine: Engine, plans: Sequence[Generated], b: Bar) -> list[list[Completion]]:
    """One call for all tasks, so that the engine's batch stays full."""
    requests = [r for p in plans for r in p.requests]
    results: list[list[Completion]] = [[] for _ in requests]
    for index, completions in engine.generate(requests):
        results[index] = completions
        b.advance(len(completions))
    return results


def _score(engine: Engine, plans: Sequence[Scored], b: Bar) -> list[Score]:
    results: list[Score] = []
    for plan in plans:
        for at in range(0, len(plan.requests), SCORE_REQUESTS):
            some = plan.requests[at : at + SCORE_REQUESTS]
            results += engine.score(some)
            b.advance(len(some))
    return results


def _check_fits(engine: Engine, checkpoint: str, task: str, plan: Plan) -> None:
    if isinstance(plan, Generated):
        longest = max((len(r.prompt) + 1 for r in plan.requests), default=0)
    else:
        longest = max((len(r.context) + len(r.continuation) for r in plan.requests), default=0)
    if longest > engine.info.context:
        raise ValueError(
            f"task {task}: {longest} tokens do not fit the context of {checkpoint} ({engine.info.context}): "
            "open it with a longer one"
        )


def _check_finite(checkpoint: str, completions: Sequence[list[Completion]], scores: Sequence[Score]) -> None:
    """A network of nan still answers, and would only look like a bad model in the table."""
    bad = sum(not math.isfinite(x) for some in completions for c in some for x in c.logprobs)
    bad += sum(not math.isfinite(s.logprob) for s in scores)
    if bad:
        raise ValueError(
            f"checkpoint {checkpoint}: {bad} log-probabilities are nan or infinite; its training diverged or "
            "its weights are damaged: look at its metrics.jsonl"
        )


def _items(path: Path, most: int | None) -> list[Item]:
    if not path.exists():
        raise ValueError(f"{path}: no such file of held-out items; stage synth (or corpus) writes it")
    items: list[Item] = list(read_jsonl(path))
    if not items:
        raise ValueError(f"{path}: no held-out items")
    ids = [i.get("id") for i in items]
    if None in ids or len(set(ids)) < len(ids):
        raise ValueError(f"{path}: every item needs an `id` of its own")
    return items[:most]
