"""`phikit tune`: the report's practice (section 3): the learning rate is interpolated from runs of shorter horizons,
then the warm-up is stress-tested for stability. Runs are those of the recipe's pretraining, on the data of a finished
mixture stage; each is logged and one that was done is not done again.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phikit.recipe.context import StageContext
from phikit.recipe.schema import Recipe
from phikit.recipe.tune_page import lr_page, warmup_page
from phikit.recipe.units import show_count
from phikit.records import artifact
from phikit.records.ids import fingerprint
from phikit.records.io import read_json, write_json

if TYPE_CHECKING:
    from phikit.mixture.loader import PackedSource

FACTORS = 0.25, 0.5, 1.0, 2.0, 4.0  # of the recipe's learning rates
SHARES = 1 / 16, 1 / 8, 1 / 4  # of the recipe's tokens: the shorter horizons
TAIL = 0.1  # last share of a run whose mean loss is its result
SPIKE = 1.0  # nats above the lowest mean so far: the run has come apart


@dataclass(frozen=True)
class Fit:
    """The lowest point of a parabola through loss over log2 of the factor; `inside`: it lies between the factors tried,
    and the best of these is not at their edge."""

    factor: float
    loss: float
    inside: bool


def parabola(points: Sequence[tuple[float, float]]) -> Fit:
    """Least squares over the lowest point and its neighbours. Raises ValueError for fewer than three points."""
    import numpy as np

    points = sorted((x, y) for x, y in points if math.isfinite(y))
    if len(points) < 3:
        raise ValueError(
            "a learning rate is found between at least three that were tried and ended: give more factors"
        )
    best = min(range(len(points)), key=lambda i: points[i][1])
    first = min(max(best - 1, 0), len(points) - 3)
    near = points[first : first + 3] if len(points) < 5 else points[max(0, best - 2) : best + 3]
    x, y = np.log2([p[0] for p in near]), np.asarray([p[1] for p in near])
    a, b, c = np.polyfit(x, y, 2)
    inside = bool(a > 0 and x[0] < -b / (2 * a) < x[-1] and 0 < best < len(points) - 1)
    at = -b / (2 * a) if inside else math.log2(points[best][0])
    return Fit(2.0**at, float(a * at * at + b * at + c) if inside else points[best][1], inside)


def horizon(found: Sequence[tuple[float, float]], tokens: float) -> float:
    """The factor at `tokens`, on a straight line through log(factor) over log(tokens) of (tokens, factor)."""
    import numpy as np

    if len(found) == 1:
        return found[0][1]
    slope, start = np.polyfit(np.log([t for t, _ in found]), np.log([f for _, f in found]), 1)
    return float(math.exp(start + slope * math.log(tokens)))


class Tuning:
    """Runs of a recipe's pretraining with other rates and lengths; `out` keeps their losses."""

    def __init__(self, recipe: Recipe, run: Path, out: Path, say: Callable[[str], None]) -> None:
        self.recipe, self.out, self.say = recipe, out, say
        self._packed: dict[str, PackedSource] | None = None
        stages = ("tokenizer", "mixture")
        self.inputs = {n: a for n in stages if (a := artifact.load(run / n))}
        if missing := [n for n in stages if n not in self.inputs]:
            raise ValueError(f"{run}: stage {missing[0]} is not finished: `phikit run --out {run}` makes it")
        if recipe.pretrain is None:
            raise ValueError("tune: the recipe has no pretrain stage")

    def losses(self, steps: int, stop: int, factor: float, warmup: float) -> list[float]:
        """The loss of each of the first `stop` steps of a run planned for `steps`; cut where it is no number."""
        from phikit.model.transformer import build
        from phikit.recipe import training as t
        from phikit.train.objectives import LanguageModeling
        from phikit.train.trainer import NonFinite, Trainer

        c: Any = self.recipe.pretrain
        keys = {"steps": steps, "stop": stop, "factor": factor, "warmup": warmup}
        sources = {n: a.manifest.fingerprint for n, a in self.inputs.items()}
        dump = self.recipe.model_dump(mode="json")
        what = {n: dump[n] for n in ("pretrain", "model", "mixture", "layout", "seed")}
        kept = self.out / "runs" / f"{fingerprint({**keys, **sources, **what})[:16]}.json"
        if kept.is_file():
            return read_json(kept)["losses"]
        with tempfile.TemporaryDirectory() as folder:
            ctx = StageContext(
                "pretrain", self.recipe, c, self.inputs, Path(folder), Path(folder), self.recipe.seed_of("pretrain")
            )  # fmt: skip
            m: Any = self.recipe.mixture
            phases = {p.until: p.fractions for p in m.phases} or {1.0: m.fractions}
            rows = t.language_rows(ctx, phases, steps, packed=self._packed)
            self._packed = rows.sources  # packing takes as long as a short run
            config = t.train_config(ctx, steps, c.batch)
            optim = replace(config.optim, lr=c.lr * factor, matrix_lr=c.matrix_lr * factor)
            config = replace(config, optim=optim, warmup=warmup, checkpoint_seconds=math.inf)
            trainer = Trainer(
                build(t.model_config(ctx), ctx.seed), LanguageModeling(), rows, config, Path(folder)
            )
            with contextlib.suppress(NonFinite):
                trainer.run(f"factor {factor:g}", until=stop)
        found = [r["loss"] for r in trainer.log]
        write_json(kept, {**keys, "losses": found})
        return found

    def steps(self, share: float) -> int:
        c: Any = self.recipe.pretrain
        return max(10, round(c.tokens * share / (c.batch * c.context)))


