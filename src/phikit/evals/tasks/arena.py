"""Judged chat sets: Arena-Hard's comparison with a baseline (Li et al. 2024) and LiveBench's questions with a known
answer (White et al. 2024), graded by a judge."""

from collections.abc import Iterable

from phikit.evals.metrics import judging
from phikit.evals.task import Answer, Generate, Graded, Item, Source, Task, age


def compared(source: Source) -> Iterable[Item]:
    baseline = {r["id"]: r["answer"] for r in source.rows("baseline")}
    for row in source.rows("test"):
        if row["id"] not in baseline:
            raise ValueError(f"task arena_hard: the baseline has no answer to {row['id']}")
        yield Item(row["id"], row["prompt"], reference=baseline[row["id"]], cluster=row["cluster"])


def plain(source: Source) -> Iterable[Item]:
    return (Item(r["id"], r["prompt"], cluster=r["cluster"]) for r in source.rows("test"))


def words(item: Item, answer: Answer) -> Graded:
    return Graded({"words": float(len(answer.text.split()))}, "scored")


def known(source: Source) -> Iterable[Item]:
    for row in source.rows("test"):
        group = age(row["date"], source.cutoff) if source.cutoff else row["category"]
        yield Item(row["id"], row["prompt"], reference=row["answer"], group=group)


ARENA = Task(
    name="arena_hard", title="Arena-Hard style, win share", suite="judged", pack="arena_hard", items=compared,
    output=Generate(judging.ungraded, max_tokens=4096, chat=True), judge=judging.against_baseline(), metrics=("win",),
    note="Both orders; marks of the report's judge (appendix A.2) in place of Arena-Hard's five verdicts, ties a half, "
    "no Bradley-Terry fit and no control of style.",
)  # fmt: skip
BASELINE = Task(
    name="arena_hard_baseline", title="Arena-Hard questions answered, as a baseline", suite="more", pack="arena_hard",
    items=plain, output=Generate(words, max_tokens=4096, chat=True), metrics=("words",),
    note="records/arena_hard_baseline.parquet is what arena_hard reads as arena_hard/baseline.parquet.",
)  # fmt: skip
LIVEBENCH = Task(
    name="livebench", title="LiveBench style, judged against the answer", suite="judged", pack="livebench", items=known,
    output=Generate(judging.ungraded, max_tokens=4096, chat=True), judge=judging.REFERENCE, metrics=("acc",),
    contrast=("fresh", "old"),
    note="LiveBench grades with a program for each of its tasks; here a judge compares with the known answer.",
)  # fmt: skip
TASKS = (ARENA, BASELINE, LIVEBENCH)
