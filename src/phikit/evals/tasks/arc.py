"""ARC-Challenge (Clark et al. 2018), 1-shot by log-likelihood of the whole choice (report section 3)."""

from phikit.evals.task import Choices, Item, Row, Shots, Task


def question(row: Row) -> Item:
    choices = tuple(row["choices"])
    return Item(
        id=row["id"],
        prompt=f"Question: {row['question']}\nAnswer:",
        choices=choices,
        gold=row["gold"],
        target=choices[row["gold"]],
    )


ARC = Task(
    name="arc_challenge", title="ARC-Challenge, 1-shot, log-likelihood", suite="base", pack="arc", split="test|dev",
    item=question, shots=Shots(1, "train|dev", "random"), output=Choices(), metrics=("acc", "acc_norm"),
)  # fmt: skip
TASKS = (ARC,)
