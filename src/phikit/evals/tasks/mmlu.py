"""MMLU: 57 subjects, four choices (Hendrycks et al. 2021).

`mmlu` is the report's base protocol (section 3): five examples of the subject, log-likelihood of the letters.
`mmlu_chat` is that of simple-evals: the question alone, reasoning, a last line with the letter."""

from phikit.evals.metrics import answers
from phikit.evals.task import Choices, Item, Row, Shots, Task
from phikit.evals.tasks import simple_evals
from phikit.evals.tasks.simple_evals import LETTERS


def question(row: Row) -> Item:
    return lettered(row, row["question"].strip())


def lettered(row: Row, text: str) -> Item:
    """A question whose choices are listed under letters, of which one is to be scored."""
    letters = tuple(LETTERS[: len(row["choices"])])
    options = "".join(f"\n{x}. {c}" for x, c in zip(letters, row["choices"]))
    return Item(
        id=row["id"],
        prompt=f"{text}{options}\nAnswer:",
        choices=letters,
        gold=row["gold"],
        target=letters[row["gold"]],
        group=row["subject"],
    )


def head(item: Item) -> str:
    return f"The following are multiple choice questions (with answers) about {item.group.replace('_', ' ')}.\n\n"


def asked(row: Row) -> Item:
    prompt = simple_evals.multiple_choice(row["question"], row["choices"])
    return Item(row["id"], prompt, reference=LETTERS[row["gold"]], group=row["subject"])


BASE = Task(
    name="mmlu", title="MMLU, 5-shot, log-likelihood", suite="base", pack="mmlu", split="test|val",
    item=question, head=head, shots=Shots(5, "dev"), output=Choices(), metrics=("acc",),
)  # fmt: skip
CHAT = Task(
    name="mmlu_chat", title="MMLU, zero-shot with reasoning", suite="chat", pack="mmlu", split="test|val",
    item=asked, output=simple_evals.sampled(answers.letter()), metrics=("acc",),
)  # fmt: skip
TASKS = (BASE, CHAT)
