"""What the five training stages share: recipe keys -> trainer, network in, checkpoint folder out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phikit.mixture.loader import Loader, open_sources
from phikit.mixture.order import Phase
from phikit.model.config import ModelConfig
from phikit.model.hf import save_hf
from phikit.model.hf_read import load_hf
from phikit.model.transformer import Transformer
from phikit.records.ids import seed_of
from phikit.text.tokenizer import Tokenizer
from phikit.train import lora
from phikit.train.objectives import DirectPreference, LanguageModeling, Rows
from phikit.train.optim import OptimConfig
from phikit.train.trainer import TrainConfig, Trainer, write_log

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

OPTIM_FILE = "optim.pt"


def model_config(ctx: StageContext) -> ModelConfig:
    """The network's shape with the stage's own context and RoPE base."""
    m, c = ctx.recipe.model, ctx.config
    return ModelConfig(
        vocab=m.vocab, width=m.width, layers=m.layers, heads=m.heads, kv_heads=m.kv_heads, ffn=m.ffn,
        context=c.context, rope_base=c.rope_base, norm_eps=m.norm_eps, init_std=m.init_std, tied=m.tied,
    )  # fmt: skip


def network_of(ctx: StageContext, stage: str) -> Transformer:
    """The network that stage `stage` left, at this stage's context and RoPE base."""
    model, old = load_hf(ctx.inputs[stage].path / "hf")
    model.config = replace(old, context=ctx.config.context, rope_base=ctx.config.rope_base)
    return model


def train_config(ctx: StageContext, steps: int, rows: int, micro: int) -> TrainConfig:
    c = ctx.config
    optim = OptimConfig(c.optimizer, c.lr, c.matrix_lr, c.weight_decay, tuple(c.betas), c.eps)
    decay = 1.0 - c.warmup if c.decay is None else c.decay
    precision = ctx.recipe.layout.precision
    return TrainConfig(
        steps, rows, micro, optim, c.warmup, decay, c.final_lr, c.clip, precision, seed=ctx.seed
    )


def language_rows(ctx: StageContext, phases: Mapping[float, Mapping[str, float]], steps: int) -> Loader:
    """Packed rows from the mixture's shards; `phases` maps the share of steps where a phase ends to fractions."""
    c, total = ctx.config, steps * ctx.config.batch
    names = sorted({s for f in phases.values() for s, x in f.items() if x > 0})
    folder = ctx.inputs["mixture"].path
    missing = [n for n in names if not (folder / n).is_dir()]
    if missing:
        there = sorted(p.name for p in folder.iterdir() if p.is_dir())
        raise ValueError(f"{ctx.name}: the mixture has no source {missing}; it has {there}")
    sources = open_sources(folder, names, c.context, ctx.seed)
    ends = [Phase(round(until * total), fractions) for until, fractions in phases.items()]
    tokenizer = Tokenizer.load(ctx.file("tokenizer", "tokenizer.json"))
    return Loader(sources, ends, seed_of(ctx.seed, "order"), tokenizer.pad)


def steps_of(ctx: StageContext) -> int:
    c = ctx.config
    return max(1, round(c.tokens / (c.batch * c.context)))


def train(
    ctx: StageContext,
    model: Transformer,
    objective: LanguageModeling | DirectPreference,
    rows: Rows,
    config: TrainConfig,
    optim_state: list[dict] | None = None,
    keep_optimizer: bool = False,
    base: str = "",
) -> dict[str, Any]:
    """Runs the trainer and writes hf/, metrics.jsonl and, with `keep_optimizer`, the optimizer's moments. Where the
    stage has `lora`, adapters on the model of stage `base` are trained, written to adapter/ and merged into hf/."""
    keys = getattr(ctx.config, "lora", None)
    adapters = lora.LoRAConfig(keys.rank, keys.alpha, keys.dropout, keys.targets) if keys else None
    if adapters:
        lora.wrap(model, adapters, ctx.seed)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    trainer = Trainer(model, objective, rows, config, ctx.work, optim_state)
    log = trainer.run(ctx.name)
    if adapters:
        lora.save_adapter(model, adapters, ctx.out / "adapter", f"{base}/hf")
        lora.merge(model)
    save_hf(model, Tokenizer.load(ctx.file("tokenizer", "tokenizer.json")), ctx.out / "hf")
    write_log(ctx.out / "metrics.jsonl", log)
    if keep_optimizer:
        save_optimizer(ctx.out / OPTIM_FILE, trainer.optimizers.state_dict())
    return {
        "steps": trainer.step, "tokens": trainer.tokens, "parameters": model.config.parameters, "trained": trained,
        "loss_first": log[0]["loss"], "loss_last": log[-1]["loss"],
    }  # fmt: skip


def save_optimizer(path: Path, state: list[dict]) -> None:
    import torch

    from phikit.records.io import atomic_path

    with atomic_path(path) as tmp:
        torch.save(state, tmp)


def load_optimizer(path: Path) -> list[dict]:
    import torch

    return torch.load(path, weights_only=True)
