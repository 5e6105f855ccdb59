"""Weights that FSDP2 gathers in fp8, on two gloo ranks in emulation: the curve of one rank, checkpoints in fp32."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
import torch.distributed as dist
from phikit.model import fp8
from phikit.model.config import ModelConfig
from phikit.model.layout import Layout
from phikit.model.logprob import weighted_nll
from phikit.model.parallel import shard, whole_network
from phikit.model.ranks import Ranks, leave
from phikit.model.transformer import build
from phikit.train import checkpoint
from phikit.train.optim import OptimConfig, Optimizers

torch.set_num_threads(1)
out, config = Path(sys.argv[1]), ModelConfig(320, 64, 2, 4, 2, 96, 64, init_std=0.1)
ranks = Ranks(Layout(fsdp=int(os.environ.get("WORLD_SIZE", "1")), device="cpu"))
model = build(config, 0)
several = ranks.shards is not None
fp8.convert(model, gathered=several, emulate=True)
if several:
    shard(model, ranks.shards, ranks.layout, False)
optimizers, losses = Optimizers(model, OptimConfig(lr=1e-3)), []
for step in range(4):
    rows = torch.randint(0, 320, (2, 64), generator=torch.Generator().manual_seed(step))
    own = rows[ranks.rank :: ranks.layout.fsdp]
    hidden = model(own, torch.arange(64).expand(len(own), 64), None)[:, :-1].flatten(0, 1)
    loss = weighted_nll(hidden, model.head_weight, own[:, 1:].flatten(), torch.ones(len(hidden))) / (2 * 63)
    loss.backward()
    optimizers.step(1.0)
    if several:
        fp8.prepare(model)
    losses += ranks.sum([loss.detach()])
state = {n: p.detach() for n, p in model.named_parameters()}
place = out / f"checkpoint-{ranks.layout.fsdp}"
place.mkdir(exist_ok=True)
checkpoint.write_tensors(place, state, ranks).result()
before = whole_network(model, ranks)
kept = {n: p.clone() for n, p in before.state_dict().items()} if before else {}
with torch.no_grad():
    for p in model.parameters():
        p.zero_()
checkpoint.read_tensors(place, state, ranks)
after = whole_network(model, ranks)
if after:
    same = all(torch.equal(kept[n], p) and p.dtype == torch.float32 for n, p in after.state_dict().items())
    (out / f"{ranks.layout.fsdp}.json").write_text(json.dumps({"losses": losses, "same": same}))
ranks.wait()
leave()
"""


def test_weights_gathered_in_fp8_give_the_curve_of_one_rank(tmp_path):
    pytest.importorskip("torchao", reason="torchao is not installed: phikit[fp8]")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for start in ([], torchrun):
        done = subprocess.run(
            [sys.executable, *start, str(script), str(tmp_path)],
            env=environment, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2))
    # Scales of inputs and gradients are those of a rank's own rows.
    assert two["losses"] == pytest.approx(one["losses"], rel=2e-3)
    assert one["same"]
    assert two["same"]
