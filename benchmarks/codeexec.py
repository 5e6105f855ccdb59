"""Programs per second: HumanEval's canonical solutions with their tests, in the sandbox and in a bare subprocess.

The peer is what human-eval and evalplus do at best: the same program and the same tests in a fresh interpreter with a
time limit, without isolation. Both sides run the same programs with the same number of threads, turn and turn about.
They must agree on every program: the canonical solutions pass, and programs known to be wrong (the body replaced by
`return None`) fail. Bound: what a start of the interpreter costs the peer over what it costs the sandbox."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _transformers import alternate, interval

from phikit.records.io import read_jsonl
from phikit.verify import code, sandbox
from phikit.verify.sandbox import Limits

DATA = Path(__file__).parents[2] / "shared/data/benchmarks/humaneval/HumanEval.jsonl.gz"
GOAL = 0.5
Program = tuple[str, str]  # program, tests


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--programs", type=int, default=24, help="of a round, spread over the set; 0: all 164"
    )
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--check", action="store_true", help="first run every canonical and every wrong program"
    )
    a = parser.parse_args()
    if not DATA.is_file():
        print(f"{DATA.name} is not here")
        return 2
    if reason := sandbox.available():
        print(f"no sandbox: {reason}")
        return 2
    rows = list(read_jsonl(DATA))
    right = [(r["prompt"] + r["canonical_solution"], _tests(r)) for r in rows]
    wrong = [(r["prompt"] + "    return None\n", _tests(r)) for r in rows]
    agree = True
    if a.check:
        passed, failed = (sum(_map(sandboxed, some, os.cpu_count() or 1)) for some in (right, wrong))
        print(f"canonical: {passed} of {len(right)} pass; `return None`: {failed} of {len(wrong)} pass")
        agree = passed == len(right) and failed == 0
    step = max(1, len(right) // (a.programs or len(right)))
    some = [*right[::step][: a.programs or len(right)]]
    some += wrong[::step][: max(1, len(some) // 4)]
    expected = [p in right for p in some]

    def timed(run: Callable[[Program], bool]) -> Callable[[int], float]:
        def call(_: int) -> float:
            nonlocal agree
            begin = time.perf_counter()
            agree &= _map(run, some, a.threads) == expected
            return time.perf_counter() - begin

        return call

    for p in some[:2]:  # warm: file caches, the sandbox's own probe
        sandboxed(p)
        bare(p)
    pairs = alternate(timed(sandboxed), timed(bare), a.pairs)
    low, ratio, high = interval([theirs / ours for ours, theirs in pairs])
    starts = alternate(
        _start(lambda: sandbox.run("pass", limits=Limits(cpu_seconds=2))), _start(lambda: _python("pass")), 10
    )
    ours_start, peer_start = (statistics.median(x) for x in zip(*starts))
    ours = len(some) / statistics.median(o for o, _ in pairs)
    peer = len(some) / statistics.median(p for _, p in pairs)
    print(
        f"{len(some)} programs, {a.threads} threads: {ours:.1f}/s in the sandbox, {peer:.1f}/s bare: {ratio:.2f}x "
        f"[{low:.2f}, {high:.2f}]; an empty program takes {1000 * ours_start:.0f} ms and {1000 * peer_start:.0f} ms"
    )
    row = {
        "name": "codeexec", "ours": round(ours, 2), "peer": round(peer, 2), "peer_name": "bare subprocess",
        "peer_version": sys.version.split()[0], "unit": "programs/s", "ratio": round(ratio, 3), "low": round(low, 3),
        "high": round(high, 3), "start_ms": round(1000 * ours_start, 1), "peer_start_ms": round(1000 * peer_start, 1),
        "agree": agree, "n": len(pairs), "programs": len(some), "threads": a.threads, "goal": ratio >= GOAL,
    }  # fmt: skip
    print(json.dumps(row))
    return 0 if agree else 1


def sandboxed(program: Program) -> bool:
    return code.run_tests(*program, timeout=5).verdict == "right"


def bare(program: Program) -> bool:
    """The peer: the same in a fresh interpreter, its exit code the verdict."""
    return _python("\n".join(program)).returncode == 0


def _python(source: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-S", "-s", "-"]  # as light as the sandbox's own
    return subprocess.run(command, input=source.encode(), capture_output=True, timeout=50)


def _tests(row: dict) -> str:
    return f"{row['test']}\ncheck({row['entry_point']})\n"


def _map(run: Callable[[Program], bool], programs: Sequence[Program], threads: int) -> list[bool]:
    if threads == 1:
        return [run(p) for p in programs]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, programs))


def _start(call: Callable[[], object]) -> Callable[[int], float]:
    def timed(_: int) -> float:
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin

    return timed


if __name__ == "__main__":
    sys.exit(main())
