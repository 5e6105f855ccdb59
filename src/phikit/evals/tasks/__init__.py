"""The tasks phikit ships, one file a benchmark. `all_tasks()` has them by name."""

from __future__ import annotations

from importlib import import_module

from phikit.evals.task import Task

FILES = (
    "mmlu", "mmlu_pro", "arc", "trivia", "gsm8k", "competition_math", "humaneval", "mbpp", "gpqa", "mgsm", "simpleqa",
    "drop", "ifeval", "helmet", "amc", "arena", "safety", "refusals",
)  # fmt: skip


def all_tasks() -> dict[str, Task]:
    """Every task by its name, in the order of the tables. A task file puts its tasks into TASKS."""
    found: dict[str, Task] = {}
    for name in FILES:
        for task in import_module(f"{__name__}.{name}").TASKS:
            if task.name in found:
                raise ValueError(f"two tasks are named {task.name!r}")
            found[task.name] = task
    return found
