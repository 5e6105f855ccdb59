"""DROP (Dua et al. 2019): reading with arithmetic, three worked passages before the question (simple-evals)."""

from collections.abc import Iterable

from phikit.evals.metrics import drop
from phikit.evals.task import Item, Source, Task
from phikit.evals.tasks import simple_evals

_INTRO = (
    "You will be asked to read a passage and answer a question. Some examples of passages and Q&A are provided below."
    "\n\n# Examples"
)
_TASK = '\n\nThink step by step, then write a line of the form "Answer: $ANSWER" at the end of your response.'
SHOTS = 3


def items(source: Source) -> Iterable[Item]:
    shots = source.rows("train|dev")
    for row in source.rows("dev"):
        drawn = source.rng(row["id"]).sample(shots, min(len(shots), 2 * SHOTS))
        examples = [s for s in drawn if s["passage"] != row["passage"]][:SHOTS]
        told = "".join(f"\n---\n{s['context']} {s['completion']}\n" for s in examples)
        yield Item(
            id=row["id"],
            prompt=f"{_INTRO}{told}\n# Your Task\n\n---\n{row['context']} {_TASK}",
            reference=row["answers"],
            cluster=row["passage"][:200],
            text=row["context"],
        )


DROP = Task(
    name="drop", title="DROP, 3-shot with reasoning", suite="chat", pack="drop", split="dev", items=items,
    output=simple_evals.sampled(drop.grade), metrics=("f1", "em"),
    note="simple-evals draws the examples in an order that its threads decide; here they depend on the question alone.",
)  # fmt: skip
TASKS = (DROP,)
