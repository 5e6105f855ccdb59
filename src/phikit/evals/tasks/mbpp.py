"""MBPP (Austin et al. 2021), 3-shot with the paper's prompt (report section 3), and MBPP+ where its tests are given."""

from phikit.evals.metrics import programs
from phikit.evals.task import Generate, Item, Row, Shots, Task
from phikit.evals.tasks import simple_evals


def problem(row: Row) -> Item:
    tests = "\n".join(row["test_list"])
    return Item(
        id=row["id"],
        prompt=f"You are an expert Python programmer, and here is your task: {row['text']} Your code should pass these "
        f"tests:\n\n{tests}\n[BEGIN]\n",
        target=row["code"] + "\n[DONE]",
        reference={"prompt": "", "tests": "\n".join(filter(None, [row.get("test_setup_code", ""), tests]))},
    )


def asked(row: Row) -> Item:
    return Item(row["id"], simple_evals.CODE + row["prompt"], reference={"prompt": "", "tests": row["test"]})


BASE = Task(
    name="mbpp", title="MBPP, 3-shot", suite="base", pack="mbpp", item=problem, shots=Shots(3, "prompt", "fixed"),
    output=Generate(programs.passes(programs.alone), max_tokens=512, stop=("[DONE]",)), metrics=("pass",), tests=True,
    note="Examples are three of the ten rows that the paper sets aside for prompts.",
)  # fmt: skip
PLUS = Task(
    name="mbpp_plus", title="MBPP+, 5 samples", suite="chat", pack="mbpp_plus", item=asked,
    output=simple_evals.sampled(programs.passes(programs.fenced, cpu_seconds=10), runs=5), metrics=("pass",),
    tests=True,
)  # fmt: skip
TASKS = (BASE, PLUS)
