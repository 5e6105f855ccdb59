"""MMLU-Pro: up to ten choices (Wang et al. 2024), by log-likelihood of the letters for base models (report section 3,
which does not say with how many examples) and with reasoning for chat models."""

from phikit.evals.metrics import answers
from phikit.evals.task import Choices, Item, Row, Shots, Task
from phikit.evals.tasks import simple_evals
from phikit.evals.tasks.mmlu import asked, lettered
from phikit.evals.tasks.simple_evals import LETTERS


def question(row: Row) -> Item:
    return lettered(row, row["question"])


BASE = Task(
    name="mmlu_pro", title="MMLU-Pro, 5-shot, log-likelihood", suite="base", pack="mmlu_pro",
    item=question, shots=Shots(5, "validation"), output=Choices(), metrics=("acc",),
    note="Examples are those of the question's category; lm-eval's leaderboard task shows the first five of all.",
)  # fmt: skip
CHAT = Task(
    name="mmlu_pro_chat", title="MMLU-Pro, zero-shot with reasoning", suite="chat", pack="mmlu_pro",
    item=asked, output=simple_evals.sampled(answers.letter(LETTERS)), metrics=("acc",),
    note="The report used an internal framework here; the prompt is that of simple-evals for multiple choice.",
)  # fmt: skip
TASKS = (BASE, CHAT)
