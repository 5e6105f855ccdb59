"""`phikit study pivotal`: DPO on pivotal tokens against DPO on other pairs of the same SFT model (report section 4.3).

One search a seed gives the rollouts. From them come pivotal pairs, whole-answer pairs and pairs at random tokens, at
equal pairs and steps or at equal processed tokens; then two rounds against one, and pivotal pairs that hold in other
questions against those that do not. As people do who train a model, every seed chooses rate and plain-loss weight of
every form on development problems, with equal budget; test problems see what was chosen, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phikit.recipe.study_pivotal_seed import Seed

SEEDS = (1, 2, 3, 4, 5)  # those of nano-seeds, in this order; named before any of them was run
EPOCHS = 3  # of pivotal pairs: their steps are those of the arms at equal pairs
RATES = (4e-5, 1e-4, 2.5e-4, 5e-4)
WEIGHTS = (
    1.0,
    0.3,
)  # of the plain loss: rates are compared at the first, the others are tried at the best rate


@dataclass(frozen=True)
class Arm:
    """`pairs`: the pair set (see `Seed.pairs`); `base`: the arm whose model is trained on, sft for none. Steps are
    `times` those of the pivotal arm, or with `epochs` that many epochs of its own pairs. `shares`: the arm whose rate
    and weight it takes; without it they are chosen for it. An arm comes after those that it names."""

    name: str
    pairs: str
    base: str = "sft"
    times: float = 1.0
    epochs: float = 0.0
    shares: str = ""


SECOND = 0.7  # steps of the second round, of those of the first
ARMS: tuple[Arm, ...] = (
    Arm("pivotal", "pivotal"),
    Arm("random token", "random"),
    Arm("whole answer", "whole"),
    Arm("whole answer, fewer pairs", "whole_few", epochs=EPOCHS),
    Arm("pivotal, holding", "holds_few", epochs=3 * EPOCHS),
    Arm("pivotal, not holding", "fails_few", epochs=3 * EPOCHS),
    Arm("pivotal, longer", "pivotal", times=1 + SECOND),
    Arm("pivotal, then judged", "judged:pivotal", "pivotal", times=SECOND),
    Arm("judged, longer", "judged_sft", times=1 + SECOND),
    Arm("whole answer, more questions", "pool", epochs=1, shares="whole answer"),
)
FIRST = 9  # arms that all seeds run before any of them runs the rest
# Differences that are reported: (a, b, what is equal).
CONTRASTS: tuple[tuple[str, str, str], ...] = (
    ("pivotal", "random token", "pairs, steps"),
    ("pivotal", "whole answer", "pairs, steps"),
    ("pivotal", "whole answer, fewer pairs", "tokens of training"),
    ("pivotal", "whole answer, more questions", "tokens of sampling and training"),
    ("pivotal, holding", "pivotal, not holding", "pairs, steps"),
    ("pivotal, then judged", "pivotal, longer", "steps"),
    ("pivotal, then judged", "judged, longer", "steps"),
)
BY_NAME = {a.name: a for a in ARMS}


@dataclass(frozen=True)
class Setting:
    lr: float
    nll: float


def pivotal(out: Path, models: Path | None = None, seeds: Sequence[int] = SEEDS) -> int:
    """Runs the study into `out`; what is done is not done again. `models`/seed-N are runs of the recipe: where one has
    no SFT model yet, the recipe is run up to it. Tables and pictures of what is finished are written again after every
    seed; exit code 0 when all are done, whatever they show."""
    from phikit.recipe.study_pivotal_seed import Seed
    from phikit.recipe.study_pivotal_show import publish

    some = [Seed(n, models or out.parent / "nano-seeds", out) for n in seeds]
    for arms in (ARMS[:FIRST], ARMS):
        for i, seed in enumerate(some, 1):
            for arm in arms:
                seed.trained(arm)
            publish(out, some[:i], [a for a in ARMS if all(s.finished(a) for s in some[:i])])
    return 0


def chosen(seed: Seed, arm: Arm) -> Setting:
    """The setting of an arm: of the rates, at the first weight, and then of the weights, at that rate, the one with
    the highest sampled accuracy on the seed's development problems."""
    if arm.shares:
        return chosen(seed, BY_NAME[arm.shares])

    def score(c: Setting) -> float:
        return share(seed.cell(arm, c)["sampled"])

    best = max((Setting(lr, WEIGHTS[0]) for lr in RATES), key=score)
    return max((best, *(Setting(best.lr, w) for w in WEIGHTS[1:])), key=score)


def share(rows: Mapping[str, Sequence[float]]) -> float:
    values = [v for some in rows.values() for v in some]
    return sum(values) / len(values)
