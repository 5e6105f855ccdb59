"""What the five training stages share: recipe keys -> trainer, network in, checkpoint folder out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phikit.mixture.loader import Loader, PackedSource, open_sources
from phikit.mixture.long import LongDocuments
from phikit.mixture.order import Phase
from phikit.model.assemble import DTypeName
from phikit.model.config import ModelConfig
from phikit.model.hf import save_hf
from phikit.model.hf_config import read_layout
from phikit.model.hf_like import save_like
from phikit.model.hf_read import load_hf
from phikit.model.layout import Layout
from phikit.model.ranks import world
from phikit.model.transformer import Transformer
from phikit.records.ids import seed_of
from phikit.text.chat import pad_id
from phikit.text.tokenizer import Tokenizer
from phikit.train import lora
from phikit.train.feed import Rows
from phikit.train.metrics import write_log
from phikit.train.objectives import DirectPreference, LanguageModeling
from phikit.train.optim import OptimConfig
from phikit.train.sinks import open_sinks
from phikit.train.trainer import TrainConfig, Trainer

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

SPEED = "speed.jsonl"  # has times in it
MOMENTS = "optim"  # a folder


def model_config(ctx: StageContext) -> ModelConfig:
    """The network's shape with the stage's own context and RoPE base."""
    m: Any = ctx.recipe.model  # a recipe without `init` has one
    c, shape = ctx.config, ModelConfig(**m.model_dump())
    return replace(shape, context=c.context, rope_base=c.rope_base or shape.rope_base)


def network_of(ctx: StageContext, stage: str) -> Transformer:
    """The network that stage `stage` left, at this stage's RoPE base and with room for its context. Raises ValueError
    where rows would be longer than the network knows positions."""
    c: Any = ctx.config
    model, old = load_hf(ctx.inputs[stage].path / "hf")
    base = c.rope_base or old.rope_base
    if c.context > old.context and base == old.rope_base:
        raise ValueError(
            f"{ctx.name}.context is {c.context:,}, the model of stage {stage} knows {old.context:,} positions: lower "
            f"it, or raise {ctx.name}.rope_base above {old.rope_base:g} (report section 3.3)"
        )
    model.config = replace(old, context=max(old.context, c.context), rope_base=base)
    return model


def tokenizer_of(ctx: StageContext) -> Tokenizer:
    """The tokenizer of the run, with the chat format of the model that the recipe began with."""
    from phikit.engine.chat_files import load_tokenizer

    if "init" in ctx.inputs:
        return load_tokenizer(ctx.file("init", "hf/tokenizer.json").parent)
    return Tokenizer.load(ctx.file("tokenizer", "tokenizer.json"))


def save_model(
    ctx: StageContext, model: Transformer, tokenizer: Tokenizer, folder: Path, *, dtype: DTypeName = "fp32"
) -> None:
    """A Hugging Face folder: Phi-4's files, or those of the model that the recipe began with."""
    if "init" in ctx.inputs:
        save_like(model, ctx.file("init", "hf/config.json").parent, folder, dtype=dtype)
    else:
        save_hf(model, tokenizer, folder, dtype=dtype)


def layout_of(ctx: StageContext) -> Layout:
    return Layout(**ctx.recipe.layout.model_dump())


def train_config(ctx: StageContext, steps: int, rows: int) -> TrainConfig:
    c, layout = ctx.config, layout_of(ctx)
    micro = c.micro or max(1, rows // layout.data)
    optim = OptimConfig(c.optimizer, c.lr, c.matrix_lr, c.weight_decay, tuple(c.betas), c.eps)
    decay = 1.0 - c.warmup if c.decay is None else c.decay
    return TrainConfig(
        steps, rows, micro, optim, c.warmup, decay, c.final_lr, c.clip, layout, ctx.checkpoint.every, ctx.seed,
        c.skip, ctx.checkpoint.keep,
    )  # fmt: skip


def language_rows(
    ctx: StageContext,
    phases: Mapping[float, Mapping[str, float]],
    steps: int,
    long: LongDocuments | None = None,
    packed: Mapping[str, PackedSource] | None = None,
) -> Loader:
    """Packed rows from the mixture's shards; `phases` maps the share of steps where a phase ends to fractions, `long`
    says what sources named `<source>_long` are. `packed`: the sources of an earlier call with other phases or steps."""
    c, total = ctx.config, steps * ctx.config.batch
    names = sorted({s for f in phases.values() for s, x in f.items() if x > 0})
    stage = ctx.one("mixture", "questions")
    try:
        sources = packed or open_sources(ctx.inputs[stage].path, names, c.context, ctx.seed, long)
    except ValueError as e:
        raise ValueError(f"{ctx.name}: stage {stage}: {e}") from e
    ends = [Phase(round(until * total), fractions) for until, fractions in phases.items()]
    return Loader(sources, ends, seed_of(ctx.seed, "order"), pad_id(tokenizer_of(ctx)))


def steps_of(ctx: StageContext) -> int:
    """Optimizer steps of a stage whose length is given in tokens, or in times that its dialogs are seen."""
    c: Any = ctx.config
    if c.tokens is not None:
        return max(1, round(c.tokens / (c.batch * c.context)))
    folder = ctx.inputs[ctx.one("mixture", "questions")].path
    rows = open_sources(folder, ["dialogs"], c.context, ctx.seed)["dialogs"].rows
    share = 1 - sum(c.replay.values())
    return max(1, round(c.epochs * rows / share / c.batch))


def train(
    ctx: StageContext,
    model: Transformer,
    objective: LanguageModeling | DirectPreference,
    rows: Rows,
    config: TrainConfig,
    moments: Path | None = None,
    keep_optimizer: bool = False,
    base: str = "",
) -> dict[str, Any]:
    """Runs the trainer and writes hf/, metrics.jsonl and, with `keep_optimizer`, the optimizer's moments. Where the
    stage has `lora`, adapters on the model of stage `base` are trained, written to adapter/ and merged into hf/."""
    keys = getattr(ctx.config, "lora", None)
    layout = read_layout(ctx.inputs["init"].path / "hf") if "init" in ctx.inputs else "phi3"
    adapters = lora.LoRAConfig(keys.rank, keys.alpha, keys.dropout, keys.targets) if keys else None
    if adapters:
        if config.layout.ranks > 1:
            raise ValueError(
                f"{ctx.name}.lora trains on one rank: set layout.fsdp, tp and cp to 1, or leave lora out"
            )
        lora.wrap(model, adapters, ctx.seed)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    sinks = open_sinks(ctx.sinks if world()[0] == 0 else (), ctx.name, ctx.root)
    try:
        trainer = Trainer(model, objective, rows, config, ctx.work, moments, sinks)
        log = trainer.run(ctx.name)
    finally:
        for sink in sinks:
            sink.close()
    if keep_optimizer:
        trainer.save_moments(ctx.out / MOMENTS)
    if trained_model := trainer.network():  # rank 0
        if adapters:
            lora.save_adapter(trained_model, adapters, ctx.out / "adapter", f"{base}/hf", layout)
            lora.merge(trained_model)
        save_model(ctx, trained_model, tokenizer_of(ctx), ctx.out / "hf")
        write_log(ctx.out / "metrics.jsonl", log)
        write_log(ctx.out / SPEED, trainer.watch.rows)
    trainer.ranks.rest()
    return {
        "steps": trainer.step, "tokens": trainer.tokens, "parameters": model.config.parameters, "trained": trained,
        "loss_first": log[0]["loss"], "loss_last": log[-1]["loss"],
    }  # fmt: skip
