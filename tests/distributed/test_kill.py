"""kill -9 of one rank or of all at random moments, ranks that hang, and ranks that fail alone: who is left says whom it
misses and ends; the same command ends with the weights of a quiet run, to the last bit. gloo, tiny network."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "ranks.py"
STEPS = 24
TWO: dict[str, Any] = {"fsdp": 2, "timeout": 6}
pytestmark = pytest.mark.slow


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


class Run:
    """Ranks without torchrun, which would end the others as soon as one is gone."""

    def __init__(self, out: Path, case: dict[str, Any], ranks: int = 2) -> None:
        self.work = out / case.get("work", case["name"])
        environment = os.environ | {
            "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(),
        }  # fmt: skip
        self.ranks = [
            subprocess.Popen(
                [sys.executable, str(SCRIPT), str(out), json.dumps([case])], env=environment | {"RANK": str(r)},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for r in range(ranks)
        ]  # fmt: skip

    def until(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not reached():
            assert all(p.poll() is None for p in self.ranks), [p.communicate() for p in self.ranks]
            assert time.monotonic() < end
            time.sleep(0.002)

    def end(self, rank: int) -> str:
        """Its errors, once it has ended by itself."""
        return self.ranks[rank].communicate(timeout=60)[1]

    def finish(self) -> None:
        for r, p in enumerate(self.ranks):
            assert self.end(r) is not None
            assert p.returncode == 0

    def kill(self) -> None:
        for p in self.ranks:
            p.kill()
            p.communicate()


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(**case: Any) -> Run:
        ranks = case.pop("ranks", 2)
        runs.append(Run(tmp_path, {"steps": STEPS, "always": True, **case}, ranks))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()


def newest(work: Path) -> int:
    """The newest checkpoint that was ended."""
    return max((int(p.parent.name.split("-")[1]) for p in work.glob("step-*/meta.json")), default=0)


def under_way(work: Path) -> bool:
    """A checkpoint's files are being written."""
    return any(not (p.parent / "meta.json").exists() for p in work.glob("step-*/*.safetensors"))


def damage(work: Path) -> int:
    """Changes a bit of one rank's file of the newest checkpoint; the step of the one before."""
    before, last = sorted(p.parent for p in work.glob("step-*/meta.json"))[-2:]
    file = max(last.glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    return int(before.name.split("-")[1])


def read(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / f"{name}.json").read_text())


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_random_moments_change_no_bit(seed, start, tmp_path):
    rng = random.Random(seed)
    start(name="quiet", layout=TWO).finish()
    want = read(tmp_path, "quiet")
    for times, (victims, least) in enumerate([([0, 1], 2), ([seed % 2], 6), ([1 - seed % 2], 11)]):
        run = start(name="killed", layout=TWO, pause=0.02)
        run.until(lambda: newest(run.work) >= least)  # noqa: B023
        if times == 1:
            run.until(lambda: under_way(run.work))  # noqa: B023
        else:
            time.sleep(rng.random() / 10)
        for v in victims:
            run.ranks[v].send_signal(signal.SIGKILL)
        for rank in {0, 1} - set(victims):
            begun = time.monotonic()
            said = run.end(rank)
            assert time.monotonic() - begun < 30
            assert run.ranks[rank].returncode not in (0, -signal.SIGKILL)
            assert "RankLost: ranks, step" in said or "RankLost: ranks, its last checkpoint" in said
            # Without torchrun the store is in rank 0.
            assert ("rank 0: the store at" if victims == [0] else f"rank {victims[0]} (") in said
        run.kill()
        assert least <= newest(run.work) < STEPS
    shutil.copytree(tmp_path / "killed", tmp_path / "alone")
    reached = newest(tmp_path / "killed")
    before = damage(tmp_path / "killed")
    start(name="killed", layout=TWO).finish()
    got = read(tmp_path, "killed")
    assert got["first"] == before < reached
    assert got["bits"] == want["bits"]
    assert got["log"] == want["log"]

    start(name="alone", ranks=1).finish()
    one = read(tmp_path, "alone")
    assert one["first"] == reached
    for a, b in zip(one["log"], want["log"], strict=True):
        assert a == pytest.approx(b, rel=1e-6, abs=1e-6)


def test_a_rank_that_hangs_is_named_when_time_is_out(start):
    run = start(name="hangs", layout=TWO, pause=0.02)
    run.until(lambda: newest(run.work) >= 2)
    run.ranks[1].send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    said = run.end(0)
    assert TWO["timeout"] <= time.monotonic() - begun + 1 < 4 * TWO["timeout"]
    assert run.ranks[0].returncode == 1
    assert f"rank 1 ({socket.gethostname()}, process {run.ranks[1].pid}) does not answer" in said


def test_a_rank_that_waits_for_its_rows_is_named(start):
    run = start(name="waits", layout=TWO, kind="stuck")
    said = run.end(0)
    who = f"rank 1 ({socket.gethostname()}, process {run.ranks[1].pid})"
    assert f"RankLost: ranks, step 3: {who} is at ranks, rows of step 3" in said


def test_the_error_of_one_rank_is_told_by_the_other(start):
    run = start(name="fails", layout=TWO, kind="failing")
    said = run.end(0)
    assert f"process {run.ranks[1].pid}) ended: OSError: [Errno 28] No space left on device" in said
    assert "OSError: [Errno 28]" in run.end(1)


@pytest.fixture
def torchrun(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    processes = []

    def begin(case: dict[str, Any], *options: str) -> subprocess.Popen:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            *options,
        ]
        processes.append(
            subprocess.Popen(
                [*command, str(SCRIPT), str(tmp_path), json.dumps([case])],
                env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        wait_for(lambda: newest(tmp_path / case["name"]) >= 5, processes[-1])
        return processes[-1]

    yield begin
    for p in processes:
        p.terminate()
        p.communicate()


def wait_for(reached: Callable[[], bool], process: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_torchrun_starts_killed_ranks_again(start, torchrun, tmp_path):
    start(name="quiet", layout=TWO).finish()
    case = {"name": "again", "steps": STEPS, "always": True, "layout": TWO, "pause": 0.02}
    process = torchrun(case, "--max-restarts", "1", "--monitor-interval", "0.2")
    os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    got, want = read(tmp_path, "again"), read(tmp_path, "quiet")
    assert got["first"] >= 5
    assert (got["bits"], got["log"]) == (want["bits"], want["log"])


def test_torchrun_hands_sigterm_on_and_all_ranks_save(torchrun, tmp_path):
    case = {"name": "stopped", "steps": 10_000, "always": True, "layout": TWO, "pause": 0.02}
    process = torchrun(case, "--shutdown-timeout", "60")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    assert read(tmp_path, "stopped")["stopped"] == newest(tmp_path / "stopped") >= 5
