"""Stage `judged`: several whole answers per prompt, ranked by verifier and judge (report section 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.preference.judged import Marks, Reply
    from phikit.preference.rollouts import Question
    from phikit.recipe.context import StageContext

NEEDS = ("synth", "sft", "dpo1")
KEEP = ("requests",)


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes pairs.jsonl.zst and answers.jsonl.zst. Responders are the model entering DPO and the SFT model
    ("any vs any"); prompts come from the end of the questions, pivotal search took them from the start."""
    from phikit.engine.torch_engine import TorchEngine
    from phikit.preference import judged
    from phikit.preference.rollouts import Question
    from phikit.records import to_row
    from phikit.records.io import read_jsonl, write_jsonl

    c: Any = ctx.config
    rows = list(read_jsonl(ctx.file("synth", "questions.jsonl.zst")))[-c.prompts :]
    questions = [Question(r["id"], r["question"], r["answer"], r["kind"]) for r in rows]
    replies: dict[str, list[Reply]] = {q.id: [] for q in questions}
    for stage, n in (("dpo1", c.samples), ("sft", c.others)):
        if n:
            engine = TorchEngine.from_folder(ctx.inputs[stage].path)
            given = judged.answers(
                engine,
                questions,
                responder=stage,
                n=n,
                temperature=c.temperature,
                max_tokens=c.max_tokens,
                seed=ctx.seed,
            )
            for id, some in given.items():
                replies[id] += some
    marks, judge_counts = _judge(ctx, questions, replies)
    pairs = [
        p for q in questions if q.id in marks
        for p in judged.pairs(q, replies[q.id], marks[q.id], most=c.pairs)
    ]  # fmt: skip
    if not pairs:
        raise ValueError(
            f"judged: no pair from {len(questions)} prompts: all answers tie; raise judged.prompts or judged.samples"
        )
    write_jsonl(ctx.out / "pairs.jsonl.zst", [to_row(p) for p in pairs])
    write_jsonl(ctx.out / "answers.jsonl.zst", _rows(questions, replies, marks))
    by = [p.meta["by"] for p in pairs]
    return {
        "prompts": len(questions), "answers": sum(map(len, replies.values())), "pairs": len(pairs),
        "pairs_accuracy": by.count("accuracy"), "pairs_overall": by.count("overall"), "judge": judge_counts,
    }  # fmt: skip


def _judge(ctx: StageContext, questions: list[Question], replies: dict[str, list[Reply]]):
    """Marks by question id, and counts. `verifier` is the closed world's own judge: it checks the answer and
    every written sum, and gives no points for what it cannot check."""
    if ctx.config.judge != "verifier":
        return _llm_judge(ctx, questions, replies)
    return {q.id: [_verified(r, q.answer) for r in replies[q.id]] for q in questions}, {
        "verifier": len(questions)
    }


def _verified(reply: Reply, answer: str) -> Marks:
    from phikit.preference.judged import Marks
    from phikit.verify import worked

    w = worked.points(reply.text, answer)
    accuracy = 5.0 if w.right else 1.0
    style = 1.0 + 2.0 * (w.stated and reply.stopped) + 2.0 * (not worked.repeats(reply.text))
    detail = 1.0 + min(4.0, max(0.0, w.points))
    return Marks(accuracy, style, detail)


def _llm_judge(ctx: StageContext, questions: list[Question], replies: dict[str, list[Reply]]):
    """The report's judge: one JSON verdict on all replies of a prompt; unreadable verdicts are dropped and
    counted."""
    import asyncio

    from phikit.ask.budget import Budget
    from phikit.ask.judge import judge
    from phikit.ask.structured import ReadCounts
    from phikit.ask.teacher import open_teacher
    from phikit.preference.judged import Marks

    teacher = ctx.recipe.teacher
    model = teacher.model if ctx.config.judge == "teacher" else ctx.config.judge
    counts, marks = ReadCounts(), {}

    async def ask_all(asked):
        return await asyncio.gather(
            *(judge(asked, q.turns, [r.text for r in replies[q.id]], counts=counts) for q in questions)
        )

    budget = Budget(tokens=teacher.budget or None)
    with open_teacher(model, log=ctx.out / "requests", budget=budget, parallel=teacher.slots) as asked:
        judgements = asked.run(ask_all(asked))
    for q, judgement in zip(questions, judgements):
        if judgement is not None:
            marks[q.id] = [Marks(g.accuracy, g.style, g.detail) for g in judgement.grades]
    return marks, {"judged": len(marks), "dropped": len(questions) - len(marks)}


def _rows(questions: list[Question], replies: dict[str, list[Reply]], marks: dict[str, list[Marks]]):
    for q in questions:
        for r, m in zip(replies[q.id], marks.get(q.id, [])):
            yield {
                "question": q.id, "prompt": q.question, "responder": r.responder, "text": r.text, "stopped": r.stopped,
                "accuracy": m.accuracy, "style": m.style, "detail": m.detail,
            }  # fmt: skip
