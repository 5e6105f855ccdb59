"""`phikit study long-context`: natural long documents against short samples joined into long rows (report section 3.3:
"inherently long sources" beat "artificially created long-context data").

Of every seed one pretrained network goes through the recipe's midtraining several times: the same tokens and schedule,
and for both kinds of long rows the same replay of short data, row by row. All are asked the same held-out
items: recall, retrieval and patterns at two and four times the base context, and what could be lost by it: recall,
sums and bits per byte within the base context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phikit.recipe.study_runs import nano, run_until
from phikit.records import artifact
from phikit.records.io import read_json, read_jsonl, write_json

SEEDS = (1, 2, 3, 4, 5)  # of nano-seeds; 4 and 5 were added to narrow the intervals, before they were run
PROBLEMS, ITEMS, LONG, DOCUMENTS = 150, 120, 50, 12  # sums, recall, each task of evals/long, texts for bits
TASKS = ("rag_2x", "rag_4x", "icl_2x", "icl_4x")  # of evals/long: those that no arm is trained on


@dataclass(frozen=True)
class Arm:
    """`settings` of the recipe; without any the pretrained network as it is."""

    name: str
    settings: tuple[str, ...] = ()


# Half of nano's tokens, and moments that start afresh in all arms; the rest is nano's midtraining.
_MIDTRAIN = ("midtrain.tokens=225K", "midtrain.keep_optimizer=false")
PRETRAINED = "pretrained"
ARMS = (
    Arm(PRETRAINED),
    Arm("natural", (*_MIDTRAIN, "midtrain.long_documents=natural")),
    Arm("packed short", (*_MIDTRAIN, "midtrain.long_documents=packed-short")),
    Arm("replay only", (*_MIDTRAIN, "midtrain.long=0%")),
)
FIRST = 3  # arms that all seeds run before any of them runs the rest
CONTRASTS = (
    ("natural", "packed short", "the report's ablation"),
    ("packed short", "replay only", "whether joined samples are of use at all"),
    ("natural", "replay only", "whether long documents are"),
    ("natural", PRETRAINED, "what midtraining gives and costs"),
)


def study(out: Path, models: Path | None = None, seeds: Sequence[int] = SEEDS) -> int:
    """Runs the study into `out`; what is done is not done again. `models`/seed-N are runs of the nano recipe, made up
    to their pretrained network where they are not there. Tables and picture are written again after every seed; exit
    code 0 when all are done, whatever they show."""
    from phikit.recipe.study_long_context_show import publish

    results: dict[int, dict[str, Any]] = {seed: {} for seed in seeds}
    for arms in (ARMS[:FIRST], ARMS):
        for i, seed in enumerate(seeds, 1):
            run = (models or out.parent / "nano-seeds") / f"seed-{seed}"
            run_until(nano(seed), run, "pretrain")
            for arm in arms:
                results[seed][arm.name] = measured(seed, arm, run, out / f"seed-{seed}")
            done = {s: results[s] for s in seeds[:i]}
            publish(out, done, [a for a in ARMS if all(a.name in r for r in done.values())])
    return 0


def measured(seed: int, arm: Arm, run: Path, out: Path) -> dict[str, Any]:
    """`counts` of the arm's midtraining, and by metric the rows (item, value, weight) of its answers."""
    path = out / f"{arm.name.replace(' ', '_')}.json"
    if not path.exists():
        counts, folder = trained(seed, arm, run, out / "arms" / path.stem)
        write_json(path, {"counts": counts, "rows": answers(seed, folder, run)})
    return read_json(path)


def trained(seed: int, arm: Arm, run: Path, out: Path) -> tuple[dict[str, Any], Path]:
    """Counts of the midtraining stage with an arm's settings, and the folder of its network."""
    from phikit.recipe.context import StageContext
    from phikit.recipe.stages import midtrain

    if not arm.settings:
        return {}, run / "pretrain" / "hf"
    done = out / "counts.json"
    if not done.exists():
        recipe = nano(seed, arm.settings)
        inputs = {n: a for n in midtrain.NEEDS if (a := artifact.load(run / n))}
        name, work = "midtrain", out / artifact.WORK
        ctx = StageContext(name, recipe, recipe.midtrain, inputs, out, work, recipe.seed_of(name))
        write_json(done, midtrain.run(ctx))
    return read_json(done), out / "hf"


def answers(seed: int, folder: Path, run: Path) -> dict[str, list[tuple[str, float, float]]]:
    """By metric: shares of right answers to held-out items, and bits of held-out organic text in windows of the base
    context and of midtraining's."""
    from phikit.engine.torch_engine import TorchEngine
    from phikit.evals.world import arithmetic, bits, long, recall
    from phikit.evals.world.plan import Plan, Prompter, Settings
    from phikit.evals.world.run import run_plans
    from phikit.synth.world.long import items

    recipe: Any = nano(seed)
    base, context = recipe.model.context, recipe.midtrain.context
    engine = TorchEngine.from_folder(folder)
    try:
        ask, settings = Prompter(engine, "base"), Settings(max_tokens=64, seed=seed)
        problems = _heldout(run, "arithmetic", PROBLEMS)
        texts = bits.chosen(list(read_jsonl(run / "corpus" / "heldout.jsonl.zst")), DOCUMENTS)
        asked = items(seed, LONG, base, lambda text: len(engine.encode(text)))
        recalls = {t: _heldout(run, t, ITEMS) for t in recall.TASKS}
        longest = [
            len(engine.encode(i["prompt"] + i["answer"]))
            for some in (*recalls.values(), *(asked[t] for t in TASKS)) for i in some
        ]  # fmt: skip
        engine.stretch(max(context, *longest))
        plans: dict[str, Plan] = {
            **{t: recall.exact(t, some, ask, settings) for t, some in recalls.items()},
            **dict(long.plans({t: asked[t] for t in TASKS}, ask, settings)),
            "arithmetic": arithmetic.greedy(problems, ask, settings),
            **{f"bits_{w}": bits.bits(texts, ask, Settings(window=w, seed=seed)) for w in (base, context)},
        }
        return {
            name: [(r.id, r.value, r.weight) for r in run_plans(engine, folder.parent.name, [(name, plan)])]
            for name, plan in plans.items()
        }
    finally:
        engine.close()


def _heldout(run: Path, task: str, most: int) -> list[dict[str, Any]]:
    return list(read_jsonl(run / "synth" / "heldout" / f"{task}.jsonl"))[:most]
