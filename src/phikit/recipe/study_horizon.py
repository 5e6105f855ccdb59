"""`phikit study horizon`: does a learning rate that is extended from shorter runs fit a longer one (report section 3:
"interpolated from shorter horizons")?

For every seed the best rate is found at an eighth, a quarter and half of the tokens, as `phikit tune lr` does, and
extended along a straight line in both logarithms. Then the long runs are made after all: a sweep finds their best rate,
and three more runs take the rate that was predicted, the best of the sweep, and the eighth's best rate as it is. All
runs of a seed begin with the same weights and see the same rows in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phikit.recipe.study_runs import nano, run_until
from phikit.recipe.tune import Tuning, extended, result_of, sweep
from phikit.records.io import read_json, write_json

SEEDS = (1, 2, 3)  # of nano-seeds; named before any of them was run
SHARES = 1 / 8, 1 / 4, 1 / 2  # of the tokens: the shorter horizons
FACTORS = 0.25, 0.5, 1.0, 2.0, 4.0  # of LR, at every horizon
TOKENS, LR = "96K", "6e-3"
# A smaller network and smaller steps than nano's, AdamW as at mini and phi4, and one phase: a horizon is then a length
# and nothing else.
SETTINGS = (
    "model.layers=2", "model.width=64", "model.ffn=192", "pretrain.batch=4", "pretrain.micro=4",
    "pretrain.optimizer=adamw", f"pretrain.lr={LR}", f"pretrain.tokens={TOKENS}",
    "layout.precision=fp32", "mixture.phases=[]", "mixture.fractions.synthetic=0%", "mixture.fractions.code=10%",
)  # fmt: skip


def study(out: Path, models: Path | None = None, seeds: Sequence[int] = SEEDS) -> int:
    """Runs the study into `out`; what is done is not done again. `models`/seed-N are runs of the nano recipe, made up
    to their mixture where they are not there. Tables and picture are written again after every seed; exit code 0 when
    all are done, whatever they show."""
    from phikit.recipe.study_horizon_show import publish

    rows = []
    for seed in seeds:
        run = (models or out.parent / "nano-seeds") / f"seed-{seed}"
        rows.append(measured(seed, run, out / f"seed-{seed}"))
        publish(out, rows)
    return 0


def measured(seed: int, run: Path, out: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """What one seed gives, as `compared` says; its runs are kept one by one."""
    path = out / "result.json"
    if not path.exists():
        run_until(nano(seed), run, "mixture")
        tuning = Tuning(nano(seed, SETTINGS), run, out, lambda line: say(f"seed {seed}: {line}"))
        write_json(path, {"seed": seed, **compared(tuning)})
    return read_json(path)


def compared(tuning: Tuning) -> dict[str, Any]:
    """`horizons`: the sweeps, the last at the whole length; `rates`: by name the factor and the loss of a long run at
    it; `off`: log2 of the predicted over the best factor, and of the eighth's over the best; `lost`: how far their
    losses lie above the best rate's."""
    short = [sweep(tuning, share, FACTORS) for share in SHARES]
    whole = sweep(tuning, 1.0, FACTORS)
    factors = {
        "best": whole.fit.factor,
        "predicted": extended(short, whole.tokens),
        "unchanged": short[0].fit.factor,
    }
    steps = tuning.steps(1.0)
    rates = {n: {"factor": f, "loss": result_of(tuning, steps, f)} for n, f in factors.items()}
    others = [n for n in rates if n != "best"]
    return {
        "horizons": [s.row() for s in (*short, whole)],
        "rates": rates,
        "off": {n: math.log2(rates[n]["factor"] / rates["best"]["factor"]) for n in others},
        "lost": {n: rates[n]["loss"] - rates["best"]["loss"] for n in others},
        "sure": all(s.fit.inside for s in (*short, whole)),
    }
