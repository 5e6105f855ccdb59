"""What a stage gets: its part of the recipe, its inputs, and the folder it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phikit.recipe.schema import Checkpoint, Recipe
from phikit.records.artifact import Artifact
from phikit.train.sinks import Name


@dataclass(frozen=True)
class StageContext:
    """`config` is the stage's own section; `work` (= out/.work) is kept for a resume and gone when the stage
    is done. `on`: where shard tasks run, as `jobs.run.run_plan`; it enters no fingerprint. Every other
    section that it reads through `ctx.recipe.<section>` enters its fingerprint."""

    name: str
    recipe: Recipe
    config: Any
    inputs: Mapping[str, Artifact]
    out: Path
    work: Path
    seed: int
    on: str = "local"

    @property
    def root(self) -> Path:
        """The folder of the run: timings.json and the copies of the report are here."""
        return self.out.parent

    @property
    def device(self) -> str | None:
        """Where engines run: `layout.device`, None for its `auto`. It enters no fingerprint: a machine is no recipe."""
        chosen = self.recipe.layout.device
        return None if chosen == "auto" else chosen

    @property
    def sinks(self) -> tuple[Name, ...]:
        """Where logs of training are copied to. Enters no fingerprint."""
        return self.recipe.metrics.sinks

    @property
    def checkpoint(self) -> Checkpoint:
        """How often a training stage saves its state. Enters no fingerprint."""
        return self.recipe.checkpoint

    def one(self, *stages: str) -> str:
        """The first of these stages that is an input: which of them a recipe has (NEEDS with "a|b")."""
        found = next((s for s in stages if s in self.inputs), None)
        if found is None:
            raise ValueError(
                f'stage {self.name} reads {" or ".join(stages)}: add "{"|".join(stages)}" to NEEDS'
            )
        return found

    def file(self, stage: str, name: str) -> Path:
        """A file that an input stage wrote; the error says which stage lacks which file."""
        if stage not in self.inputs:
            raise ValueError(
                f"stage {self.name} reads {stage}, which is not among its inputs: add it to NEEDS"
            )
        return self.inputs[stage].file(name)
