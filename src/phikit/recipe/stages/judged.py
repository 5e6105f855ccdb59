"""Stage `judged`: several whole answers per prompt, ranked by verifier or judge (report section 4.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.preference.judged import Marks, Reply
    from phikit.preference.rollouts import Question
    from phikit.recipe.context import StageContext

NEEDS = ("questions|synth", "sft", "dpo1")
KEEP = ("requests",)


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes pairs.jsonl.zst and answers.jsonl.zst. Responders are the model entering DPO, the SFT model and those of
    `judged.responders` ("any vs any"); prompts come from the end of the questions, pivotal search took them from the
    start."""
    from phikit.ask.budget import Budget
    from phikit.preference.judging import JudgingCounts, judged_pairs
    from phikit.preference.questions import question_of
    from phikit.records import to_row
    from phikit.records.io import read_jsonl, write_jsonl

    c: Any = ctx.config
    world = "questions" not in ctx.inputs
    rows = list(read_jsonl(ctx.file(ctx.one("questions", "synth"), "questions.jsonl.zst")))[-c.prompts :]
    questions = [question_of(r) for r in rows]
    budget = Budget(tokens=ctx.recipe.teacher.budget or None)
    replies = _replies(ctx, questions, budget)
    counts = JudgingCounts()
    if c.judge == "verifier":
        marks = {q.id: [[verified(r, q, world) for r in replies[q.id]]] for q in questions}
        counts.judged = len(marks)
    else:
        marks = _ask_judge(ctx, questions, replies, budget, counts)
    pairs = judged_pairs(questions, replies, marks, most=c.pairs, overall=c.overall, counts=counts.pairs)
    if not pairs:
        raise ValueError(
            f"judged: no pair from {len(questions)} prompts ({counts.row()}); raise judged.prompts or judged.samples"
        )
    write_jsonl(ctx.out / "pairs.jsonl.zst", [to_row(p) for p in pairs])
    write_jsonl(ctx.out / "answers.jsonl.zst", _rows(questions, replies, marks))
    made = counts.pairs
    by = Counter(r.responder for some in replies.values() for r in some)
    return {
        "prompts": len(questions), "answers": by.total(), "responders": dict(sorted(by.items())),
        "pairs": len(pairs), "pairs_accuracy": made.made["accuracy"], "pairs_overall": made.made["overall"],
        "not_paired": {
            "same_text": made.same_text, "ties": made.ties, "position": made.position,
            "cut_chosen": made.cut_chosen, "beyond_most": made.beyond_most,
        },
        "judge": {
            "judged": counts.judged, "unreadable": counts.unreadable, "budget": counts.budget,
            "too_few": counts.too_few, "repaired": counts.json.repaired, **counts.json.dropped,
        },
    }  # fmt: skip


def _replies(ctx: StageContext, questions: list[Question], budget) -> dict[str, list[Reply]]:
    from phikit.ask.teacher import open_teacher
    from phikit.engine.torch_engine import TorchEngine
    from phikit.preference import judged

    c: Any = ctx.config
    given: list[Mapping[str, list[Reply]]] = []
    sampling = {"temperature": c.temperature, "max_tokens": c.max_tokens, "seed": ctx.seed}
    for stage, n in (("dpo1", c.samples), ("sft", c.others)):
        if n:
            engine = TorchEngine.from_folder(ctx.inputs[stage].path, device=ctx.device)
            given.append(judged.answers(engine, questions, responder=stage, n=n, **sampling))
    for spec in c.responders:
        own = TorchEngine.from_folder(ctx.inputs["dpo1"].path, device=ctx.device)
        with open_teacher(
            spec, log=ctx.out / "requests", budget=budget, parallel=ctx.recipe.teacher.slots
        ) as asked:
            n, end = c.samples, own.stop_ids[0]
            given.append(
                judged.teacher_answers(
                    asked, questions, own.encode, end, responder=asked.model, n=n, **sampling
                )
            )
    return {q.id: [r for some in given for r in some[q.id]] for q in questions}


def _ask_judge(ctx: StageContext, questions, replies, budget, counts) -> dict[str, list[list[Marks]]]:
    """The report's judge: one JSON verdict on all replies of a prompt, and one with the replies in the opposite
    order."""
    from phikit.ask.teacher import open_teacher
    from phikit.preference.judging import judge_prompts

    teacher, c = ctx.recipe.teacher, ctx.config
    model = teacher.model if c.judge == "teacher" else c.judge
    with open_teacher(model, log=ctx.out / "requests", budget=budget, parallel=teacher.slots) as asked:
        return judge_prompts(asked, questions, replies, swap=c.swap, seed=ctx.seed, counts=counts)


def verified(reply: Reply, q: Question, world: bool = True) -> Marks:
    """The closed world's own judge: it checks the answer and every written sum, and gives no points for what it
    cannot check. Of other kinds of question only the answer can be checked; outside the closed world also that the
    reply ends and does not repeat itself."""
    from phikit.preference.judged import Marks
    from phikit.preference.questions import is_right
    from phikit.verify import worked

    if q.kind != "math" or not world:
        style = 3.0 if world else 1.0 + 2.0 * reply.stopped + 2.0 * (not worked.repeats(reply.text))
        return Marks(5.0 if is_right(q, reply.text) else 1.0, style, 3.0)
    w = worked.points(reply.text, q.answer)
    accuracy = 5.0 if w.right else 1.0
    style = 1.0 + 2.0 * (w.stated and reply.stopped) + 2.0 * (not worked.repeats(reply.text))
    detail = 1.0 + min(4.0, max(0.0, w.points))
    return Marks(accuracy, style, detail)


def _rows(questions: list[Question], replies: dict[str, list[Reply]], marks: Mapping[str, list[list[Marks]]]):
    for q in questions:
        for i, r in enumerate(replies[q.id]):
            rounds = [m[i] for m in marks.get(q.id, [])]
            if rounds:
                yield {
                    "question": q.id, "prompt": q.question, "responder": r.responder, "text": r.text,
                    "stopped": r.stopped, "accuracy": rounds[0].accuracy, "style": rounds[0].style,
                    "detail": rounds[0].detail,
                    "opposite_order": [[m.accuracy, m.style, m.detail] for m in rounds[1:]],
                }  # fmt: skip
