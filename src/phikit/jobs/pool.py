"""`run_shards`: a pure function over shards, with resume, as a plan of one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phikit.jobs.plan import Shard, Step, compile
from phikit.jobs.run import LOCAL, ShardError, run_plan

__all__ = ["ShardError", "run_shards"]


def run_shards(
    fn: Callable[[Any], Any],
    shards: Sequence[Any],
    *,
    work: Path,
    label: str,
    workers: int = 1,
    on: str = LOCAL,
) -> list[Any]:
    """JSON-able results of `fn` over JSON-able `shards`, in order; those done before are read back from `work`.

    A result belongs to its shard and the code of `fn`: where one has changed it is computed again. `on` and what is
    raised: as `run.run_plan`.
    """
    plan = compile(work, [Step(label, fn, [Shard(s) for s in shards])])
    return run_plan(plan, label=label, workers=workers, on=on, fn=fn)
