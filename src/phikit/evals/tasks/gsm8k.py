"""GSM8K (Cobbe et al. 2021), 8-shot generation (report section 3)."""

from phikit.evals.metrics import answers
from phikit.evals.task import Generate, Item, Row, Shots, Task


def question(row: Row) -> Item:
    return Item(
        id=row["id"],
        prompt=f"Question: {row['question']}\nAnswer:",
        target=f" {row['answer']}",
        reference=row["answer"].rpartition("####")[2].strip(),
    )


GSM8K = Task(
    name="gsm8k", title="GSM8K, 8-shot", suite="base", pack="gsm8k",
    item=question, shots=Shots(8, "train"), metrics=("strict", "flexible"),
    output=Generate(answers.gsm8k, max_tokens=256, stop=("Question:", "</s>", "<|im_end|>")),
    note="The first eight training rows are the examples of every question; the report does not say which it used.",
)  # fmt: skip
TASKS = (GSM8K,)
