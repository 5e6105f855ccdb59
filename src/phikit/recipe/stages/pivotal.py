"""Stage `pivotal`: Pivotal Token Search on the SFT model (report section 4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ("synth", "sft")
SHOWN_ANSWERS = 12


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes pairs.jsonl.zst, rollouts.jsonl.zst and answers.jsonl (searched answers for the page)."""
    from itertools import islice

    from phikit.engine.torch_engine import TorchEngine
    from phikit.preference import pivotal
    from phikit.preference.rollouts import Question, Rollouts
    from phikit.records import to_row
    from phikit.records.io import read_jsonl, write_jsonl
    from phikit.verify import math_answer
    from phikit.verify.verdict import Verdict

    c: Any = ctx.config
    engine = TorchEngine.from_folder(ctx.inputs["sft"].path)
    rows = islice(read_jsonl(ctx.file("synth", "questions.jsonl.zst")), c.questions)
    questions = [Question(r["id"], r["question"], r["answer"], r["kind"]) for r in rows]

    def check(q: Question, text: str) -> bool | None:
        verdict = math_answer.judge(text, q.answer)
        return None if verdict is Verdict.unparsed else verdict is Verdict.right

    rollouts = Rollouts(
        engine,
        check,
        ctx.work,
        n=c.rollouts,
        temperature=c.temperature,
        max_tokens=c.max_tokens,
        budget=c.budget,
        seed=ctx.seed,
    )
    config = pivotal.SearchConfig(c.gap, c.low, c.high, c.trajectories)
    result = pivotal.search(questions, rollouts, config)
    text_of = engine.tokenizer.token_text
    pairs = {p.id: p for f in result.found for v in f.pivots for p in [pivotal.to_pair(v, text_of)]}
    if not pairs:
        raise ValueError(
            f"pivotal: no pairs from {len(questions)} questions ({result.skipped}; "
            f"{result.stopped or 'search complete'}); "
            "raise pivotal.questions or pivotal.rollouts, or lower pivotal.gap"
        )
    write_jsonl(ctx.out / "pairs.jsonl.zst", [to_row(p) for p in pairs.values()])
    write_jsonl(ctx.out / "answers.jsonl", _shown(result, rollouts, text_of))
    write_jsonl(ctx.out / "rollouts.jsonl.zst", _rollout_rows(rollouts, engine))
    counts = {
        "questions": len(questions), "searched": len(result.found), "skipped": result.skipped, "pairs": len(pairs),
        "pivotal_without_alternative": sum(f.lone for f in result.found),
        "at_first_token": sum(not p.prefix_ids for p in pairs.values()),
        "rollouts": rollouts.outcomes(), "prefixes": len(rollouts.known), "waves": rollouts.waves,
        "tokens": rollouts.generated, "tokens_prefilled": rollouts.prefilled,
    }  # fmt: skip
    return counts | {"budget_spent": int(bool(result.stopped))}


def _rollout_rows(rollouts, engine):
    from phikit.preference.rollouts import rollout_id

    for (question, prefix), samples in rollouts.known.items():
        first: dict[int, list[bool]] = {}
        for r in samples:
            if r.tokens:
                first.setdefault(r.tokens[0], []).append(r.right)
        yield {
            "id": rollout_id(question, prefix), "question": question, "prefix": list(prefix),
            "prefix_text": engine.decode(prefix), "n": len(samples), "right": sum(r.right for r in samples),
            "outcomes": [r.outcome for r in samples],
            "next": {engine.tokenizer.token_text(t): [sum(x), len(x)] for t, x in first.items()},
            "examples": [{"text": engine.decode(r.tokens), "outcome": r.outcome} for r in samples[:4]],
        }  # fmt: skip


def _shown(result, rollouts, text_of):
    """A few searched answers, those with the largest pivots first, with alternatives at each pivotal token."""
    found = sorted(
        (f for f in result.found if f.pivots),
        key=lambda f: -max(abs(v.p_after - v.p_before) for v in f.pivots),
    )
    for f in found[:SHOWN_ANSWERS]:
        pivots = {(v.prefix, v.token): v for v in f.pivots}
        answer = max(
            f.answers,
            key=lambda a: sum((tuple(t.id for t in a[:i]), t.id) in pivots for i, t in enumerate(a)),
        )
        tokens = []
        for i, t in enumerate(answer):
            v = pivots.get((tuple(x.id for x in answer[:i]), t.id))
            alternatives = [] if v is None else [{"text": text_of(v.other), "p": v.p_other, "n": rollouts.n}]
            known = t.p_after is not None and t.p_before is not None
            tokens.append({
                "text": text_of(t.id), "p_before": t.p_before, "p_after": t.p_after,
                "n": rollouts.n if known else 0, "alternatives": alternatives,
            })  # fmt: skip
        yield {"question": f.question.question, "answer": f.question.answer, "p0": f.p0, "tokens": tokens}
