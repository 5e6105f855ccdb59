"""Coverage-guided fuzzing of what reads other people's files: `python tests/fuzz/run.py --runs 350000`.

Each target runs in processes of `--batch` inputs under atheris (libFuzzer), with bounds of time and memory on every
input (`targets.py`, `worker.py`). What was learned stays in .bench/atheris-corpus and is where the next run
begins. Findings lie in .bench/atheris-findings. Prints a line of JSON for each target; the exit status is 1 where
there was a finding. The first call makes a virtual environment with atheris under .bench/.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "unit"), str(ROOT / "benchmarks")]

VERSION = "3.0.0"
SEEDS, CORPUS, FINDINGS = (ROOT / ".bench" / f"atheris-{n}" for n in ("seeds", "corpus", "findings"))
RSS_MB = 1024
STUCK = 60  # seconds of the clock of one input after which libFuzzer ends the process


def fuzz(python: Path, target: str, runs: int, batch: int, seed: int) -> dict[str, Any]:
    """Inputs, coverage and findings of one target."""
    corpus, findings = CORPUS / target, FINDINGS / target
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    before, inputs, seconds, last = set(findings.iterdir()), 0, 0.0, {}
    from targets import MAX_SIZE

    while inputs < runs:
        n = min(batch, runs - inputs)
        command = [
            python, Path(__file__).parent / "worker.py", target, corpus, SEEDS / target, f"-runs={n}", f"-seed={seed}",
            f"-max_len={MAX_SIZE}", f"-rss_limit_mb={RSS_MB}", f"-timeout={STUCK}", "-print_final_stats=1",
            f"-artifact_prefix={findings}/", "-verbosity=1", "-reload=0", "-len_control=0",
        ]  # fmt: skip
        begin = time.monotonic()
        out = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, errors="replace", cwd=ROOT
        )
        seconds += time.monotonic() - begin
        found = {k: int(v) for k, v in re.findall(r"stat::(\w+):\s+(\d+)", out.stderr)}
        ends = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", out.stderr)
        inputs += found.get("number_of_executed_units", 0)
        seed += 1
        last = (
            {"edges": int(ends[-1][0]), "features": int(ends[-1][1]), "corpus": int(ends[-1][2])}
            if ends
            else last
        )
        last["peak_rss_mb"] = max(last.get("peak_rss_mb", 0), found.get("peak_rss_mb", 0))
        if out.returncode:
            (findings / f"log-{seed}.txt").write_text((out.stdout + out.stderr)[-20_000:])
            if not found:
                raise SystemExit((out.stdout + out.stderr)[-3000:])
            break
    new = sorted(p.name for p in set(findings.iterdir()) - before)
    reached, of, missing = lines(target)
    return {
        "target": target, "inputs": inputs, "seconds": round(seconds, 1), **last, "lines": reached, "lines_of": of,
        "not_reached": missing, "findings": new,
    }  # fmt: skip


def lines(target: str) -> tuple[int, int, list[str]]:
    """Lines inside the functions of the target's files that its corpus reaches, of how many, and the others."""
    import targets

    source = ROOT / "src" / "phikit"
    files = {str(source / f) for f in targets.FILES[target]}
    reached: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        for path in sorted([*(SEEDS / target).iterdir(), *(CORPUS / target).iterdir()]):
            targets.run(target, path.read_bytes())
    finally:
        sys.settrace(None)
    every = {(f, n) for f in files for n in _body_lines(compile(Path(f).read_text(), f, "exec"))}
    missing = sorted(f"{Path(f).name}:{n}" for f, n in every - reached)
    return len(every & reached), len(every), missing


def _body_lines(code: CodeType) -> set[int]:
    """Lines of all functions; those of modules and classes ran at import."""
    found: set[int] = set()
    for inner in (c for c in code.co_consts if isinstance(c, CodeType)):
        if inner.co_flags & 2:  # CO_NEWLOCALS: a function
            first = inner.co_firstlineno
            found |= {n for _, _, n in inner.co_lines() if n is not None and n != first}
        found |= _body_lines(inner)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=350_000, help="inputs of each target")
    parser.add_argument("--batch", type=int, default=50_000, help="inputs of one process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=("gguf", "safetensors", "tokenizer"))
    args = parser.parse_args()
    from _peers import peer_python  # type: ignore[import-not-found]  # (benchmarks/)

    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["RUST_BACKTRACE"] = (
        "0"  # the backend's panics are caught, and their traces take most of the time
    )
    python = peer_python("atheris", "atheris", VERSION)
    if not SEEDS.exists():
        from seeds import write_seeds

        write_seeds(SEEDS)
    found = 0
    for target in [args.target] if args.target else ["gguf", "safetensors", "tokenizer"]:
        row = fuzz(python, target, args.runs, args.batch, args.seed)
        found += len(row["findings"])
        print(json.dumps(row), flush=True)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
