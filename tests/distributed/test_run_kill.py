"""`phikit run` under torchrun, two gloo ranks: killed with SIGKILL and SIGTERM at random moments, a rank of it or all,
and given again it ends with the files of a quiet run; and it goes on alone with what two ranks had saved."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
import own_model as own  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds ranks in /proc"),
]
# From questions to the export: three stages train on both ranks, in the others the second one waits.
STAGES = ("init", "questions", "sft", "pivotal", "dpo1", "judged", "dpo2", "export")
TWO = ("layout.fsdp=2", "sft.micro=2")
ONE = ("layout.fsdp=1", "sft.micro=4")
HELD = {"speed.jsonl": "", "answers.jsonl": ""}  # of seconds, and of batches that a kill cuts elsewhere


class Run:
    def __init__(self, base: Path, name: str, *more: str, ranks: int = 2) -> None:
        self.out = base / name
        questions, dialogs = own.write_questions(base)
        settings = [
            f"init={base / 'model'}", f"questions={questions}", f"questions.dialogs={dialogs}", *own.SMALL,
            "layout.device=cpu", "layout.timeout=30", "checkpoint.every=0.3", *(more or TWO),
        ]  # fmt: skip
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command = [
            sys.executable, *(torchrun if ranks > 1 else []), "-m", "phikit", "run", "own-model", "--out",
            str(self.out), *(x for s in settings for x in ("--set", s)),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    @property
    def ranks(self) -> list[int]:
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def step(self) -> int:
        """Of the newest whole checkpoint of SFT."""
        places = (self.out / "sft" / ".work").glob("step-*/meta.json")
        return max((int(p.parent.name.split("-")[1]) for p in places), default=0)

    def until(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + 200
        while not reached():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end
            time.sleep(0.01)

    def said(self, seconds: float = 240) -> str:
        """What it printed, once it has ended."""
        return self.process.communicate(timeout=seconds)[0]

    def kill(self, *ranks: int) -> None:
        """Without `ranks` torchrun too."""
        pids = self.ranks
        for pid in [pids[r] for r in ranks] or [self.process.pid, *pids]:
            os.kill(pid, signal.SIGKILL)

    def finish(self) -> str:
        said = self.said()
        assert self.process.returncode == 0, said
        return said

    def files(self) -> dict[str, Any]:
        read = {s: json.loads((self.out / s / "manifest.json").read_text()) for s in STAGES}
        return {s: {**m["files"], **HELD} for s, m in read.items()}

    def losses(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.out / "sft" / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("run")
    own.write_model(base / "model")
    Run(base, "quiet").finish()
    return base


@pytest.fixture
def start(base) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(name: str, *more: str, ranks: int = 2) -> Run:
        runs.append(Run(base, name, *more, ranks=ranks))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.kill()
        run.process.communicate()


def quiet(base: Path) -> Run:
    run = Run.__new__(Run)
    run.out = base / "quiet"
    return run


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_again_and_again_ends_with_the_same_files(seed, base, start):
    rng = random.Random(seed)
    name = f"killed {seed}"
    run = start(name)  # all at once
    run.until(lambda: run.step >= 5)
    time.sleep(rng.random())
    run.kill()
    run.said()
    first = run.step
    assert 5 <= first < 120

    run = start(name)  # one rank: the other says so, and torchrun ends the run
    run.until(lambda: run.step > first)
    time.sleep(rng.random())
    run.kill(seed % 2)
    said = run.said()
    assert run.process.returncode != 0
    assert f"goes on from {run.out / 'sft' / '.work'}" in said
    second = run.step
    assert first < second < 120

    run = start(name)  # Slurm's pre-emption
    run.until(lambda: run.step > second)
    time.sleep(rng.random())
    run.process.send_signal(signal.SIGTERM)
    said = run.said()
    assert "stopped in sft. The same command goes on from there" in said
    assert "FAILED" not in said
    assert second < run.step < 120

    run = start(name)  # wherever it is then
    run.until(lambda: (run.out / "sft" / "manifest.json").exists())
    time.sleep(3 * rng.random())
    if run.process.poll() is None:
        run.kill()
    run.said()
    start(name).finish()
    assert run.files() == quiet(base).files()


def test_a_run_of_two_ranks_goes_on_with_one(base, start):
    run = start("fewer")
    run.until(lambda: run.step >= 20)
    run.kill()
    run.said()
    reached = run.step
    alone = start("fewer", *ONE, ranks=1)
    assert "goes on from" in alone.finish()
    want, got = quiet(base).losses(), alone.losses()
    assert len(want) == len(got) == 120
    for a, b in zip(want, got):
        assert a == pytest.approx(b, rel=2e-5)  # of the six digits that the log keeps the last may differ
    assert want[:reached] == got[:reached]
    # What is finished stays finished, whatever ranks there are.
    said = start("fewer").finish()
    assert said.count("cached") == 10, said
