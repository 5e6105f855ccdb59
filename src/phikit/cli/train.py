"""`phikit tune`: learning rate and warm-up from short runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phikit.cli.app import OutFolder, RecipeName, Scale, Settings, group, say

tune_app = group("tune", "Learning rate and warm-up of pretraining, from short runs.", no_args_is_help=True)
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="A run whose mixture is finished; without it runs/SCALE.")
]
Factors = Annotated[str, typer.Option(help="Multiples of the recipe's rates that are tried.")]


@tune_app.command("lr")
def lr(
    recipe: RecipeName = "phi4",
    scale: Scale = "",
    data: DataFolder = None,
    out: OutFolder = None,
    factors: Factors = "0.25,0.5,1,2,4",
    shares: Annotated[
        str, typer.Option(help="Shares of the recipe's tokens: the shorter horizons.")
    ] = "1/16,1/8,1/4",
    settings: Settings = [],  # noqa: B006
) -> None:
    """The learning rate at the recipe's horizon, from shorter ones."""
    from phikit.recipe.tune import tune_lr

    tuning = _tuning(recipe, scale, data, out, settings)
    found = tune_lr(tuning, _numbers(factors), _numbers(shares))
    say(f"pretrain.lr {found['lr']:.4g} (x {found['factor']:.3g}) for {found['tokens']:,} tokens")
    if not found["sure"]:
        say("a best rate lies at the edge of what was tried: give more --factors")
    say(f"plot: {tuning.out / 'lr.html'}")


@tune_app.command("warmup")
def warmup(
    recipe: RecipeName = "phi4",
    scale: Scale = "",
    data: DataFolder = None,
    out: OutFolder = None,
    factors: Factors = "1,2,4,8",
    settings: Settings = [],  # noqa: B006
) -> None:
    """How far above the recipe's rate the warm-up stays stable, for shorter and longer ones."""
    from phikit.recipe.tune import tune_warmup

    tuning = _tuning(recipe, scale, data, out, settings)
    found = tune_warmup(tuning, _numbers(factors))
    for share, margin in found["margins"].items():
        say(f"warm-up {float(share):.2%}: stable up to {margin:g} times pretrain.lr {found['lr']:g}")
    say(f"plot: {tuning.out / 'warmup.html'}")


def _tuning(recipe: str, scale: str, data: Path | None, out: Path | None, settings: list[str]):
    from phikit.recipe.load import load
    from phikit.recipe.tune import Tuning

    loaded = load(recipe, scale=scale or None, settings=settings)
    run = data or loaded.folder
    return Tuning(loaded, run, out or run / "tune", say)


def _numbers(text: str) -> list[float]:
    from fractions import Fraction

    try:
        return [float(Fraction(x.strip())) for x in text.split(",")]
    except (ValueError, ZeroDivisionError) as e:
        raise ValueError(f"{text!r} is no list of numbers such as 0.5,1,2") from e
