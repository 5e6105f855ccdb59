"""The same losses, gradients and weights on any layout, and a resume on another number of ranks. gloo, tiny network.

All cases of one number of ranks run in one launch: starting the processes takes longer than training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "ranks.py"
LAYOUTS: dict[str, dict[str, Any]] = {
    "fsdp2": {"fsdp": 2}, "tp2": {"tp": 2}, "cp2": {"cp": 2}, "replicas2": {"replicas": 2},
    "recompute2": {"fsdp": 2, "recompute": "blocks"},
    "fsdp2-tp2": {"fsdp": 2, "tp": 2}, "fsdp2-cp2": {"fsdp": 2, "cp": 2}, "cp2-tp2": {"cp": 2, "tp": 2},
    "fsdp2-replicas2": {"fsdp": 2, "replicas": 2}, "fsdp4": {"fsdp": 4},
}  # fmt: skip
PAIRS = ("fsdp2", "tp2", "fsdp2-tp2")
TIED = ("fsdp2", "tp2")
GROUPED = ("tp2", "cp2", "fsdp2-tp2", "fsdp2-cp2")  # two query heads share a KV head, as in Phi-4 four do
SPLIT = ("tp2", "cp2", "fsdp2-cp2")  # into forward passes of one row
ALONE = [
    {"name": "language"}, {"name": "pairs", "kind": "pairs"}, {"name": "tied", "tied": True},
    {"name": "grouped", "kv": 2}, {"name": "micro8", "micro": 8}, {"name": "six", "steps": 6},
    {"name": "stopped on 1", "work": "1 to 4", "steps": 6, "stop": 2},
]  # fmt: skip


def ranks_of(layout: dict[str, Any]) -> int:
    n = 1
    for degree in layout.values():
        n *= degree if isinstance(degree, int) else 1
    return n


def cases(ranks: int) -> list[dict[str, Any]]:
    own = {k: v for k, v in LAYOUTS.items() if ranks_of(v) == ranks}
    found: list[dict[str, Any]] = [{"name": k, "layout": v} for k, v in own.items()]
    found += [{"name": f"pairs {k}", "kind": "pairs", "layout": own[k]} for k in PAIRS if k in own]
    found += [{"name": f"tied {k}", "tied": True, "layout": own[k]} for k in TIED if k in own]
    found += [{"name": f"grouped {k}", "kv": 2, "layout": own[k]} for k in GROUPED if k in own]
    found += [{"name": f"split {k}", "micro": 1, "layout": own[k]} for k in SPLIT if k in own]
    if ranks == 2:
        two = {"fsdp": 2}
        found += [
            {"name": "micro1", "micro": 1, "layout": two},
            {"name": "stopped on 2", "work": "2 to 1", "steps": 6, "stop": 2, "layout": two},
            {"name": "poisoned", "kind": "poisoned", "layout": two},
            {"name": "passed", "kind": "poisoned", "skip": 1, "layout": two},
        ]
    else:
        found.append({"name": "goes on with 4", "work": "1 to 4", "steps": 6, "layout": LAYOUTS["fsdp2-tp2"]})
    return found


def launch(out: Path, ranks: int, todo: list[dict[str, Any]]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    torchrun = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    )
    done = subprocess.run(
        [sys.executable, *torchrun, str(SCRIPT), str(out), json.dumps(todo)],
        env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("ranks")
    launch(out, 1, ALONE)
    launch(out, 2, cases(2))
    launch(out, 4, cases(4))
    launch(out, 1, [{"name": "goes on with 1", "work": "2 to 1", "steps": 6}])
    return out


def read(runs: Path, name: str) -> dict[str, Any]:
    return json.loads((runs / f"{name}.json").read_text())


def close(got: dict[str, Any], want: dict[str, Any], steps: int = 4) -> None:
    assert len(got["log"]) == len(want["log"]) == steps
    for a, b in zip(got["log"], want["log"]):
        assert a.keys() == b.keys()
        assert a["tokens"] == b["tokens"]
        for key in a.keys() - {"tokens"}:
            assert a[key] == pytest.approx(b[key], rel=1e-6, abs=1e-6), (key, a, b)
    assert got["weights"] == pytest.approx(want["weights"], abs=2e-4)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_curve_and_initial_weights_on_any_layout(name, runs):
    got, want = read(runs, name), read(runs, "language")
    assert got["initial"] == pytest.approx(want["initial"], rel=1e-12)
    close(got, want)


@pytest.mark.parametrize("name", PAIRS)
def test_preference_pairs(name, runs):
    close(read(runs, f"pairs {name}"), read(runs, "pairs"))


@pytest.mark.parametrize("name", TIED)
def test_tied_embeddings(name, runs):
    close(read(runs, f"tied {name}"), read(runs, "tied"))


@pytest.mark.parametrize("name", GROUPED)
def test_query_heads_that_share_a_kv_head(name, runs):
    close(read(runs, f"grouped {name}"), read(runs, "grouped"))


def test_the_split_into_forward_passes_changes_nothing(runs):
    close(read(runs, "micro1"), read(runs, "micro8"))
    close(read(runs, "micro8"), read(runs, "language"))
    for name in SPLIT:
        close(read(runs, f"split {name}"), read(runs, "language"))


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 4)])
def test_a_stopped_run_goes_on_with_other_ranks(first, then, runs):
    """The signal reaches one rank alone; all stop after the same step."""
    assert read(runs, f"stopped on {first}")["stopped"] == 3
    again = read(runs, f"goes on with {then}")
    assert again["first"] == 3
    close(again, read(runs, "six"), steps=6)


def test_one_rank_has_a_loss_that_is_no_number(runs):
    stopped, passed = read(runs, "poisoned"), read(runs, "passed")
    assert stopped["error"].startswith("step 2: loss nan, gradient norm nan; rows from ['a']")
    assert len(stopped["log"]) == 2
    assert [r["step"] for r in passed["log"]] == [1, 2, 4]
    row = json.loads((runs / "passed" / "skipped-1.jsonl").read_text())
    assert (row["step"], row["passes"], len(row["rows"])) == (3, [0], 2)
    other = json.loads((runs / "passed" / "skipped-0.jsonl").read_text())
    assert (other["passes"], len(other["rows"])) == ([], 4)
