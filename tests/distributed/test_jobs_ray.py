"""Shard tasks on a Ray cluster that the test starts: the bytes of the local pool, also when a worker is killed."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest
from ray_cluster import TESTS, Unreachable, driver, finish

from phikit.jobs.run import run_plan

sys.path.append(str(TESTS / "faults"))
import jobs_steps

STEPS = """
import sys
from pathlib import Path
import jobs_steps
from phikit.jobs.run import run_plan
if __name__ == "__main__":
    print(run_plan(jobs_steps.plan(Path(sys.argv[1])), label="steps", on=sys.argv[2])[-1])
"""
CORPUS = """
import sys
from pathlib import Path
from phikit.corpus import pipeline
from phikit.mixture.encode import encode_files
from phikit.records import Document
from phikit.text.tokenizer import Tokenizer
if __name__ == "__main__":
    words = [f"{a}{b}" for a in ("gar", "win", "sum", "riv", "mead") for b in ("den", "ter", "mer", "er", "ow")]
    prose = lambda i: " ".join(
        f"The {words[(i * 7 + j * j) % 25]} of the {words[(i + 3 * j) % 25]} was {j + i} years old and they liked it."
        for j in range(20)
    )
    items = [Document(prose(i), "text", {"path": f"{i}.txt", "origin": f"{i}"}) for i in range(40)]
    pipeline.SHARD_CHARACTERS = 40_000
    out = Path(sys.argv[1])
    settings = pipeline.Settings(heldout=0.1)
    built = pipeline.build(items, [("q/1", prose(3))], out, out / ".work", settings, 2, sys.argv[2])
    Tokenizer.train([prose(0)], 300).save(out / "tokenizer.json")
    work = out.with_name(f"{out.name}-encode")  # its plan names the files by their place
    files = [out / "documents.jsonl.zst", out / "heldout.jsonl.zst"]
    tokens = encode_files(out / "tokenizer.json", files, [], out / "tokens", work, workers=2, on=sys.argv[2])
    print(built, tokens)
"""


def test_a_killed_ray_worker_costs_its_task_one_try_and_no_byte(cluster, tmp_path):
    quiet = run_plan(jobs_steps.plan(tmp_path / "quiet"), label="quiet")
    folder = tmp_path / "killed"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "hold-2").touch()
    with driver(STEPS, str(folder), cluster[0]) as run:
        os.kill(jobs_steps.held(folder, 2, 240), signal.SIGKILL)
        assert finish(run) == str(quiet[-1])
    assert jobs_steps.bytes_of(folder) == jobs_steps.bytes_of(tmp_path / "quiet")
    assert jobs_steps.journal(folder) == ["0", "1", "2", "2", "3", "4"]


@pytest.mark.slow
def test_the_corpus_has_the_same_bytes_on_the_pool_on_ray_and_through_a_client(cluster, tmp_path):
    places = {"pool": "local", "head": cluster[0], "client": cluster[1]}
    counts, files = {}, {}
    for name, on in places.items():
        for last in (False, False, True):  # a client waits 30 s for a server of its own, which Ray starts
            with driver(CORPUS, str(tmp_path / name), on) as run:
                try:
                    counts[name] = finish(run)
                    break
                except Unreachable:
                    if last:
                        raise
        files[name] = {
            p.relative_to(tmp_path / name).as_posix(): p.read_bytes()
            for p in sorted((tmp_path / name).rglob("*")) if p.is_file()
        }  # fmt: skip
    assert counts["pool"] == counts["head"] == counts["client"]
    assert "tokens/text/tokens.npy" in files["pool"]
    assert {"documents.jsonl.zst", "heldout.jsonl.zst", "rejected.jsonl.zst", ".work/clean/plan.json"} <= set(
        files["pool"]
    )
    assert files["pool"] == files["head"] == files["client"]
    plan = json.loads(files["pool"][".work/clean/plan.json"])
    kinds = [t["kind"] for t in plan["tasks"]]
    assert kinds.count("map") > 2
    assert {"map", "group"} <= set(kinds)
