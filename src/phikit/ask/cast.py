"""Several teachers with roles: who solves, who criticizes, who judges.

A flow names the role of each of its prompts; one teacher plays all roles, or a Cast gives some of them to others.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from phikit.ask.backends import Pace
from phikit.ask.budget import Budget
from phikit.ask.teacher import Answer, Teacher, open_teacher, run_and_leave
from phikit.records.types import Turn

T = TypeVar("T")
ROLES = ("writer", "solver", "critic", "judge")


class Cast:
    """Teachers by role; "writer" is the one who plays what nobody else was given. They share one budget where they
    were made with one. Used like a Teacher."""

    def __init__(self, teachers: Mapping[str, Teacher]) -> None:
        if "writer" not in teachers or set(teachers) - set(ROLES):
            raise ValueError(
                f"a cast needs a writer, and knows the roles {', '.join(ROLES)}; got {sorted(teachers)}"
            )
        self.teachers = dict(teachers)

    def role(self, name: str) -> Teacher:
        return self.teachers.get(name, self.teachers["writer"])

    @property
    def holds(self) -> bool:
        return all(t.holds for t in self.teachers.values())

    @property
    def engines(self) -> int:
        """How many answer at once, of the teacher with the most."""
        return max(t.engines for t in self.teachers.values())

    async def chat(self, turns: Sequence[Turn], **options: Any) -> list[Answer]:
        return await self.teachers["writer"].chat(turns, **options)

    def run(self, flow: Coroutine[Any, Any, T]) -> T:
        """Runs an async flow to its end from ordinary code, and closes connections after it."""
        return run_and_leave(flow, *self.teachers.values())

    def counts(self) -> dict[str, float]:
        """The sums over the teachers; tokens and money once for each budget."""
        total: dict[str, float] = {}
        budgets: set[int] = set()
        for teacher in self.teachers.values():
            shared = id(teacher.budget) in budgets
            budgets.add(id(teacher.budget))
            for name, n in teacher.counts().items():
                if not (shared and name in ("tokens", "money")):
                    total[name] = total.get(name, 0) + n
        return total

    def close(self) -> None:
        for teacher in self.teachers.values():
            teacher.close()

    def __enter__(self) -> Cast:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def open_cast(
    specs: Sequence[str], *, log: Path, budget: Budget | None = None, pace: Pace | None = None, **options: Any
) -> Cast:
    """The cast of "smollm2" or "judge=http://host/v1#model", ...; a spec without a role is the writer. Each has a
    log folder of its own under `log`, and reads its key from PHIKIT_API_KEY_<ROLE>, else PHIKIT_API_KEY."""
    budget = budget or Budget()
    teachers: dict[str, Teacher] = {}
    try:
        for spec in specs:
            role, equals, rest = spec.partition("=")
            role, source = (role, rest) if equals and role in ROLES else ("writer", spec)
            if role in teachers:
                raise ValueError(f"--teacher: two teachers for the role {role}")
            teachers[role] = open_teacher(
                source, log=log / role, budget=budget, pace=pace, role=role, **options
            )
        return Cast(teachers)
    except BaseException:
        for teacher in teachers.values():
            teacher.close()
        raise
