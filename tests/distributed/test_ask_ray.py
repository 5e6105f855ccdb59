"""The teacher's offline batch mode: engines in Ray actors answer as one engine does, also when one is killed."""

from __future__ import annotations

import json

import pytest
from ray_cluster import driver, finish

ASK = """
import asyncio, json, os, signal, sys
from pathlib import Path
import own_model
from phikit.ask.budget import Budget
from phikit.ask.teacher import open_teacher
from phikit.records.types import Turn

async def ask(teacher, prompts, kill=None):
    asked = asyncio.gather(*(teacher.chat([Turn("user", p)], n=4, max_tokens=40, seed=3) for p in prompts))
    if kill:
        await asyncio.sleep(0.02)
        os.kill(kill, signal.SIGKILL)
    return [a for answers in await asked for a in answers]

def main():
    folder, on, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    model = kind + str(own_model.write_model(folder / "model"))
    prompts = [q["question"] for q in own_model.questions(6)]
    with open_teacher(model, log=folder / "here", budget=Budget(tokens=50_000)) as teacher:
        here = teacher.run(ask(teacher, prompts))
    with open_teacher(model, log=folder / "ray", on=on, replicas=2, threads=1, budget=Budget(tokens=50_000)) as teacher:
        there = teacher.run(ask(teacher, prompts[:3]))
        fleet = teacher._owned
        pid = fleet.ray.get(fleet.actors[0].__ray_call__.remote(lambda held: os.getpid()))
        there += teacher.run(ask(teacher, prompts[3:], pid))
        again = fleet.ray.get(fleet.actors[0].__ray_call__.remote(lambda held: os.getpid()))
        counts = [teacher.counts()["asked"], fleet.usage.generated > 0, fleet.replicas, pid != again]
        shape = [fleet.lanes, fleet.batch, fleet.info.numerics]
    with open_teacher(model, log=folder / "ray", budget=Budget(tokens=50_000)) as teacher:
        replayed = teacher.run(ask(teacher, prompts))
    print(json.dumps({
        "here": [[a.key, a.text, a.finish] for a in here], "there": [[a.key, a.text, a.finish] for a in there],
        "counts": counts, "shape": shape, "replayed": sum(a.replayed for a in replayed),
    }))

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "shape"), [("torch:", [2, 32, "exact-fp32"]), ("vllm:", [2, 256, "vllm:float32"])]
)
def test_a_fleet_answers_as_one_engine_and_survives_the_death_of_an_engine(cluster, tmp_path, kind, shape):
    """`vllm:` is the stand-in of tests/unit/stand_in."""
    with driver(ASK, str(tmp_path), cluster[0], kind) as run:
        found = json.loads(finish(run))
    assert len(found["here"]) == 24
    assert found["here"] == found["there"]
    assert len({text for _, text, _ in found["here"]}) > 12
    assert found["counts"] == [24, True, 2, True]
    assert found["shape"] == shape
    assert found["replayed"] == 24
