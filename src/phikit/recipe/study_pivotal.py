"""`phikit study pivotal`: DPO on pivotal tokens against DPO on other pairs of the same SFT model (report section 4.3).

One search a seed gives the rollouts. From them come pivotal pairs, whole-answer pairs and pairs at random tokens, at
equal pairs and steps or at equal processed tokens; then two rounds against one, and pivotal pairs that hold in other
questions against those that do not. Rate and plain-loss weight are chosen on another seed (`TUNE`), on a grid;
the seeds that are reported are run once, with what was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.study_pivotal_seed import Seed

SEEDS = (1, 2, 3)  # named before any of them was run
TUNE = 20241212  # the recipe's own seed: settings are chosen on it, and it is in no result
EPOCHS = 3  # of pivotal pairs: their steps are those of the arms at equal pairs
RATES = (4e-5, 1e-4, 2.5e-4, 5e-4)


@dataclass(frozen=True)
class Arm:
    """`pairs`: the pair set (see `Seed.pairs`); `base`: the arm whose model is trained on, sft for none. Steps are
    `times` those of the pivotal arm, or with `epochs` that many epochs of its own pairs. `tuned`: the arm whose rate
    and weight it shares, "" for a grid of its own; with `lower`, the rate so many steps of the grid below. An arm comes
    after those that it names."""

    name: str
    pairs: str
    base: str = "sft"
    times: float = 1.0
    epochs: float = 0.0
    tuned: str = ""
    lower: int = 0
    grid: tuple[float, ...] = ()


SECOND = 0.7  # steps of the second round, of those of the first
ARMS: tuple[Arm, ...] = (
    Arm("pivotal", "pivotal", grid=(0.0, 0.3, 1.0)),
    Arm("random token", "random", grid=(0.3,)),
    Arm("whole answer", "whole", grid=(0.3, 1.0)),
    Arm("whole answer, fewer pairs", "whole_few", epochs=EPOCHS, tuned="whole answer"),
    Arm("pivotal, holding", "holds_few", epochs=3 * EPOCHS, tuned="pivotal"),
    Arm("pivotal, not holding", "fails_few", epochs=3 * EPOCHS, tuned="pivotal"),
    Arm("pivotal, longer", "pivotal", times=1 + SECOND, tuned="pivotal"),
    Arm("pivotal, then judged", "judged:pivotal", "pivotal", times=SECOND, tuned="whole answer"),
    Arm("judged", "judged_sft", tuned="whole answer"),
    Arm("judged, longer", "judged_sft", times=1 + SECOND, tuned="whole answer"),
    Arm("judged, then judged", "judged:judged", "judged", times=SECOND, tuned="whole answer"),
    Arm("whole answer, more questions", "pool", epochs=1, tuned="whole answer"),
    # Added when the rate that is best on the tuning seed had been seen to collapse seed 2.
    Arm("pivotal, lower rate", "pivotal", tuned="pivotal", lower=1),
    Arm("whole answer, lower rate", "whole", tuned="whole answer", lower=1),
    Arm("whole answer, fewer pairs, lower rate", "whole_few", epochs=EPOCHS, tuned="whole answer", lower=1),
)
# Differences that are reported: (a, b, what is equal).
CONTRASTS: tuple[tuple[str, str, str], ...] = (
    ("pivotal", "random token", "pairs, steps"),
    ("pivotal", "whole answer", "pairs, steps"),
    ("pivotal", "whole answer, fewer pairs", "tokens of training"),
    ("pivotal", "whole answer, more questions", "tokens of sampling and training"),
    ("pivotal, holding", "pivotal, not holding", "pairs, steps"),
    ("pivotal, then judged", "pivotal, longer", "steps"),
    ("pivotal, then judged", "judged, longer", "steps"),
    ("pivotal, then judged", "judged", "tokens of training, nearly"),
    ("pivotal, then judged", "judged, then judged", "steps, rounds"),
    ("pivotal, lower rate", "random token", "pairs, steps"),
    ("pivotal, lower rate", "whole answer, lower rate", "pairs, steps"),
    ("pivotal, lower rate", "whole answer, fewer pairs, lower rate", "tokens of training"),
)
BY_NAME = {a.name: a for a in ARMS}


@dataclass(frozen=True)
class Setting:
    lr: float
    nll: float


def pivotal(out: Path, models: Path | None = None, seeds: Sequence[int] = SEEDS) -> int:
    """Runs the study into `out`; what is done is not done again. `models`/seed-N are runs of the recipe: where one has
    no SFT model yet, the recipe is run up to it. The arms are run on the tuning seed too and shown apart from the
    others (tuning.md, study.md). A table is written again after every arm; exit code 0 when all are done, whatever
    they show."""
    from phikit.recipe.study_pivotal_seed import Seed
    from phikit.recipe.study_pivotal_show import publish

    models = models or out.parent / "nano-seeds"
    tuning = Seed(TUNE, models, out)
    tuning.chosen = chosen = tune(tuning)
    grid = tuning_rows(tuning)
    for label, some in (("tuning", [tuning]), ("study", [Seed(n, models, out, chosen) for n in seeds])):
        for i, arm in enumerate(ARMS, 1):
            for seed in some:
                seed.trained(arm)
            publish(out, label, grid, some, ARMS[:i])
    return 0


def tuned_as(arm: Arm) -> str:
    """The arm on whose grid the setting of `arm` was chosen."""
    return tuned_as(BY_NAME[arm.tuned]) if arm.tuned else arm.name


def tune(seed: Seed) -> dict[str, Setting]:
    """For every arm without `tuned` the cell of the grid with the highest sampled accuracy on the tuning seed."""
    chosen = {}
    for arm in ARMS:
        if arm.tuned:
            continue
        cells = [Setting(lr, nll) for nll in arm.grid for lr in RATES]
        scores = {c: share(seed.trained(arm, c)["sampled"]) for c in cells}
        chosen[arm.name] = max(cells, key=lambda c: scores[c])
    return chosen


def tuning_rows(seed: Seed) -> list[dict[str, Any]]:
    """The grid as it was measured, one row a cell."""
    rows = []
    for arm in ARMS:
        for nll in () if arm.tuned else arm.grid:
            for lr in RATES:
                row = seed.trained(arm, Setting(lr, nll))
                rows.append(
                    {"arm": arm.name, "lr": lr, "nll": nll, "sampled": share(row["sampled"]),
                     "greedy": share(row["greedy"]), "sft": share(seed.sft["sampled"]), "cut": row["cut"]}
                )  # fmt: skip
    return rows


def share(rows: Mapping[str, Sequence[float]]) -> float:
    values = [v for some in rows.values() for v in some]
    return sum(values) / len(values)
