"""HumanEval (Chen et al. 2021) and HumanEval+ (Liu et al. 2023): programs run in the sandbox.

`humaneval` continues the prompt greedily (base models; the report does not state its protocol), `humaneval_chat` asks
for the function five times (simple-evals), `humaneval_plus` does so with the larger tests where they are given."""

from phikit.evals.metrics import programs
from phikit.evals.task import Generate, Item, Row, Task
from phikit.evals.tasks import simple_evals

STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def reference(row: Row) -> dict[str, str]:
    return {"prompt": row["prompt"], "tests": f"{row['test']}\ncheck({row['entry_point']})\n"}


def problem(row: Row) -> Item:
    return Item(row["id"], row["prompt"], target=row["canonical_solution"], reference=reference(row))


def asked(row: Row) -> Item:
    return Item(row["id"], simple_evals.CODE + row["prompt"], reference=reference(row))


BASE = Task(
    name="humaneval", title="HumanEval, greedy", suite="base", pack="humaneval", item=problem, metrics=("pass",),
    output=Generate(programs.passes(programs.continued), max_tokens=1024, stop=STOP), tests=True,
)  # fmt: skip
CHAT = Task(
    name="humaneval_chat", title="HumanEval, 5 samples", suite="chat", pack="humaneval", item=asked,
    output=simple_evals.sampled(programs.passes(programs.fenced), runs=5), metrics=("pass",),
    per_item={"pass@5": (5, programs.pass_at(5))}, tests=True,
)  # fmt: skip
PLUS = Task(
    name="humaneval_plus", title="HumanEval+, 5 samples", suite="chat", pack="humaneval_plus", item=asked,
    output=simple_evals.sampled(programs.passes(programs.fenced, cpu_seconds=10), runs=5), metrics=("pass",),
    tests=True,
)  # fmt: skip
TASKS = (BASE, CHAT, PLUS)
