"""Stage `eval` of a recipe that began with somebody's own model: accuracy on the held-out questions.

Every checkpoint answers the same questions, greedily and sampled with the same seeds, and is checked as the pivotal
search checks: rows pair by question and sample, and a comparison says what a stage changed (McNemar's exact test
for greedy answers, an interval clustered by question for sampled ones).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.engine.base import Engine
    from phikit.preference.rollouts import Question
    from phikit.recipe.context import StageContext

TASK = "questions"
METRICS = ("greedy", "sampled")
CHECKPOINTS = ("init", "sft", "dpo1", "dpo2")
PAIRS = (("sft", "init"), ("dpo1", "sft"), ("dpo2", "dpo1"), ("dpo2", "sft"), ("dpo2", "init"))
SHOWN = 12  # questions whose greedy answers are shown


def run_questions(ctx: StageContext) -> dict[str, Any]:
    """Writes scores and comparisons (.json), samples.jsonl and rows.jsonl.zst. Each finished checkpoint is kept in
    `ctx.work`, so a killed stage goes on with the next one."""
    from phikit.engine.torch_engine import TorchEngine
    from phikit.evals.compare import compare
    from phikit.preference.questions import question_of
    from phikit.records.io import read_json, read_jsonl, write_json, write_jsonl

    c: Any = ctx.config
    rows = islice(read_jsonl(ctx.file("questions", "heldout/questions.jsonl")), c.problems)
    held = [question_of(r) for r in rows]
    done: dict[str, dict[str, Any]] = {}
    for name in CHECKPOINTS:
        path = ctx.work / f"{name}.json"
        if not path.exists():
            engine = TorchEngine.from_folder(ctx.inputs[name].path, device=ctx.device)
            try:
                write_json(path, answer(engine, name, held, c, ctx.seed))
            finally:
                engine.close()
        done[name] = read_json(path)
    outcomes = [r for n in CHECKPOINTS for r in done[n]["rows"]]
    pairs = [
        compare(a, done[a]["rows"], b, done[b]["rows"], TASK, m) for a, b in PAIRS for m in METRICS
    ]  # fmt: skip
    scores = [s for n in CHECKPOINTS for s in summarize(n, done[n]["rows"])]
    write_json(ctx.out / "scores.json", scores)
    write_json(ctx.out / "comparisons.json", pairs)
    counts = ctx.inputs["questions"].manifest.counts
    left_out = {"questions": counts["rejected"], "dialogs": {"contaminated": counts["dialogs_rejected"]}}
    rule = "what held a held-out question was left out before training (stage questions, report appendix B.1)"
    write_json(ctx.out / "contamination.json", {"rule": rule, "left out": left_out})
    write_jsonl(ctx.out / "samples.jsonl", [s for n in CHECKPOINTS for s in done[n]["samples"]])
    write_jsonl(ctx.out / "rows.jsonl.zst", outcomes)
    return {
        "checkpoints": len(done), "scores": len(scores), "comparisons": len(pairs), "rows": len(outcomes),
        "questions": len(held), "tokens": {n: done[n]["tokens"] for n in CHECKPOINTS},
    }  # fmt: skip


def answer(engine: Engine, checkpoint: str, held: Sequence[Question], c: Any, seed: int) -> dict[str, Any]:
    """Outcome rows {checkpoint, task, metric, id, value, outcome, sample} and the first greedy answers. A cut answer
    is never right: what it would have ended with is unknown."""
    from phikit.engine.base import GenRequest
    from phikit.jobs.progress import bar
    from phikit.preference.questions import STOP
    from phikit.records.ids import seed_of

    prompts = [tuple(engine.render(q.turns)) for q in held]
    asked = [
        (metric, q, GenRequest(
            prompt, c.max_tokens, 1 if metric == "greedy" else c.samples, 0.0 if metric == "greedy" else c.temperature,
            stop_ids=tuple(engine.stop_ids), stop=STOP[q.kind], seed=seed_of(seed, "eval", TASK, q.id),
        ))
        for metric in METRICS for q, prompt in zip(held, prompts)
    ]  # fmt: skip
    rows: dict[int, list[dict[str, Any]]] = {}
    samples: dict[int, dict[str, Any]] = {}
    with bar(f"eval {checkpoint}", sum(r.n for _, _, r in asked), unit="answers") as b:
        for i, completions in engine.generate([r for _, _, r in asked]):
            metric, q, _ = asked[i]
            found = [outcome(q, completion) for completion in completions]
            rows[i] = [
                {
                    "checkpoint": checkpoint, "task": TASK, "metric": metric, "id": q.id,
                    "value": float(word == "right"), "outcome": word, "sample": k,
                }
                for k, word in enumerate(found)
            ]  # fmt: skip
            if i < SHOWN:
                samples[i] = {
                    "checkpoint": checkpoint, "task": TASK, "id": q.id, "prompt": q.question,
                    "output": completions[0].text, "answer": q.answer, "finish": completions[0].finish,
                    "verdict": found[0],
                }  # fmt: skip
            b.advance(len(completions))
    return {
        "rows": [r for i in sorted(rows) for r in rows[i]], "samples": [samples[i] for i in sorted(samples)],
        "tokens": engine.usage.prefilled + engine.usage.generated,
    }  # fmt: skip


def outcome(question: Question, completion: Any) -> str:
    """right, wrong, unparsed (no answer can be read) or cut (by max_tokens)."""
    from phikit.preference.questions import is_right

    if completion.finish != "stop":
        return "cut"
    right = is_right(question, completion.text)
    return "unparsed" if right is None else "right" if right else "wrong"


def summarize(checkpoint: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A score for each metric with its 95 % interval, and how many answers had which outcome."""
    from phikit import stats

    scores = []
    for metric in METRICS:
        some = [r for r in rows if r["metric"] == metric]
        values = [r["value"] for r in some]
        if metric == "greedy":
            e = stats.share(int(sum(values)), len(values))
        else:
            e = stats.clustered_share(values, [r["id"] for r in some])
        counts = dict(Counter(r["outcome"] for r in some))
        scores.append({"checkpoint": checkpoint, "task": TASK, "metric": metric, **e.row(), "counts": counts})
    return scores
