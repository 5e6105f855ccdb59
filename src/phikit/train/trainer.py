"""The one trainer: pretraining, midtraining, SFT and both DPO rounds are this loop with other rows.

A step: take its rows, sum their counts, for each micro-batch back-propagate `objective.total / count of the whole
step`, clip, check that everything is finite, step the optimizers, log one line. Nothing else happens here.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from phikit.jobs.progress import bar
from phikit.model.transformer import Transformer
from phikit.records.ids import seed_of
from phikit.records.io import write_text
from phikit.train import checkpoint
from phikit.train.objectives import DirectPreference, LanguageModeling, Rows
from phikit.train.optim import OptimConfig, Optimizers, lr_factor


@dataclass(frozen=True)
class TrainConfig:
    """`rows` a step (pairs, in DPO), `micro` rows of context tokens in one forward pass; `precision` bf16 keeps
    fp32 master weights."""

    steps: int
    rows: int
    micro: int
    optim: OptimConfig = field(default_factory=OptimConfig)
    warmup: float = 0.02
    decay: float = 0.98
    final_lr: float = 0.0
    clip: float = 1.0
    precision: str = "bf16"
    checkpoint_seconds: float = 60.0
    seed: int = 0


class Interrupted(RuntimeError):
    """A signal ended the run; the state was saved, the same command goes on from there."""


class NonFinite(ValueError):
    """A loss or gradient that is not a number; names the step and the sources of its rows."""


class Trainer:
    def __init__(
        self,
        model: Transformer,
        objective: LanguageModeling | DirectPreference,
        rows: Rows,
        config: TrainConfig,
        work: Path,
        optim_state: list[dict] | None = None,
    ) -> None:
        """`work` holds checkpoints of an unfinished run; `optim_state` are moments kept from an earlier stage."""
        self.model, self.objective, self.rows, self.config, self.work = model, objective, rows, config, work
        self.optimizers = Optimizers(model, config.optim)
        if optim_state is not None:
            self.optimizers.load_state_dict(optim_state)
        self.step, self.tokens, self.log = 0, 0, []
        if state := checkpoint.load(work):
            _restore(model, state["model"])
            self.optimizers.load_state_dict(state["optim"])
            self.step, self.tokens, self.log = state["step"], state["tokens"], json.loads(state["log"])

    def run(self, label: str) -> list[dict[str, Any]]:
        """Trains to `config.steps`; returns the log rows (step, tokens, loss, lr, grad_norm, shown sums)."""
        c = self.config
        saved = time.monotonic()
        self.model.train()
        with _signals() as stop, bar(label, total=c.steps, unit="steps") as b:
            b.advance(self.step)
            while self.step < c.steps:
                row = self._step()
                b.advance(1, loss=f"{row['loss']:.3f}")
                late = time.monotonic() - saved >= c.checkpoint_seconds
                if stop.requested or (late and self.step < c.steps):
                    self.save()
                    saved = time.monotonic()
                if stop.requested:
                    raise Interrupted(
                        f"{label} was stopped at step {self.step} of {c.steps}; its state is saved"
                    )
        return self.log

    def _step(self) -> dict[str, Any]:
        c = self.config
        torch.manual_seed(seed_of(c.seed, self.step))  # dropout of a resumed run is that of an unbroken one
        batch = self.rows.batch(self.step * c.rows, c.rows)
        count = max(self.objective.count(batch), 1e-9)
        total, shown, tokens = 0.0, {}, 0
        for part in batch.parts(c.micro):
            with torch.autocast("cpu", torch.bfloat16, enabled=c.precision == "bf16"):
                sums = self.objective(self.model, part)
            (sums.total / count).backward()
            total += float(sums.total.detach())
            tokens += part.size
            for k, v in sums.shown.items():
                shown[k] = shown.get(k, 0.0) + v
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.clip))
        loss = total / count
        if not (abs(loss) < float("inf") and norm < float("inf")):
            raise NonFinite(
                f"step {self.step}: loss {loss}, gradient norm {norm}; rows from {sorted(set(batch.source))}"
            )
        factor = lr_factor(self.step, c.steps, warmup=c.warmup, decay=c.decay, final=c.final_lr)
        self.optimizers.step(factor)
        self.step += 1
        self.tokens += tokens
        row = {
            "step": self.step,
            "tokens": self.tokens,
            "loss": loss,
            "lr": c.optim.lr * factor,
            "grad_norm": norm,
        }
        row |= {k: v / count for k, v in shown.items()}
        self.log.append(row)
        return row

    def save(self) -> None:
        state = {
            "model": {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad},
            "optim": self.optimizers.state_dict(),
            "tokens": self.tokens,
            "log": json.dumps(self.log),
        }
        checkpoint.save(self.work, self.step, state)


def _restore(model: Transformer, saved: dict[str, torch.Tensor]) -> None:
    """What is trained: with adapters, the adapters alone."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if trained.keys() != saved.keys():
        raise ValueError("the checkpoint holds other parameters; set `lora` to what it had, or remove .work")
    with torch.no_grad():
        for name, p in trained.items():
            p.copy_(saved[name])


def write_log(path: Path, log: list[dict[str, Any]]) -> None:
    """metrics.jsonl: no times in it, so that equal runs give equal bytes."""
    write_text(path, "".join(json.dumps({k: _round(v) for k, v in row.items()}) + "\n" for row in log))


def _round(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


class _Stop:
    requested = 0  # the signal's number


@contextmanager
def _signals() -> Iterator[_Stop]:
    """SIGTERM (Slurm's pre-emption) and Ctrl-C ask for a save at the end of the step; a handler that was there
    before gets the signal afterwards. Main thread only."""
    stop = _Stop()

    def ask(signum, frame) -> None:
        stop.requested = signum

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {s: signal.signal(s, ask) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
        if stop.requested and callable(previous[signal.Signals(stop.requested)]):
            signal.raise_signal(stop.requested)
