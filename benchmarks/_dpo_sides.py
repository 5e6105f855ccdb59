"""Both sides of `pivotal_dpo.py`, each in a process of its own: a line in, an optimizer step, a line of JSON out."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

BATCH = 32  # pairs in an optimizer step: the recipe's value at nano
NLL, BETA, RATE = 0.3, 0.1, 1e-5
MARK = "== "  # a line for the benchmark: TRL prints others


def rows_of(run: Path, size: int):
    from phikit.records import Preference, from_row
    from phikit.records.io import read_jsonl
    from phikit.text.tokenizer import Tokenizer
    from phikit.train.pairs import PairRows

    pairs = [from_row(Preference, r) for r in read_jsonl(run / "pairs.jsonl.zst")]
    return PairRows(pairs, Tokenizer.load(run / "tokenizer.json"), size, seed=0)


class _Memory:
    """Growth of the peak of resident memory since the imports were done."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is held now
        self.start = self._peak()

    @staticmethod
    def _peak() -> int:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def answer(self) -> None:
        _say(bytes=self._peak() - self.start)


def _kernels(precision: str) -> None:
    """A step of training on a few numbers, by the kernels that both sides take."""
    import torch
    import torch.nn.functional as F

    net = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False), torch.nn.SiLU(), torch.nn.RMSNorm(64))
    table = torch.nn.Embedding(96, 64)
    some = [*net.parameters(), *table.parameters()]
    optimizer = torch.optim.AdamW(some, fused=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        x = net(table(torch.arange(96)))[None, None]
        x = x + F.scaled_dot_product_attention(x, x, x, is_causal=True)
        x = x + torch.softmax(x @ x.transpose(-1, -2), -1) @ x
        logits = F.linear(x[0, 0], table.weight).float()
    (F.logsigmoid(logits.logsumexp(-1)).sum() + F.cross_entropy(logits, torch.arange(96))).backward()
    torch.nn.utils.clip_grad_norm_(some, 1.0)
    optimizer.step()


class _Clock:
    """Wall and CPU seconds of a step."""

    def __init__(self) -> None:
        self.begin = time.perf_counter(), time.process_time()

    def read(self) -> dict:
        return {"seconds": time.perf_counter() - self.begin[0], "cpu": time.process_time() - self.begin[1]}


def _say(**values) -> None:
    print(MARK + json.dumps(values), flush=True)


def _wait(memory: _Memory) -> None:
    for line in sys.stdin:
        if line.strip() == "step":
            return
        memory.answer()
    sys.exit(0)


def ours(folder: Path, precision: str, row: int) -> None:
    from phikit.model.hf_read import load_hf
    from phikit.model.layout import Layout
    from phikit.train.objectives import DirectPreference, DPOConfig
    from phikit.train.optim import OptimConfig
    from phikit.train.reference import add_reference
    from phikit.train.trainer import TrainConfig, Trainer

    for late in ("jinja2", "safetensors.torch", "torch._dynamo"):
        importlib.import_module(late)  # an import, not the work
    rows = rows_of(folder.parent, row)
    _kernels(precision)
    memory = _Memory()
    model, _ = load_hf(folder)
    add_reference(rows, model)
    optim = OptimConfig("adamw", lr=RATE, weight_decay=0.0)
    config = TrainConfig(
        1000, BATCH, 1, optim, warmup=0.0, decay=0.0, layout=Layout(precision=precision, device="cpu")
    )
    trainer = Trainer(model, DirectPreference(DPOConfig(BETA, NLL)), rows, config, folder / "none")
    model.train()
    while True:
        _wait(memory)
        clock = _Clock()
        row, _ = trainer._step()
        _say(**clock.read(), loss=row["loss"])


def trl(folder: Path, precision: str, micro: int) -> None:
    import torch
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    phi3 = "transformers.models.phi3.modeling_phi3"
    for late in ("safetensors.torch", "tokenizers", "torch._dynamo", phi3):
        importlib.import_module(late)
    dataset = Dataset.from_list(json.loads((folder / "examples.json").read_text()))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    _kernels(precision)
    memory = _Memory()

    class Paused(TrainerCallback):
        """Waits before each step, and answers when all of it is done: what follows it and the rows of the next one
        would else run beside our step."""

        took: dict | None = None

        def on_step_begin(self, args, state, control, **_):
            self.answer()
            _wait(memory)
            self.clock = _Clock()

        def on_step_end(self, args, state, control, **_):
            self.took = {k: v + trainer.fetched[k] for k, v in self.clock.read().items()}

        def on_log(self, args, state, control, logs=None, **_):
            if logs and "loss" in logs:
                assert self.took is not None
                self.took["loss"] = float(logs["loss"])

        def answer(self):
            if self.took is not None:
                _say(**self.took)
                self.took = None

    class Ordered(DPOTrainer):
        """Takes ids as they are, in the order of the file."""

        def _prepare_dataset(self, dataset, *_):
            return dataset

        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(self.train_dataset)

        def get_batch_samples(self, *args):
            """The rows of a step belong to it, on both sides."""
            clock = _Clock()
            found = super().get_batch_samples(*args)
            self.fetched = clock.read()
            return found

    args = DPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=micro, gradient_accumulation_steps=BATCH // micro,
        learning_rate=RATE, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0, adam_beta1=0.9,
        adam_beta2=0.95, adam_epsilon=1e-8, max_grad_norm=1.0, optim="adamw_torch_fused", num_train_epochs=1,
        beta=BETA, loss_type=["sigmoid", "sft"], loss_weights=[1.0, NLL], precompute_ref_log_probs=True,
        gradient_checkpointing=False, max_length=None, bf16=precision == "bf16", use_cpu=True, logging_steps=1,
        logging_nan_inf_filter=False, save_strategy="no", report_to="none", disable_tqdm=True, seed=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    paused = Paused()
    trainer = Ordered(model, args=args, train_dataset=dataset, callbacks=[paused], processing_class=tokenizer)
    trainer.train()
    paused.answer()
    _wait(memory)
