"""A fresh contest: AMC 10 and 12 (report, figure 1 and appendix C) on questions of the user's."""

import re
from collections.abc import Iterable

from phikit.evals.metrics import contest
from phikit.evals.task import Generate, Item, Source, Task, age
from phikit.records.ids import content_id

_ASK = (
    "This is a question of a contest. A right answer earns 6 points, no answer 1.5 points, a wrong answer nothing. "
    "Reason step by step, then end with \\boxed{{X}} where X is one of A, B, C, D, E, or \\boxed{{blank}} to leave the "
    "question out.\n\n{question}"
)


def items(source: Source) -> Iterable[Item]:
    """One item a question and contest; a question that two contests share is one cluster. Groups are fresh and old
    where a cutoff is given (`--set amc.cutoff=2024-11-06`), else the contests."""
    for row in source.rows("test"):
        yield Item(
            id=row["id"],
            prompt=_ASK.format(question=row["question"]),
            reference=row["answer"],
            group=age(row["date"], source.cutoff) if source.cutoff else row["contest"],
            cluster=content_id("contest", re.sub(r"\W+", "", row["question"]).lower()),
            text=row["question"],
        )


AMC = Task(
    name="amc", title="AMC 10 and 12, points of 150", suite="contest", pack="amc", items=items,
    output=Generate(contest.grade, max_tokens=4096, temperature=0.5, chat=True, runs=10),
    metrics=("score", "correct", "blank"), contrast=("fresh", "old"),
    note="The report extracts the letter with a model; here a pattern does. It says 100 runs in one place and 10 in "
    "another: --set amc.runs=100. Two sigma over runs is twice `run_sd`; the interval is that over questions.",
)  # fmt: skip
TASKS = (AMC,)
