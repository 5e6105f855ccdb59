"""Wall time of `phikit --help`, median of 20 runs, against the goal of 0.25 s."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

GOAL = 0.25  # seconds
RUNS = 20
# The median lies between these order statistics (from 0) of 20 runs with 95.9 % confidence.
LOW, HIGH = 5, 14
BUSY = 1.5  # wall over CPU time: above it the runs waited for a core, and the ratio says little


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    program = Path(sys.executable).with_name("phikit")
    if not program.is_file():
        print(f"{program} is not there: install phikit in this environment (make setup)", file=sys.stderr)
        return 2
    command = [str(program), "--help"]
    _seconds(command)  # reads files into the page cache and compiles modules
    runs = [_seconds(command) for _ in range(RUNS)]
    seconds = sorted(s for s, _, _ in runs)
    median, cpu = statistics.median(seconds), statistics.median(c for _, c, _ in runs)
    print(
        f"phikit --help: {median:.3f} s [{seconds[LOW]:.3f}, {seconds[HIGH]:.3f}], goal {GOAL} s; CPU {cpu:.3f} s"
    )
    if median > BUSY * cpu:
        print("the machine was busy: the runs waited for a core, measure again when it is quiet")
    row = {
        "name": "start", "ours": round(median, 4), "peer": GOAL, "peer_name": "goal", "peer_version": "",
        "unit": "s", "ratio": round(GOAL / median, 3), "low": round(GOAL / seconds[HIGH], 3),
        "high": round(GOAL / seconds[LOW], 3), "cpu": round(cpu, 4),
        "agree": all(good for _, _, good in runs), "n": RUNS,
    }  # fmt: skip
    print(json.dumps(row))
    return 0


def _seconds(command: list[str]) -> tuple[float, float, bool]:
    """Wall and CPU seconds of one run, and whether it printed the help."""
    before, begin = _child_cpu(), time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wall = time.perf_counter() - begin
    return wall, _child_cpu() - before, done.returncode == 0 and "Usage: phikit" in done.stdout


def _child_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
