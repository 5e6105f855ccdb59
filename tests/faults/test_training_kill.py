"""kill -9 in the middle of a training stage, or a full disk, and run again: the artifact is that of a quiet run, byte
for byte."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS = 30
# A stage as recipe/training.py writes one, without a recipe around it. PAUSE makes a step take long enough to be hit.
STAGE = """
import os, sys, time
from pathlib import Path
import numpy as np
from phikit.mixture.loader import Loader, PackedSource
from phikit.mixture.order import Phase
from phikit.mixture.shards import make_shard
from phikit.model.config import ModelConfig
from phikit.model.hf import save_hf
from phikit.model.layout import Layout
from phikit.model.transformer import build
from phikit.records import artifact
from phikit.text.tokenizer import Tokenizer
from phikit.train.objectives import LanguageModeling
from phikit.train.optim import OptimConfig
from phikit.train.metrics import write_log
from phikit.train.trainer import TrainConfig, Trainer

out = Path(sys.argv[1])
pause = float(os.environ.get("PAUSE", "0"))
tokenizer = Tokenizer.train(["user system assistant: it is the best, yes! What is 3 + 4? " * 3], 290)
rng = np.random.default_rng(0)
shard = make_shard((rng.integers(0, 256, n).tolist(), [100] * n) for n in rng.integers(4, 40, 50))
loader = Loader({"a": PackedSource(shard, 32, 0)}, [Phase(1000, {"a": 1.0})], 1, tokenizer.pad)

class Slow(LanguageModeling):
    def count(self, batch):
        time.sleep(pause)
        return super().count(batch)

model = build(ModelConfig(tokenizer.vocab_size, 16, 2, 2, 1, 24, 32), 0)
config = TrainConfig(STEPS, 4, 2, OptimConfig("muon", lr=3e-3), layout=Layout(precision="bf16"), checkpoint_seconds=0.0)
trainer = Trainer(model, Slow(), loader, config, out / ".work")
print("begins at", trainer.step, flush=True)
log = trainer.run("x")
save_hf(trainer.network(), tokenizer, out / "hf")
write_log(out / "metrics.jsonl", log)
counts = {"steps": trainer.step, "loss_last": log[-1]["loss"]}
artifact.seal(out, stage="pretrain", fingerprint="f", config={}, inputs={}, counts=counts)
""".replace("STEPS", str(STEPS))


def start(out: Path, **env: str) -> subprocess.Popen:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"), "PHIKIT_QUIET": "1", "OMP_NUM_THREADS": "1", **env,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", STAGE, str(out)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    return out


def newest(out: Path) -> int:
    return max(
        (int(p.parent.name.split("-")[1]) for p in (out / ".work").glob("step-*/meta.json")), default=0
    )


def test_a_killed_training_stage_ends_with_the_same_manifest(tmp_path):
    quiet = start(tmp_path / "quiet")
    assert "begins at 0" in finish(quiet)
    want = (tmp_path / "quiet" / "manifest.json").read_bytes()

    out = tmp_path / "killed"
    for least in (3, 12):
        process = start(out, PAUSE="0.05")
        end = time.monotonic() + 100
        while newest(out) < least:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (out / "manifest.json").exists()
    reached = newest(out)
    assert 12 <= reached < STEPS
    begun = int(finish(start(out)).split()[-1])
    assert 12 <= begun <= reached
    assert (out / "manifest.json").read_bytes() == want


# In namespaces of its own: a file system of $2 bytes at $1, which grows to $3 for the second run.
SMALL_DISK = """
mount -t tmpfs -o size=$2 none "$1" || exit 77
"$4" -c "$5" "$1"
echo "rc $?, left: $(cd "$1/.work" && ls -d step-*/meta.json | wc -l) whole of $(ls "$1/.work" | wc -l)"
mount -o remount,size=$3 "$1" && "$4" -c "$5" "$1" && cp "$1/manifest.json" "$1/../kept.json"
"""


def test_a_full_disk_stops_with_a_word_and_keeps_the_checkpoint_before(tmp_path):
    if not shutil.which("unshare"):
        pytest.skip("needs namespaces of Linux for a small file system")
    quiet = start(tmp_path / "quiet")
    finish(quiet)
    (last,) = (tmp_path / "quiet" / ".work").glob(f"step-{STEPS - 1:08d}")
    size = sum(-(-p.stat().st_size // 4096) * 4096 for p in last.iterdir())
    (tmp_path / "disk").mkdir()
    command = [
        "unshare", "-Urm", "sh", "-c", SMALL_DISK, "sh", str(tmp_path / "disk"), str(size + size // 2),
        str(8 * size + (1 << 20)), sys.executable, STAGE,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PHIKIT_QUIET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"no file system of one's own here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OSError: [Errno 28] rank 0 could not write its part of a checkpoint: No space" in done.stderr
    assert "begins at 0\nrc 1, left: 1 whole of 1\nbegins at 1\n" in done.stdout
    assert (tmp_path / "kept.json").read_bytes() == (tmp_path / "quiet" / "manifest.json").read_bytes()
