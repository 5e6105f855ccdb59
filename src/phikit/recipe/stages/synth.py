"""Stage `synth`: the closed world, and the real teacher's flows on real seeds (report section 2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from phikit.recipe.context import StageContext

NEEDS = ("corpus",)
READS = ("world",)
KEEP = ("requests",)  # the request log: a changed recipe asks the teacher only what is new


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes documents, long, dialogs, questions (.jsonl.zst), heldout/<task>.jsonl and flows/ (what the teacher
    gave, accepted or not, with every prompt and answer)."""
    from itertools import chain

    from phikit.jobs.progress import track
    from phikit.records import Dialog, Document, to_row
    from phikit.records.io import write_jsonl
    from phikit.synth import world

    config = world_config(ctx.recipe)
    tests = world.heldout(config, ctx.recipe.seed)
    for task, items in tests.items():
        write_jsonl(ctx.out / "heldout" / f"{task}.jsonl", items)
    asks = bool(ctx.config.forms or ctx.config.sets)
    flow_counts = _teach(ctx) if asks else {}
    taught = _accepted(ctx, Dialog, "dialogs") if asks else []
    written = _accepted(ctx, Document, "documents") if asks else []
    texts = [Document("\n".join(t.content for t in d.turns), "synthetic", d.meta, (d.id,)) for d in taught]
    texts += [d for d in written if d.source != "synthetic_long"]
    long = [d for d in written if d.source == "synthetic_long"]

    by_source: dict[str, int] = {}

    def rows(items):
        for item in track(items, "closed world", unit="records"):
            by_source[item.source] = by_source.get(item.source, 0) + 1
            yield to_row(item)

    seed = ctx.recipe.seed
    counts = {
        "documents": write_jsonl(
            ctx.out / "documents.jsonl.zst", rows(chain(world.documents(config, seed), texts))
        ),
        "long": write_jsonl(
            ctx.out / "long.jsonl.zst", rows(chain(world.long_documents(config, seed), long))
        ),
        "dialogs": write_jsonl(
            ctx.out / "dialogs.jsonl.zst", rows(chain(world.dialogs(config, seed), taught))
        ),
        "questions": write_jsonl(ctx.out / "questions.jsonl.zst", world.questions(config, seed)),
    }
    return {
        **counts, "by_source": by_source, "heldout": {t: len(r) for t, r in tests.items()}, "flows": flow_counts,
    }  # fmt: skip


def world_config(recipe: Any):
    from phikit.synth.world import WorldConfig

    return WorldConfig(**recipe.world.model_dump())


def references(recipe: Any):
    """(item id, text) of the closed world's held-out items, for decontamination."""
    from phikit.synth import world

    return world.references(world.heldout(world_config(recipe), recipe.seed))


def _teach(ctx: StageContext) -> Mapping[str, Any]:
    """Runs the flows; the counts by flow."""
    from phikit.ask.budget import Budget
    from phikit.ask.teacher import open_teacher
    from phikit.records import Document, from_row
    from phikit.records.io import read_jsonl
    from phikit.synth import seeds
    from phikit.synth.command import flow_of, plan
    from phikit.synth.flows import FLOWS, SEEDS
    from phikit.synth.run import run_flows

    c, teacher = ctx.config, ctx.recipe.teacher
    documents = [from_row(Document, r) for r in read_jsonl(ctx.file("corpus", "documents.jsonl.zst"))]
    code = [d for d in documents if d.source == "code"]
    text = [d for d in documents if d.source == "text"]
    questions = seeds.questions(_questions(ctx))
    passages = seeds.passages(text, 3 * c.seeds, ctx.seed)
    given = {
        "reversal": seeds.functions(code, c.seeds, ctx.seed), "plurality": questions[: c.seeds],
        "rewrite": passages[: c.seeds], "multi_agent": passages[c.seeds : 2 * c.seeds],
        "self_revision": passages[2 * c.seeds :],
    }  # fmt: skip
    flows = {name: FLOWS[name] for name in c.forms if given[name]}
    for name in c.sets:
        what = plan(name, {})
        found = _seeds(SEEDS[what.flow], documents, questions, c.seeds, ctx.seed)
        given[name] = found
        if found:
            flows[name] = flow_of(what)
    budget = Budget(tokens=teacher.budget or None)
    with open_teacher(
        teacher.model, log=ctx.out / "requests", budget=budget, parallel=teacher.slots
    ) as asked:
        counts = dict(run_flows(flows, given, asked, out=ctx.out / "flows", concurrency=teacher.slots))
    for name in {*c.forms, *c.sets} - set(flows):
        counts[name] = {"seeds": 0, "accepted": 0, "rejected": {"no seeds in the corpus": 1}}
    return counts


def _questions(ctx: StageContext) -> list[dict[str, Any]]:
    """One-step problems: what a small teacher can sometimes answer."""
    from itertools import islice

    from phikit.records.ids import seed_of
    from phikit.synth.world import arithmetic

    stream = arithmetic.problems(seed_of(ctx.recipe.seed, "plurality"), "train", operand=10, steps=(1, 1))
    return [
        {"id": p.id, "question": p.question, "answer": str(p.answer)}
        for p in islice(stream, ctx.config.seeds)
    ]


def _seeds(kind: str, documents: list, questions: list, n: int, seed: int) -> list:
    """Seeds of a data set out of the corpus: none for prompts, which a corpus does not hold."""
    from phikit.synth import environments, seeds, sources

    code, text = ([d for d in documents if d.source == s] for s in ("code", "text"))
    if kind == "environment":
        return environments.tasks(n, seed)
    if kind == "function":
        return seeds.functions(code, n, seed)
    if kind in ("passage", "argument"):
        return sources.passages(text, n, seed, argument=kind == "argument")
    if kind == "page":
        return sources.pages(text, n, seed)
    return questions[:n] if kind == "question" else []


def _accepted(ctx: StageContext, kind: type, name: str) -> list:
    from phikit.records import from_row
    from phikit.records.io import read_jsonl

    return [from_row(kind, r) for r in read_jsonl(ctx.out / "flows" / f"{name}.jsonl.zst")]
