"""A recipe under torchrun: rank 0 runs it; the other ranks wait, and join it in the stages that train."""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from phikit.recipe.context import StageContext
from phikit.recipe.plan import TRAINED
from phikit.recipe.schema import Recipe
from phikit.records import artifact

GRACE = 20.0  # seconds in which rank 0 may say what is wrong before torchrun ends it


def rank() -> int:
    """This process among those that torchrun started; 0 where there is one."""
    return int(os.environ.get("RANK", "0"))


def several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def call(stage: str | None, inputs: tuple[str, ...] = ()) -> None:
    """Rank 0: the others enter a stage that trains, or, with None, leave."""
    if several() and (stage is None or stage in TRAINED):
        _tell([stage, inputs])


def follow(recipe: Recipe, out: Path, package: str) -> int:
    """The other ranks: enters each stage that rank 0 calls, with the same inputs; returns the exit status."""
    while True:
        stage, inputs = _tell(None)
        if stage is None:
            return 0
        folder = out / stage
        found = {n: a for n in inputs if (a := artifact.load(out / n))}
        config, seed = getattr(recipe, stage), recipe.seed_of(stage)
        ctx = StageContext(stage, recipe, config, found, folder, folder / artifact.WORK, seed)
        try:
            importlib.import_module(f"{package}.{stage}").run(ctx)
        except Exception as e:
            from phikit.train.trainer import Interrupted

            if isinstance(e, Interrupted):
                return 0
            traceback.print_exc(file=sys.stderr)
            time.sleep(GRACE)
            return 1


def _tell(value: Any) -> Any:
    """Rank 0's value on every rank."""
    import torch
    import torch.distributed as dist

    from phikit.model.ranks import join

    join()
    box = [value]
    dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
    return box[0]
