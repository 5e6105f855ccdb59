"""The one trainer: pretraining, midtraining, SFT and both DPO rounds are this loop with other rows.

A step: take its rows, sum their counts over all ranks, for each micro-batch back-propagate `objective.total / count of
the whole step`, clip, check that everything is finite, step the optimizers, log one line. Nothing else happens here.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from phikit.model import fp8
from phikit.model.layout import Layout
from phikit.model.parallel import parallelize, whole_network
from phikit.model.ranks import Ranks
from phikit.model.transformer import Transformer
from phikit.records.ids import seed_of
from phikit.train import checkpoint, heap
from phikit.train.feed import Feed, Rows, Share
from phikit.train.metrics import Watch, log_skipped
from phikit.train.objectives import DirectPreference, LanguageModeling
from phikit.train.optim import OptimConfig, Optimizers, lr_factor
from phikit.train.sinks import Sink, numbers


@dataclass(frozen=True)
class TrainConfig:
    """`rows` a step (pairs, in DPO) over all ranks, `micro` rows of context tokens in one forward pass of a rank.
    `skip` steps whose loss or gradient is no number may be left out; one more stops the run."""

    steps: int
    rows: int
    micro: int
    optim: OptimConfig = field(default_factory=OptimConfig)
    warmup: float = 0.02
    decay: float = 0.98
    final_lr: float = 0.0
    clip: float = 1.0
    layout: Layout = field(default_factory=Layout)
    checkpoint_seconds: float = 60.0
    seed: int = 0
    skip: int = 0
    keep: int = 2  # checkpoints


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
        moments: Path | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        """`work` holds checkpoints of an unfinished run; `moments` is the folder in which an earlier stage left
        those of its optimizer; `sinks` see every step's numbers. Takes the model over: it is laid out on the ranks,
        `network` gives it back. Raises ValueError where the layout fits neither the network nor the rows."""
        self.objective, self.config, self.work, self.sinks = objective, config, work, sinks
        self.ranks = Ranks(config.layout)
        objective.check(config)
        # The shapes of trees of pairs are others in every step: compiled blocks would be compiled again and again.
        parallelize(model, self.ranks, compile=objective.shapes_repeat)
        self.model, self.device = model, self.ranks.device
        if self.device.type == "cpu":
            heap.keep_freed()
        self.feed = Feed(rows, objective, config.micro, self.ranks)
        self.optimizers = Optimizers(model, config.optim)
        self.saver = checkpoint.Saver(work, self.ranks, config.keep)
        self.step, self.tokens, self.skipped = 0, 0, 0
        self._label = ""
        self.log: list[dict[str, Any]] = []
        self.watch = Watch(model.config, config.layout, self.ranks)
        with self.ranks.together("reading checkpoints"):
            if moments is not None:
                checkpoint.read_tensors(moments, self.optimizers.state(), self.ranks)
            if found := checkpoint.newest(work, self.ranks):
                place, meta = found
                checkpoint.read_tensors(place, self._tensors(), self.ranks)
                self.step, self.tokens, self.skipped = meta["step"], meta["tokens"], meta["skipped"]
                self.log = json.loads(meta["log"])  # as text: it keeps the order of the keys

    def run(self, label: str, until: int | None = None) -> list[dict[str, Any]]:
        """Trains to step `until`, or to `config.steps`, which the schedule is for; returns the log rows (step, tokens,
        loss, lr, grad_norm, shown sums). Raises Interrupted, NonFinite, RankLost."""
        c, last = self.config, self.config.steps if until is None else until
        saved = time.monotonic()
        self.model.train()
        with self.ranks.together(label), _signals() as stop, self.watch.show(label, self.step, last):
            self._label = label
            while self.step < last:
                self.watch.begin(self.tokens)
                row, share = self._step()
                self.watch.end(row, share, self.feed.waited)
                for sink in self.sinks:
                    sink.log(self.step, numbers(row, self.watch.rows[-1]))
                self.saver.poll()
                late = time.monotonic() - saved >= c.checkpoint_seconds and self.step < last
                wanted = self.ranks.any(2 * bool(stop.requested) + late)
                if wanted:
                    self.save()
                    saved = time.monotonic()
                if wanted >= 2:
                    self.saver.finish()
                    raise Interrupted(
                        f"{label} was stopped at step {self.step} of {c.steps}; its state is saved"
                    )
            self.ranks.does(f"{label}, its last checkpoint")
            self.saver.finish()
        return self.log

    def _step(self) -> tuple[dict[str, Any], Share]:
        c = self.config
        torch.manual_seed(seed_of(c.seed, self.step))  # dropout of a resumed run is that of an unbroken one
        self.ranks.does(f"{self._label}, rows of step {self.step + 1}")
        share = self.feed.take(self.step * c.rows, c.rows)
        self.ranks.does(f"{self._label}, step {self.step + 1}")
        count, tokens = self.ranks.sum([share.count, share.tokens])
        count = max(count, 1e-9)
        totals: list[torch.Tensor] = []
        shown: dict[str, torch.Tensor] = {}
        for i, part in enumerate(share.parts):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=c.layout.half):
                sums = self.objective(self.model, part, self.ranks)
            if c.layout.replicas > 1:  # once a step: until then each replica adds up its own
                self.model.set_requires_all_reduce(i == len(share.parts) - 1)  # type: ignore[operator]
            real = i < share.real  # the others run along, since every rank must
            (sums.total / count if real else sums.total * 0.0).backward()
            if real:
                totals.append(sums.total.detach().double())
                for k, v in sums.shown.items():
                    shown[k] = shown.get(k, 0.0) + v.double()
        # Until here the device was never waited for.
        norm = self._clip()
        own = sum(totals, torch.zeros((), dtype=torch.float64, device=self.device))
        keys = self.objective.shows
        loss, *sums_shown = (
            v / count for v in self.ranks.sum([own, *(shown.get(k, 0.0) for k in keys)], cp=True)
        )
        factor = lr_factor(self.step, c.steps, warmup=c.warmup, decay=c.decay, final=c.final_lr)
        row = {"step": self.step + 1, "loss": loss, "lr": c.optim.lr * factor, "grad_norm": norm}
        if abs(loss) < float("inf") and norm < float("inf"):
            self.optimizers.step(factor)
            if c.layout.precision == "fp8" and self.ranks.shards is not None:
                fp8.prepare(self.model)
        else:
            self._not_finite(row, share, totals)
        self.step += 1
        self.tokens += round(tokens)
        row = {"step": self.step, "tokens": self.tokens, **row, **dict(zip(keys, sums_shown))}
        if not row.get("skipped"):
            self.log.append(row)
        return row, share

    def _clip(self) -> float:
        """The norm of all gradients; above `clip` they are scaled to it, below not written again."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        total = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if (norm := float(_plain(total))) + 1e-6 > self.config.clip:  # as torch adds to it
            torch.nn.utils.clip_grads_with_norm_(parameters, self.config.clip, total)
        return norm

    def _not_finite(self, row: dict[str, Any], share: Share, totals: list[torch.Tensor]) -> None:
        """Leaves the step out, or stops; either way the rows of the passes that went wrong are written down."""
        bad = [i for i, total in enumerate(totals) if not torch.isfinite(total)]
        found = log_skipped(self.work, self.ranks, row, share, bad)
        self.skipped += 1
        if self.skipped > self.config.skip:
            raise NonFinite(
                f"step {self.step}: loss {row['loss']}, gradient norm {row['grad_norm']}; rows from "
                f"{sorted(set(share.source))}, written down in {found}; `skip` lets a run leave out such steps"
            )
        for p in self.model.parameters():
            p.grad = None
        row["skipped"] = True

    def save(self) -> None:
        """Begins a checkpoint; training goes on while it is written."""
        meta = {"tokens": self.tokens, "skipped": self.skipped, "log": json.dumps(self.log)}
        self.saver.begin(self.step, self._tensors(), meta)

    def _tensors(self) -> checkpoint.State:
        """What is trained (with adapters, the adapters alone) and its moments."""
        trained = {f"model/{n}": p.detach() for n, p in self.model.named_parameters() if p.requires_grad}
        return trained | {f"optim/{k}": v for k, v in self.optimizers.state().items()}

    def save_moments(self, folder: Path) -> None:
        """The optimizer's moments for a later stage."""
        if self.ranks.first:
            folder.mkdir(parents=True, exist_ok=True)
        with self.ranks.together("writing moments"):
            self.ranks.wait()
            checkpoint.end_of(checkpoint.write_tensors(folder, self.optimizers.state(), self.ranks))

    def network(self) -> Transformer | None:
        """The trained network on the CPU of rank 0, None on other ranks; training cannot go on after it."""
        heap.give_back()
        with self.ranks.together("bringing the network together"):
            return whole_network(self.model, self.ranks)


def _plain(x: torch.Tensor) -> torch.Tensor:
    return x.full_tensor() if hasattr(x, "full_tensor") else x  # type: ignore[operator]


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
    previous: Mapping[Any, Any] = {s: signal.signal(s, ask) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    except Exception as e:
        if not isinstance(
            e, Interrupted
        ):  # what went wrong is to be heard, not the signal that came after it
            stop.requested = 0
        raise
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
        if stop.requested and callable(previous[signal.Signals(stop.requested)]):
            signal.raise_signal(stop.requested)