@dataclass(frozen=True)
class Sweep:
    """Runs of `tokens` at several rates: (factor, loss) of each, infinite where a run ended early, and the best."""

    tokens: int
    points: tuple[tuple[float, float], ...]
    fit: Fit

    def row(self) -> dict[str, Any]:
        points = [(f, y if math.isfinite(y) else None) for f, y in self.points]
        return {"tokens": self.tokens, "points": points, **asdict(self.fit)}


def sweep(tuning: Tuning, share: float, factors: Sequence[float]) -> Sweep:
    """Runs at `share` of the recipe's tokens, each with a whole schedule of its own."""
    c: Any = tuning.recipe.pretrain
    steps = tuning.steps(share)
    tokens = steps * c.batch * c.context
    points = []
    for factor in factors:
        result = result_of(tuning, steps, factor)
        points.append((factor, result))
        tuning.say(f"{show_count(tokens)} tokens, lr {c.lr * factor:.3g}: loss {result:.4f}")
    return Sweep(tokens, tuple(points), parabola(points))


def extended(sweeps: Sequence[Sweep], tokens: float) -> float:
    """The factor at `tokens`, by the horizons whose best rate lies between those tried (at the edge it is a bound
    alone); by all of them where none does."""
    sure = [s for s in sweeps if s.fit.inside] or sweeps
    return horizon([(s.tokens, s.fit.factor) for s in sure], tokens)


def result_of(tuning: Tuning, steps: int, factor: float) -> float:
    """Mean loss of the last TAIL of a run's steps; infinite where it ended early."""
    c: Any = tuning.recipe.pretrain
    losses = tuning.losses(steps, steps, factor, c.warmup)
    tail = losses[-max(1, round(TAIL * steps)) :]
    return math.fsum(tail) / len(tail) if len(losses) == steps else math.inf


def tune_lr(
    tuning: Tuning, factors: Sequence[float] = FACTORS, shares: Sequence[float] = SHARES
) -> dict[str, Any]:
    """Best factor at each shorter horizon, and the rate at the recipe's own; writes lr.json and lr.html."""
    c: Any = tuning.recipe.pretrain
    sweeps = [sweep(tuning, share, factors) for share in shares]
    factor = extended(sweeps, c.tokens)
    found = {
        "lr": c.lr * factor, "factor": factor, "tokens": c.tokens, "horizons": [s.row() for s in sweeps],
        "sure": all(s.fit.inside for s in sweeps),
    }  # fmt: skip
    write_json(tuning.out / "lr.json", found)
    lr_page(tuning.out / "lr.html", c.lr, found)
    return found


def tune_warmup(
    tuning: Tuning, factors: Sequence[float] = (1.0, 2.0, 4.0, 8.0), warmups: Sequence[float] = ()
) -> dict:
    """The largest of `factors` at which each warm-up stays together over twice its length; warmup.json, .html."""
    c: Any = tuning.recipe.pretrain
    steps = tuning.steps(1.0)
    rows: list[dict[str, Any]] = []
    for warmup in warmups or (c.warmup / 4, c.warmup, c.warmup * 2):
        stable = 0.0
        for factor in factors:
            stop = min(steps, max(20, round(2 * warmup * steps)))
            losses = tuning.losses(steps, stop, factor, warmup)
            why = broken(losses, stop)
            tuning.say(f"warm-up {warmup:.2%}, lr {c.lr * factor:.3g}: {why or 'stable'}")
            rows.append({"warmup": warmup, "factor": factor, "steps": stop, "losses": losses, "broken": why})
            if why:
                break
            stable = factor
        rows[-1]["stable"] = stable
    found = {
        "lr": c.lr,
        "margins": {f"{r['warmup']:.4f}": r["stable"] for r in rows if "stable" in r},
        "runs": rows,
    }
    write_json(tuning.out / "warmup.json", found)
    warmup_page(tuning.out / "warmup.html", found)
    return found


def broken(losses: Sequence[float], steps: int) -> str:
    """Why a run is not stable, or nothing: it ended early, or a mean of five steps lies above the lowest by SPIKE."""
    if len(losses) < steps:
        return f"no number at step {len(losses) + 1}"
    means = [sum(losses[i : i + 5]) / 5 for i in range(len(losses) - 4)]
    low = math.inf
    for i, mean in enumerate(means):
        low = min(low, mean)
        if mean > low + SPIKE:
            return f"loss {mean:.2f} around step {i + 3}, {mean - low:.2f} above its lowest"
    return ""
