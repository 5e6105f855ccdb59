"""Sample outputs for the page: the first items of each task, the same for every checkpoint, never
selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phikit.engine.base import Engine, GenRequest
from phikit.evals.world import arithmetic
from phikit.evals.world.plan import Item, Kind, Prompter, Settings

SHOWN = {"arithmetic": 14, "recall_1x": 2, "recall_4x": 2, "icl": 2}  # 20 in all


def samples(
    engine: Engine, checkpoint: str, kind: Kind, held: Mapping[str, Sequence[Item]], settings: Settings
) -> list[dict[str, Any]]:
    """{checkpoint, task, id, prompt, output, answer, finish, verdict}: arithmetic as in metric `sampled` (its
    first sample, by the same seed), the others greedily as far as the answer is long."""
    ask = Prompter(engine, kind)
    shown = [(task, item) for task, n in SHOWN.items() for item in held[task][:n]]
    requests = [_request(ask, task, item, settings) for task, item in shown]
    # Short and long prompts apart: an engine lays its cache out for the longest of a call.
    out: dict[int, dict[str, Any]] = {}
    for some in (
        [k for k, (t, _) in enumerate(shown) if (t == "arithmetic") == short] for short in (True, False)
    ):
        for index, (completion, *_) in engine.generate([requests[k] for k in some]):
            task, item = shown[some[index]]
            answer = str(item["answer"])
            if task == "arithmetic":
                verdict = arithmetic.outcome(completion, answer)
            else:
                verdict = "right" if completion.text.strip() == answer.strip() else "wrong"
            out[some[index]] = {
                "checkpoint": checkpoint,
                "task": task,
                "id": str(item["id"]),
                "prompt": item["question"] if task == "arithmetic" else item["prompt"],
                "output": completion.text,
                "answer": answer,
                "finish": completion.finish,
                "verdict": verdict,
            }
    return [out[k] for k in sorted(out)]


def _request(ask: Prompter, task: str, item: Item, settings: Settings) -> GenRequest:
    if task == "arithmetic":
        return ask.samples([item], settings, 1, arithmetic.TASK)[0]
    due = ask.continuation(item["prompt"], str(item["answer"]))
    return GenRequest(
        due.context, len(due.continuation), temperature=0.0, stop_ids=tuple(ask.engine.stop_ids)
    )
