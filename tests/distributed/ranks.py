"""Started by torchrun in the tests of this folder: trains a tiny network on the layout that is asked for.

ranks.py OUT JSON   JSON: a list of {"name", "work", "layout", "kind", "steps", "stop", "micro", "skip", "tied",
                    "kv", "backend", "pause", "always"}; rank 0 writes OUT/<name>.json, checkpoints go to OUT/<work,
                    else name>, always: one after each step; each rank writes its process to OUT/pid-<rank>
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from phikit.mixture.loader import Loader, PackedSource
from phikit.mixture.order import Phase
from phikit.mixture.shards import TokenShard, make_shard
from phikit.model.config import ModelConfig
from phikit.model.layout import Layout
from phikit.model.transformer import build
from phikit.records import Preference, turns
from phikit.text.tokenizer import Tokenizer
from phikit.train.objectives import DirectPreference, DPOConfig, LanguageModeling
from phikit.train.optim import OptimConfig
from phikit.train.pairs import PairRows
from phikit.train.trainer import Interrupted, NonFinite, TrainConfig, Trainer

COMPILE = torch.compile
TOKENIZER = Tokenizer.train(["user system assistant: it is the best, yes! What is 3 + 4? " * 3], 290)
VOCAB = -(-TOKENIZER.vocab_size // 4) * 4


def language_rows() -> Loader:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 40, 60)
    shard = make_shard((rng.integers(0, 256, n).tolist(), [100] * n) for n in lengths)
    weights = rng.choice([0, 30, 100], len(shard.tokens)).astype(np.uint8)
    source = PackedSource(TokenShard(shard.tokens, weights, shard.offsets), 32, 0)
    return Loader({"a": source}, [Phase(10_000, {"a": 1.0})], 5, TOKENIZER.pad)


def pair_rows() -> PairRows:
    rng = np.random.default_rng(1)
    pairs = []
    for i in range(12):
        sides = [tuple(rng.integers(0, 256, int(rng.integers(1, 6))).tolist()) for _ in range(2)]
        prompt = turns(("user", f"What is {i // 2}?"))
        pairs.append(Preference(prompt, tuple(rng.integers(0, 256, 3).tolist()), *sides, "a", "b", "judged"))
    return PairRows(pairs, TOKENIZER, 64, seed=3)


class Poisoned(LanguageModeling):
    """The loss of one step is no number on one rank."""

    def share(self, rows, first, count, micro, ranks):
        share = super().share(rows, first, count, micro, ranks)
        if first == 2 * count and ranks.rank == ranks.layout.ranks - 1:
            share.parts[0].weight[:] = np.nan
        return share


class Stopping(LanguageModeling):
    """One rank alone gets the signal."""

    def __init__(self, at: int) -> None:
        self.at = at

    def share(self, rows, first, count, micro, ranks):
        if first == self.at * count and ranks.rank == ranks.layout.ranks - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().share(rows, first, count, micro, ranks)


class Paused(LanguageModeling):
    """Steps that take long enough to be hit."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def count(self, batch) -> float:
        time.sleep(self.seconds)
        return super().count(batch)


class Failing(LanguageModeling):
    """One rank has an error of its own, or waits for ever for its rows."""

    def __init__(self, stuck: bool) -> None:
        self.stuck = stuck

    def share(self, rows, first, count, micro, ranks):
        if first == 2 * count and ranks.rank == 1:
            if self.stuck:
                signal.pause()
            raise OSError(28, "No space left on device")
        return super().share(rows, first, count, micro, ranks)


def main() -> None:
    torch.set_num_threads(1)
    (Path(sys.argv[1]) / f"pid-{os.environ.get('RANK', '0')}").write_text(str(os.getpid()))
    os.environ["PHIKIT_QUIET"] = "1"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the trainer's own handler is what is tested
    for case in json.loads(sys.argv[2]):
        train(Path(sys.argv[1]), case)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def train(out: Path, case: dict) -> None:
    layout = Layout(device="cpu", **case.get("layout", {}))
    kind, steps = case.get("kind", "language"), case.get("steps", 4)
    if "backend" in case:  # of the compiler: its own takes minutes on a CPU
        torch.compile = partial(COMPILE, backend=case["backend"])
    kv, tied = case.get("kv", 4), case.get("tied", False)
    model = build(ModelConfig(VOCAB, 32, 2, 4, kv, 48, 64, init_std=0.1, tied=tied), 0)
    rows = pair_rows() if kind == "pairs" else language_rows()
    objective: LanguageModeling | DirectPreference
    if kind == "pairs":
        objective = DirectPreference(DPOConfig(nll_weight=0.2))
    elif kind == "poisoned":
        objective = Poisoned()
    elif kind in ("failing", "stuck"):
        objective = Failing(kind == "stuck")
    elif "pause" in case:
        objective = Paused(case["pause"])
    else:
        objective = Stopping(case["stop"]) if "stop" in case else LanguageModeling()
    config = TrainConfig(
        steps, 8 if kind != "pairs" else 6, case.get("micro", 2), OptimConfig(lr=3e-3), layout=layout,
        skip=case.get("skip", 0), checkpoint_seconds=0.0 if case.get("always") else 60.0,
    )  # fmt: skip
    trainer = Trainer(model, objective, rows, config, out / case.get("work", case["name"]))
    result: dict = {"first": trainer.step, "initial": digest(trainer)}
    try:
        trainer.run("ranks")
    except Interrupted:
        result["stopped"] = trainer.step
    except NonFinite as e:
        result["error"] = str(e)
    result |= {"log": trainer.log, "skipped": trainer.skipped}
    network = trainer.network()
    if network is not None:
        bits = b"".join(p.detach().numpy().tobytes() for p in network.parameters())
        result["bits"] = hashlib.sha256(bits).hexdigest()
        result["weights"] = {n: p.double().sum().item() for n, p in network.named_parameters()}
        (out / f"{case['name']}.json").write_text(json.dumps(result))
    trainer.ranks.wait()


def digest(trainer: Trainer) -> dict[str, float]:
    """A sum over each whole parameter that tells permutations apart."""
    found = {}
    for name, p in trainer.model.named_parameters():
        full = (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().double().flatten()
        found[name] = float((full * torch.arange(1, len(full) + 1).double().sin()).sum())
    return found


if __name__ == "__main__":
    main()
