"""The recipe: every key that a recipe file may hold, with its unit, default and meaning.

Sections are frozen pydantic models that refuse unknown keys. To add a key, add one line to its section. A key
that shapes a stage's bytes belongs into that stage's section, or into a section that the stage reads.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, PrivateAttr, model_validator

from phikit.recipe.scales import SCALES
from phikit.recipe.schema_data import (
    Corpus,
    Fractions,
    Init,
    Mixture,
    NotNegative,
    Phase,
    Positive,
    Questions,
    Rows,
    Section,
    Synth,
    Tokenizer,
    World,
)
from phikit.recipe.units import ContextLength, Count, Multiple, Share
from phikit.train.sinks import Name as Sink

__all__ = ["CHECKPOINTS", "STAGES", "Phase", "Recipe", "Section", "json_schema", "known_keys", "model_at"]


class Model(Section):
    """The network: Phi3ForCausalLM layout (report section 3; released configuration)."""

    layers: Rows
    width: Rows
    heads: Rows
    kv_heads: Rows
    ffn: Rows
    vocab: Rows
    tied: bool = False
    context: ContextLength = 4096  # of pretraining
    rope_base: Positive = 10000.0  # of pretraining
    norm_eps: Positive = 1e-5
    init_std: Positive = 0.02

    @model_validator(mode="after")
    def _fits(self) -> Model:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self


class Teacher(Section):
    """Who answers prompts: `smollm2` (embedded) or the URL of an OpenAI-compatible endpoint."""

    model: str = "smollm2"
    budget: Count = 0  # tokens, prompts and answers together
    slots: Rows = 2  # requests under way at once


class Layout(Section):
    """How the training is laid out on machines; all but the precision changes no result beyond rounding."""

    ROUNDING: ClassVar[frozenset[str]] = frozenset(
        ("fsdp", "tp", "cp", "replicas", "device", "compile", "recompute", "attention", "timeout")
    )
    fsdp: Rows = 1  # ranks that rows and, with cp, weights are divided among
    tp: Rows = 1  # ranks that heads, the MLP and the vocabulary are divided among
    cp: Rows = 1  # ranks that the tokens of a row are divided among
    replicas: Rows = 1  # copies of all that, each with rows of its own
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA where there is one
    precision: Literal["fp32", "bf16", "fp8"] = (
        "fp32"  # fp32 weights, gradients and moments; fp8 needs torchao
    )
    compile: bool = False  # each block; pretrain, midtrain and sft
    recompute: Literal["none", "blocks"] = "none"  # blocks: less memory, a third more arithmetic
    attention: Literal["auto", "flex", "flash"] = "auto"  # of packed documents on CUDA
    timeout: Positive = 600.0  # seconds that a rank in training waits for another before the run ends


class Train(Section):
    """One training run. `batch` is rows of `context` tokens per optimizer step, over all ranks."""

    ROUNDING: ClassVar[frozenset[str]] = frozenset(("micro",))
    context: ContextLength
    rope_base: Positive | None = None  # without it that of the model that enters the stage
    batch: Rows
    micro: Rows | None = None  # rows per forward pass and rank; without it all of the rank's
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: Positive
    matrix_lr: Positive = 0.02  # of Muon: the hidden matrices; `lr` is for the rest
    warmup: Share = 0.01  # share of the steps
    decay: Share | None = None  # last share of the steps in which it falls; without it all after the warm-up
    final_lr: Share = 0.0  # share of `lr` at the last step
    weight_decay: NotNegative = 0.1
    clip: Positive = 1.0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: Positive = 1e-8
    seed: int | None = None  # without it the recipe's
    skip: Count = 0  # steps whose loss or gradient is no number that may be left out; one more stops the run


class Pretrain(Train):
    """Report section 3."""

    tokens: Count


class Midtrain(Train):
    """Longer context, higher RoPE base, long documents and replay (report section 3.3)."""

    tokens: Count
    long: Share = 0.3  # the rest is replayed from pretraining
    long_fractions: Fractions  # how the long share is made up
    # Sources named <source>_long. natural: documents of more than `isolate` tokens; packed-short: samples of at most
    # pretraining's context, joined until they fill a row (the other side of the report's ablation).
    long_documents: Literal["natural", "packed-short"] = "natural"
    isolate: ContextLength | None = None  # without it pretraining's context
    upweight_from: ContextLength | None = None  # tokens of a natural document; without it `context`
    upweight: Multiple = 2.0  # how often those count
    keep_optimizer: bool = True


Adapted = Literal["q", "k", "v", "o", "gate", "up", "down"]


class Lora(Section):
    """Low-rank adapters are trained in place of all weights; written as a PEFT folder and merged into hf/."""

    rank: Rows = 16
    alpha: Positive | None = None  # adapters are scaled by alpha / rank; without it 2 x rank
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[Adapted, ...] = ("q", "k", "v", "o", "gate", "up", "down")


class PostTrain(Train):
    lora: Lora | None = None  # without it all parameters are trained, as in the report

    @model_validator(mode="after")
    def _adapters(self) -> PostTrain:
        if self.lora and self.optimizer != "adamw":
            raise ValueError("lora trains with optimizer adamw: muon is for whole matrices")
        return self


class Sft(PostTrain):
    """Report section 4.1: loss on assistant turns only. Its length is given in `tokens` or in `epochs`."""

    tokens: Count | None = None
    epochs: Positive | None = None  # times that each dialog is seen
    replay: Fractions = {}  # noqa: RUF012  shares of pretraining sources kept in the mix; the rest are dialogs

    @model_validator(mode="after")
    def _length(self) -> Sft:
        if (self.tokens is None) == (self.epochs is None):
            raise ValueError("give tokens or epochs, one of the two")
        return self


class Dpo(PostTrain):
    """Report sections 4.2 and 4.3: the reference is the model that enters the stage. `batch` counts pairs, `micro`
    rows of context tokens, which hold many pairs: they share the tokens of their prompt and prefix."""

    epochs: Positive = 1.0
    beta: Positive = 0.1
    nll_weight: NotNegative = 0.0
    length_normalize: bool = False
    label_smoothing: Share = 0.0


class Pivotal(Section):
    """Pivotal token search (report section 4.3)."""

    questions: Rows
    gap: Share = 0.2
    error: Share = 0.05  # share of the tokens and pairs listed that may change p by less than 3/4 gap
    certified: bool = False  # list only what e-BH certifies to have an effect, for any model: more rollouts
    rollouts: Rows = 96  # most on each side of one decision
    trajectories: Rows = 2  # answers searched per question
    low: Share = 0.2  # questions below or above these are left out
    high: Share = 0.8
    temperature: Positive = 1.0
    top_p: Share = 1.0
    max_tokens: Rows = 64
    budget: Count = 0  # processed tokens, generated and prefilled; 0: no bound


class Judged(Section):
    """Several answers per prompt, ranked by verifier and judge (report section 4.2)."""

    prompts: Rows
    samples: Annotated[Count, Field(ge=2)] = 4  # answers of the model that enters dpo2
    others: Count = 0  # and of the SFT model ("any vs any")
    responders: tuple[
        str, ...
    ] = ()  # further ones: a GGUF, a checkpoint folder, a URL; `samples` answers each
    pairs: Rows = 2  # most pairs of a prompt
    overall: Count | None = (
        None  # beside `pairs` by accuracy so many by the overall mark (the report's two sets)
    )
    temperature: Positive = 1.0
    max_tokens: Rows = 64
    judge: str = "verifier"  # verifier, teacher, or the URL of an endpoint
    swap: bool = True  # ask the judge in both orders of the answers; where it disagrees with itself is a tie


class Eval(Section):
    problems: Rows = 1000
    samples: Rows = 4
    temperature: Positive = 1.0
    max_tokens: Rows = 64
    bits_documents: Rows = 16  # held-out documents for bits per byte, at most
    long_items: Count = 0  # of each long-context task at 2x and 4x the base context; 0: none


class Export(Section):
    hf: Literal["fp32", "bf16"] = "fp32"  # dtype of the Hugging Face folder; the released model is bf16
    # The K-quants need rows (model.width, model.ffn) that are multiples of 256.
    gguf: tuple[Literal["f32", "f16", "bf16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"], ...] = (
        "f32",
        "f16",
    )
    prompts: Rows = 20  # greedy answers that must agree between engines


class Report(Section):
    conversations: Rows = 6


STAGES = (
    "init", "questions", "corpus", "synth", "tokenizer", "mixture", "pretrain", "midtrain", "sft", "pivotal", "dpo1",
    "judged", "dpo2", "eval", "export", "report",
)  # fmt: skip
CHECKPOINTS = ("init", "pretrain", "midtrain", "sft", "dpo1", "dpo2")


class Metrics(Section):
    """`sinks`: where the logs of training stages are copied to as they grow; their packages are extras."""

    sinks: tuple[Sink, ...] = ()


class Checkpoint(Section):
    """Of a training stage under way; it enters no fingerprint."""

    every: Positive = 60.0  # seconds from one to the next
    keep: Rows = 2  # the newest so many; a damaged one falls back to the one before


class Recipe(Section):
    """A whole recipe at one scale. A stage that is left out is not run."""

    name: str
    scale: str = "nano"
    seed: int = 20241212
    world: World = World()
    model: Model | None = None  # without it `init` brings one
    teacher: Teacher = Teacher()
    layout: Layout = Layout()
    metrics: Metrics = Metrics()
    checkpoint: Checkpoint = Checkpoint()
    init: Init | None = None
    questions: Questions | None = None
    corpus: Corpus | None = None
    synth: Synth | None = None
    tokenizer: Tokenizer | None = None
    mixture: Mixture | None = None
    pretrain: Pretrain | None = None
    midtrain: Midtrain | None = None
    sft: Sft | None = None
    pivotal: Pivotal | None = None
    dpo1: Dpo | None = None
    judged: Judged | None = None
    dpo2: Dpo | None = None
    eval: Eval | None = None
    export: Export | None = None
    report: Report | None = None
    _order: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _one_model(self) -> Recipe:
        if (self.model is None) == (self.init is None):
            raise ValueError(
                "a recipe trains a network of its own (`model:`) or goes on with one that is there (`init:`): "
                "give one of the two"
            )
        return self

    @property
    def folder(self) -> Path:
        """Where a run is written that names no folder."""
        return Path("runs") / (self.name if self.init else self.scale)

    def seed_of(self, stage: str) -> int:
        """The stage's own seed, where its section has one."""
        own = getattr(getattr(self, stage), "seed", None)
        return self.seed if own is None else own

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of its stages in the order of the file."""
        return self._order or tuple(s for s in STAGES if getattr(self, s) is not None)


def json_schema() -> dict[str, Any]:
    """JSON schema of a recipe file for editors: every value may also be a mapping of scales."""
    schema = Recipe.model_json_schema()
    for model in (schema, *schema.get("$defs", {}).values()):
        for key, value in model.get("properties", {}).items():
            scales = {
                "type": "object",
                "properties": dict.fromkeys(SCALES, value),
                "additionalProperties": False,
            }
            model["properties"][key] = {"anyOf": [value, {**scales, "minProperties": 1}]}
    for short in ("init", "questions"):  # a text in place of the section
        schema["properties"][short]["anyOf"].append({"type": "string"})
    for stage in STAGES:  # an empty section is a stage with its defaults
        schema["properties"][stage]["anyOf"].append({"type": "null"})
    return schema


def model_at(path: Iterable[Any]) -> type[BaseModel] | None:
    """The section at a key path of the recipe, None where the path leads to something else."""
    model: type[BaseModel] | None = Recipe
    for key in path:
        if isinstance(key, int):  # a place in a list: the model stays the list's
            continue
        field = model.model_fields.get(str(key)) if model else None
        model = _section(field.annotation) if field else None
    return model


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Full paths of all keys."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if inner := _section(field.annotation):
            keys += known_keys(inner, f"{prefix}{name}.")
    return keys


def _section(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in typing.get_args(annotation) if (m := _section(a))), None)
