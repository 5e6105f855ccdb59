"""kill -9 in the middle of a stage, run again: finished shards stay, manifests equal those of a quiet run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = """
name: fake
model: {layers: 1, width: 8, heads: 2, kv_heads: 1, ffn: 16, vocab: 64}
tokenizer:
eval:
report:
"""
STAGES = {
    "__init__": "",
    "tokenizer": """
        from phikit.records.io import write_text
        def run(ctx):
            write_text(ctx.out / "tokenizer.json", str(ctx.seed))
            return {"rows": 1}
    """,
    # Shards leave a mark in a journal outside the run, so that the test sees what was computed twice.
    "eval": """
        import os, time
        from phikit.jobs.pool import run_shards
        from phikit.records.io import write_jsonl
        NEEDS = ("tokenizer",)
        def shard(i):
            with open(os.environ["JOURNAL"], "a") as f:
                f.write(f"shard {i}\\n")
            time.sleep(float(os.environ.get("PAUSE", "0")))
            return {"i": i, "square": i * i}
        def run(ctx):
            with open(ctx.out / "half.txt", "w") as f:
                f.write("left by a killed run" if os.environ.get("PAUSE") else "whole")
            rows = run_shards(shard, list(range(6)), work=ctx.work / "shards", label="eval")
            write_jsonl(ctx.out / "rows.jsonl.zst", rows)
            with open(ctx.out / "half.txt", "w") as f:
                f.write("whole")
            with open(os.environ["JOURNAL"], "a") as f:
                f.write("rows written\\n")
            time.sleep(float(os.environ.get("PAUSE_AT_END", "0")))
            return {"rows": len(rows)}
    """,
    "report": """
        from phikit.records.io import write_json
        NEEDS = ("eval",)
        def run(ctx):
            write_json(ctx.out / "report.json", {"scores": []})
            return {}
    """,
}
RUN = """
import sys
from pathlib import Path
from phikit.recipe.load import load
from phikit.recipe.run import run
sys.exit(run(load(sys.argv[1]), Path(sys.argv[2]), package="fake_stages"))
"""


@pytest.fixture
def fakes(tmp_path):
    folder = tmp_path / "fake_stages"
    folder.mkdir()
    for name, text in STAGES.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    (tmp_path / "own.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def start(tmp: Path, out: str, **env: str) -> subprocess.Popen:
    paths = os.pathsep.join([str(ROOT / "src"), str(tmp)])
    environment = {**os.environ, "PYTHONPATH": paths, "JOURNAL": str(tmp / f"{out}.journal"), **env}
    command = [sys.executable, "-c", RUN, str(tmp / "own.yaml"), str(tmp / out)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def wait_for(condition, process: subprocess.Popen) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < end, "the run did not get that far"
        time.sleep(0.01)


def journal(tmp: Path, out: str) -> list[str]:
    path = tmp / f"{out}.journal"
    return path.read_text().splitlines() if path.exists() else []


def manifests(run: Path) -> dict[str, bytes]:
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in sorted(run.rglob("manifest.json"))}


@pytest.mark.parametrize(
    ("pauses", "marks"),
    [({"PAUSE": "0.2"}, 1), ({"PAUSE": "0.2"}, 4), ({"PAUSE_AT_END": "30"}, 7)],
    ids=["first shard", "fourth shard", "before the manifest"],
)
def test_kill_and_resume_gives_the_manifests_of_a_quiet_run(fakes, pauses, marks):
    code, text = finish(start(fakes, "quiet"))
    assert code == 0, text
    killed = start(fakes, "run", **pauses)
    wait_for(lambda: len(journal(fakes, "run")) >= marks, killed)
    killed.send_signal(signal.SIGKILL)
    assert finish(killed)[0] == -signal.SIGKILL
    assert not (fakes / "run" / "eval" / "manifest.json").exists()
    assert (fakes / "run" / "tokenizer" / "manifest.json").exists()

    code, text = finish(start(fakes, "run"))
    assert code == 0, text
    assert "tokenizer  cached" in text
    assert "was stopped half-way" in text
    assert manifests(fakes / "run") == manifests(fakes / "quiet")
    assert len(manifests(fakes / "run")) == 3
    # Only the shard under way at the kill was computed again.
    computed = [line for line in journal(fakes, "run") if line.startswith("shard")]
    assert len(set(computed)) == 6
    assert len(computed) <= 7


def test_kills_at_any_moment_come_to_the_same_end(fakes):
    finish(start(fakes, "quiet"))
    for i in range(8):
        process = start(fakes, "run", PAUSE="0.05")
        time.sleep(0.15 + 0.07 * i)
        process.send_signal(signal.SIGKILL)
        finish(process)
    code, text = finish(start(fakes, "run"))
    assert code == 0, text
    assert manifests(fakes / "run") == manifests(fakes / "quiet")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_stop_says_how_to_go_on(fakes, number):
    process = start(fakes, "run", PAUSE="0.2")
    wait_for(lambda: len(journal(fakes, "run")) >= 2, process)
    process.send_signal(number)
    code, text = finish(process)
    assert code == (0 if number == signal.SIGTERM else 130)  # a scheduler that pre-empts a run requeues it
    assert "stopped in eval. The same command goes on from there" in text
    assert "Traceback" not in text
    code, text = finish(start(fakes, "run"))
    assert code == 0, text


def test_work_of_another_recipe_is_not_resumed(fakes):
    process = start(fakes, "run", PAUSE="0.2")
    wait_for(lambda: len(journal(fakes, "run")) >= 3, process)
    process.send_signal(signal.SIGKILL)
    finish(process)
    before = len(journal(fakes, "run"))
    (fakes / "own.yaml").write_text(RECIPE.replace("eval:", "eval: {problems: 7}"), encoding="utf-8")
    code, text = finish(start(fakes, "run"))
    assert code == 0, text
    assert journal(fakes, "run")[before:] == [f"shard {i}" for i in range(6)] + ["rows written"]
