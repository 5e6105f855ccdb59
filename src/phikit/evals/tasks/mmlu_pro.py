"""MMLU-Pro: up to ten choices (Wang et al. 2024), by log-likelihood of the letters for base models (report section 3,
which does not say with how many examples) and with reasoning for chat models."""

from phikit.evals.metrics import answers
from phikit.evals.task import Choices, Item, Row, Shots, Task, require
from phikit.evals.tasks import simple_evals
from phikit.evals.tasks.simple_evals import LETTERS


def question(row: Row) -> Item:
    options, gold = require(row, "options", "mmlu_pro"), int(require(row, "answer_index", "mmlu_pro"))
    letters = tuple(LETTERS[: len(options)])
    told = "".join(f"{x}. {o}\n" for x, o in zip(letters, options))
    return Item(
        id=row["id"],
        prompt=f"{require(row, 'question', 'mmlu_pro')}\n{told}Answer:",
        choices=letters,
        gold=gold,
        target=letters[gold],
        group=str(row.get("category", "")),
    )


def asked(row: Row) -> Item:
    gold = LETTERS[int(require(row, "answer_index", "mmlu_pro_chat"))]
    prompt = simple_evals.multiple_choice(row["question"], require(row, "options", "mmlu_pro_chat"))
    return Item(row["id"], prompt, reference=gold, group=str(row.get("category", "")))


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
