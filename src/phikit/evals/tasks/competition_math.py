"""MATH (Hendrycks et al. 2021): 4-shot generation for base models (report section 3), simple-evals for chat models."""

from phikit.evals.metrics import answers
from phikit.evals.task import Generate, Item, Row, Shots, Task
from phikit.evals.tasks import simple_evals


def problem(row: Row) -> Item:
    return Item(
        id=row["id"],
        prompt=f"Problem:\n{row['problem']}\n\nSolution:",
        target=f" {row['solution']}",
        reference=row["answer"],
        group=row["subject"],
    )


def asked(row: Row) -> Item:
    return Item(
        row["id"], simple_evals.mathematics(row["problem"]), reference=row["answer"], group=row["subject"]
    )


BASE = Task(
    name="math", title="MATH, 4-shot", suite="base", pack="math",
    item=problem, shots=Shots(4, "test", "fixed"), metrics=("acc",),
    output=Generate(answers.math_final, max_tokens=1024, stop=("Problem:",)),
    note="Four problems of the test split with their solutions are the examples and are not evaluated; the report does "
    "not say which it used. Answers are compared by math-verify.",
)  # fmt: skip
CHAT = Task(
    name="math_chat", title="MATH, zero-shot, 10 runs", suite="chat", pack="math",
    item=asked, output=simple_evals.sampled(answers.math_line, runs=10), metrics=("acc",),
    note="simple-evals asks a model whether two answers are equal; here math-verify decides.",
)  # fmt: skip
TASKS = (BASE, CHAT)
