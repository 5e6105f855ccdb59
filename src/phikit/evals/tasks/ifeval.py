"""IFEval (Zhou et al. 2023): 25 kinds of instructions whose keeping a program can check."""

from phikit.evals.metrics import ifeval
from phikit.evals.task import Generate, Item, Row, Task


def question(row: Row) -> Item:
    return Item(row["id"], row["prompt"], reference={"kinds": row["kinds"], "arguments": row["arguments"]})


IFEVAL = Task(
    name="ifeval", title="IFEval", suite="chat", pack="ifeval", item=question,
    output=Generate(ifeval.grade, max_tokens=1280, chat=True),
    metrics=("prompt_strict", "prompt_loose", "kept_strict", "kept_loose", "asked"),
    derived={"inst_strict": ifeval.share_strict, "inst_loose": ifeval.share_loose},
    note="Greedy, 1,280 tokens, as in lm-eval. The report does not say which of the four accuracies it prints.",
)  # fmt: skip
TASKS = (IFEVAL,)
