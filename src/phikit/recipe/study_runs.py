"""The runs of the nano recipe that studies begin with: one a seed, without the embedded teacher, as far as needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from phikit.records import artifact

if TYPE_CHECKING:
    from phikit.recipe.schema import Recipe

# The embedded teacher is left out: its 1 % of the mixture moves none of the claims. Code takes its place.
NO_TEACHER = (
    "synth.forms=[]",
    "mixture.phases.1.fractions.synthetic=0%", "mixture.phases.1.fractions.code=10%",
    "mixture.phases.2.fractions.synthetic=0%", "mixture.phases.2.fractions.code=12%",
)  # fmt: skip


def nano(seed: int, settings: Sequence[str] = ()) -> Recipe:
    """The nano recipe of a seed: its own world, network and data order."""
    from phikit.recipe.load import load

    return load("phi4", scale="nano", seed=seed, settings=(*NO_TEACHER, *settings))


def run_until(recipe: Recipe, folder: Path, last: str) -> Path:
    """The folder of stage `last` of a run in `folder`; those of its stages that are not there are run. What is there is
    taken as it is, also where an older program made it: a study goes on with the models it began with."""
    from phikit.recipe.run import run

    stages = recipe.stages
    for stage in stages[: stages.index(last) + 1]:
        if artifact.load(folder / stage) is None and run(recipe, folder, only=stage):
            raise ValueError(f"stage {stage} failed in {folder}; see its timings.json")
    return folder / last
