"""TriviaQA (Joshi et al. 2017) closed-book, 1-shot (report section 3), and NQ-open in the same form."""

from dataclasses import replace

from phikit.evals.metrics import answers
from phikit.evals.task import Generate, Item, Row, Shots, Task


def question(row: Row) -> Item:
    return Item(
        id=row["id"],
        prompt=f"Question: {row['question']}?\nAnswer:",
        target=f" {row['first']}",
        reference=list(row["answers"]),
    )


TRIVIAQA = Task(
    name="triviaqa", title="TriviaQA, 1-shot", suite="base", pack="triviaqa", split="dev",
    item=question, shots=Shots(1, "train|dev", "fixed"), metrics=("exact",),
    output=Generate(answers.short_answer, max_tokens=64, stop=("\n", ".", ",")),
    note="The extra question mark and the stop strings are those of lm-eval's triviaqa.",
)  # fmt: skip
NQ_OPEN = replace(
    TRIVIAQA, name="nq_open", title="NQ-open, 1-shot", suite="more", pack="nq_open", note="Not in the report."
)
TASKS = (TRIVIAQA, NQ_OPEN)
