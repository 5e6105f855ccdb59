"""GPQA diamond (Rein et al. 2023): simple-evals' form, the options dealt anew in each of ten runs."""

from collections.abc import Iterable

from phikit.evals.metrics import answers
from phikit.evals.task import Item, Source, Task
from phikit.evals.tasks import simple_evals


def items(source: Source) -> Iterable[Item]:
    for row in source.rows("test"):
        options = [row["right"], *row["wrong"]]
        order = source.rng(row["id"]).sample(range(4), 4)
        yield Item(
            id=row["id"],
            prompt=simple_evals.multiple_choice(row["question"], [options[i] for i in order]),
            reference="ABCD"[order.index(0)],
            group=row["subject"],
        )


GPQA = Task(
    name="gpqa", title="GPQA diamond, zero-shot, 10 runs", suite="chat", pack="gpqa", items=items, per_run=True,
    output=simple_evals.sampled(answers.letter(), runs=10), metrics=("acc",),
)  # fmt: skip
TASKS = (GPQA,)
