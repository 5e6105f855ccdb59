"""A worker of the pool is killed in mid-task: the task is done by another, and all bytes are those of a quiet run."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import jobs_steps
import pytest

from phikit.jobs import run
from phikit.jobs.run import ShardError, run_plan


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")
    monkeypatch.setattr(run, "PAUSE", 0.01)


def test_a_killed_worker_costs_its_task_one_try(tmp_path):
    quiet = run_plan(jobs_steps.plan(tmp_path / "quiet"), label="quiet")
    plan = jobs_steps.plan(tmp_path / "killed")
    (plan.folder / "in" / "hold-2").touch()
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(run_plan, plan, label="killed", workers=2)
        os.kill(jobs_steps.held(plan.folder, 2), signal.SIGKILL)
        results = future.result(timeout=60)
    assert results == quiet
    assert results[-1] == {"sum": sum(n * n for n in range(2000))}
    assert jobs_steps.bytes_of(plan.folder) == jobs_steps.bytes_of(tmp_path / "quiet")
    assert jobs_steps.journal(plan.folder) == ["0", "1", "2", "2", "3", "4"]


def test_a_task_that_kills_its_workers_is_given_up_and_named_and_takes_no_other_down(tmp_path):
    plan = jobs_steps.plan(tmp_path)
    (plan.folder / "in" / "poison-1").touch()
    with pytest.raises(ShardError, match=r"poisoned: square, shard 1 .*given up after 3 tries.*signal 9"):
        run_plan(plan, label="poisoned", workers=2)
    tried = jobs_steps.journal(plan.folder)
    assert tried.count("1") == 3
    assert max(tried.count(str(i)) for i in (0, 2, 3, 4)) == 1
    (plan.folder / "in" / "poison-1").unlink()
    assert run_plan(plan, label="mended", workers=2)[-1] == {"sum": sum(n * n for n in range(2000))}
    again = jobs_steps.journal(plan.folder)
    assert again.count("1") == 4
    assert all(again.count(str(i)) == 1 for i in (0, 2, 3, 4))
