"""SimpleQA (Wei et al. 2024): short facts, graded by a judge as correct, incorrect or not attempted."""

from phikit.evals.metrics import simpleqa
from phikit.evals.metrics.judging import ungraded
from phikit.evals.task import Item, Judge, Row, Task
from phikit.evals.tasks import simple_evals


def question(row: Row) -> Item:
    return Item(row["id"], row["question"], reference=row["answer"], group=row["topic"])


SIMPLEQA = Task(
    name="simpleqa", title="SimpleQA", suite="chat", pack="simpleqa", item=question,
    output=simple_evals.sampled(ungraded), judge=Judge(simpleqa.ask, simpleqa.read, max_tokens=8),
    metrics=("correct", "incorrect", "not_attempted"),
    derived={"f1": simpleqa.f1, "given_attempted": simpleqa.given_attempted},
    note="The grader's wording is ours. The report prints the share of correct answers and calls it F1; both are here.",
)  # fmt: skip
TASKS = (SIMPLEQA,)
