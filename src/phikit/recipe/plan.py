"""The cost of a recipe before any compute: tokens, parameters, FLOPs, memory, disk, optimizer steps.

FLOPs and memory are those of `train.cost`; `phikit plan --gpus` (`cluster.py`) runs the network itself on fake tensors.
Numbers of rollouts and pairs are not known before the run; their stages show the upper bound that the recipe sets, or a
dash.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from phikit.model.config import ModelConfig
from phikit.model.layout import Layout, divisors, misfits
from phikit.recipe.model_paths import find, shape_of
from phikit.recipe.schema import Dpo, Lora, Model, PostTrain, Recipe, Train
from phikit.recipe.units import show_bytes, show_count
from phikit.train.cost import causal_pairs, working_memory
from phikit.train.cost import train_flops as flops_of

FP8 = (
    "fp8 is planned as bf16: its rate was not measured here, and gathered weights are half of what is planned"
)
TRAINED = ("pretrain", "midtrain", "sft", "dpo1", "dpo2")


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank of training."""

    weights: int  # fp32 masters, and the bf16 copy the forward pass uses
    gradients: int  # fp32
    optimizer: int
    activations: int
    buffers: int  # logits of a chunk, the head's gradient, what one block's backward makes

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.buffers


@dataclass(frozen=True)
class Line:
    """One stage. `tokens` are trained or generated; None: decided by the data."""

    stage: str
    what: str
    tokens: int | None = None
    steps: int | None = None
    flops: float | None = None
    memory: Memory | None = None


@dataclass(frozen=True)
class Plan:
    scale: str
    parameters: int
    lines: tuple[Line, ...]
    layout: tuple[str, ...]  # remarks in words; those that begin with `error:` cannot run
    long: tuple[str, ...]  # what midtraining's long sources are made of
    disk: int


def config_of(model: Model) -> ModelConfig:
    return ModelConfig(**model.model_dump())


def network_of(recipe: Recipe) -> ModelConfig:
    """The shape of the recipe's network: its own, or that of the model it begins with."""
    if recipe.init is None:
        assert recipe.model is not None
        return config_of(recipe.model)
    try:
        return shape_of(find(recipe.init.model))
    except (OSError, ValueError) as e:
        raise ValueError(f"init.model: {e}") from e


def layout_of(recipe: Recipe) -> Layout:
    return Layout(**recipe.layout.model_dump())


def adapters(model: ModelConfig, lora: Lora) -> int:
    """Weights of low-rank adapters: A is shared by q, k, v and by gate, up."""
    kv = model.head_dim * model.kv_heads
    width, ffn = model.width, model.ffn
    outputs = {"q": width, "k": kv, "v": kv, "o": width, "gate": ffn, "up": ffn, "down": width}
    inputs = {"o": width, "down": ffn}
    shared = {"k": "q", "v": "q", "up": "gate"}
    alone = {shared.get(t, t) for t in lora.targets}
    wide = sum(outputs[t] for t in lora.targets) + sum(inputs.get(t, width) for t in alone)
    return model.layers * lora.rank * wide


def parameters(model: Model) -> int:
    """Weights of the network (14,659,507,200 for Phi-4)."""
    return config_of(model).parameters


def train_flops(model: Model, tokens: int, context: int) -> float:
    """FLOPs of forward and backward passes over `tokens` tokens in full rows of `context`."""
    return flops_of(config_of(model), tokens, causal_pairs(tokens, context))


def train_memory(recipe: Recipe, train: Train) -> Memory:
    """Bytes on one rank, from the sizes of the tensors alone (allocator, library overhead and what is gathered at the
    time are not in it)."""
    model, layout = network_of(recipe), layout_of(recipe)
    n = model.parameters
    over = layout.fsdp * layout.cp * layout.tp
    shard = -(-n // over)
    half = layout.half
    embeddings = model.vocab * model.width * (1 if model.tied else 2)
    lora = train.lora if isinstance(train, PostTrain) else None
    trained = adapters(model, lora) if lora else n
    # Muon keeps one moment for hidden matrices; embeddings and norms stay with AdamW and its two.
    moments = 2 * trained if train.optimizer == "adamw" else (n - embeddings) + 2 * embeddings
    rows = train.micro or -(-train.batch // layout.data)
    activations, buffers = working_memory(model, layout, rows * train.context // layout.cp)
    return Memory(
        weights=shard * (6 if half else 4),
        gradients=4 * -(-trained // over),
        optimizer=4 * -(-moments // over),
        activations=activations,
        buffers=buffers,
    )


def layout_remarks(recipe: Recipe) -> tuple[str, ...]:
    """Whether the layout fits the network and the stages, in words."""
    model, layout = network_of(recipe), layout_of(recipe)
    stages: dict[str, Train] = {n: t for n in TRAINED if (t := getattr(recipe, n))}
    wrong = misfits(model, layout)
    for name, train in stages.items():
        wrong += [*misfits(model, layout, train.context), *_stage_misfits(name, train, layout)]
    try:
        check_export(recipe)
    except ValueError as e:
        wrong.append(str(e))
    return (
        f"{counted(layout.ranks, 'rank', 'ranks')} = replicas {layout.replicas} x fsdp {layout.fsdp} x "
        f"cp {layout.cp} x tp {layout.tp}; {model.kv_heads} KV heads: "
        f"tp, cp and their product in {{{', '.join(map(str, divisors(model.kv_heads)))}}}",
        *((FP8,) if layout.precision == "fp8" else ()),
        *(f"error: {w}" for w in dict.fromkeys(wrong)),
    )


def long_remarks(recipe: Recipe) -> tuple[str, ...]:
    """Midtraining's tokens by source, and what its switch of long documents does to them; empty without the stage."""
    m, p = recipe.midtrain, recipe.pretrain
    if m is None or p is None:
        return ()
    long = m.long * m.tokens
    parts = ", ".join(f"{name} {show_count(f * long)}" for name, f in m.long_fractions.items())
    first = (
        f"midtrain: {show_count(long)} of {show_count(m.tokens)} tokens from long sources ({parts}), "
        f"{show_count(m.tokens - long)} replayed"
    )
    if m.long_documents == "packed-short":
        row = -(-m.context // p.context)
        return first, (
            f"packed-short: samples of at most {p.context:,} tokens, {row} or more joined into one document of "
            f"{m.context:,}; isolate and upweight do nothing"
        )
    heavy = m.upweight / (m.upweight + 1)
    return first, (
        f"natural: documents of over {m.isolate or p.context:,} tokens, {p.context:,} in sources made to be long; "
        f"those of {m.upweight_from or m.context:,} and more count {m.upweight:g} times: half of a source's tokens "
        f"become {heavy:.0%} of it, and the number of tokens stays"
    )


def counted(n: int, one: str, more: str) -> str:
    return f"{n:,} {one if n == 1 else more}"


def _stage_misfits(name: str, train: Train, layout: Layout) -> list[str]:
    """What the trainer would refuse when the run comes to the stage."""
    found = []
    each, rest = divmod(train.batch, layout.data)
    if rest:
        found.append(
            f"{name}.batch {train.batch} is not a multiple of layout.fsdp x layout.replicas {layout.data}"
        )
    elif train.micro and not isinstance(train, Dpo) and each % train.micro:
        found.append(f"{name}.micro {train.micro} does not divide the {each} rows of a rank")
    if isinstance(train, Dpo) and layout.cp > 1:
        found.append(f"{name} trains whole trees of tokens on each rank: set layout.cp to 1")
    if layout.ranks > 1 and train.optimizer == "muon":
        found.append(f"{name}.optimizer muon needs whole matrices: take adamw, or a layout of one rank")
    if layout.ranks > 1 and isinstance(train, PostTrain) and train.lora:
        found.append(f"{name}.lora trains on one rank: take a layout of one rank, or leave lora out")
    return found


def check_export(recipe: Recipe) -> None:
    """Raises ValueError where a type of `export.gguf` does not fit the network's rows, and names the tensor."""
    from phikit.model.quantize.types import file_type, mix
    from phikit.model.rows import shapes

    if recipe.export is None:
        return
    config = network_of(recipe)
    for name in recipe.export.gguf:
        try:
            mix(shapes(config), file_type(name))
        except ValueError as e:
            raise ValueError(f"export.gguf: {e}") from e


def disk_bytes(recipe: Recipe, stages: Collection[str]) -> int:
    """What the stages may write, generously: data, checkpoints with optimizer state, GGUF files."""
    n = network_of(recipe).parameters
    need = 200_000_000
    need += 4 * n if recipe.init and "init" in stages else 0
    if recipe.corpus and "corpus" in stages:
        need += 2 * (recipe.corpus.max_bytes.code + recipe.corpus.max_bytes.text)
    if recipe.pretrain and "mixture" in stages:
        need += 4 * recipe.pretrain.tokens
    # A stage ends as a Hugging Face folder and keeps weights and two moments in .work while it runs.
    need += (4 * n) * sum(s in TRAINED for s in stages) + (12 * n if any(s in TRAINED for s in stages) else 0)
    if recipe.export and "export" in stages:
        need += (6 * n) * len(recipe.export.gguf)
    return need


def make_plan(recipe: Recipe) -> Plan:
    """The plan of a recipe; nothing is computed or read."""
    lines = tuple(_line(recipe, name) for name in recipe.stages)
    return Plan(
        recipe.scale,
        network_of(recipe).parameters,
        lines,
        layout_remarks(recipe),
        long_remarks(recipe),
        disk_bytes(recipe, recipe.stages),
    )


def _line(recipe: Recipe, name: str) -> Line:
    section = getattr(recipe, name)
    if isinstance(section, Train):
        return _train_line(recipe, name, section)
    if name == "corpus":
        size = section.max_bytes.code + section.max_bytes.text
        return Line(name, f"up to {show_bytes(size)} of code and text")
    if name == "synth":
        budget = recipe.teacher.budget
        what = f"{show_count(recipe.world.dialogs)} dialogs, {show_count(recipe.world.questions)} questions; teacher"
        return Line(name, f"{what} {recipe.teacher.model}", tokens=budget)
    if name == "tokenizer":
        return Line(name, f"{section.kind}, {network_of(recipe).vocab:,} ids")
    if name == "init":
        return Line(name, section.model)
    if name == "questions":
        held = section.test or f"{section.heldout:.0%}"
        return Line(
            name, f"{section.file}, held out {held}; dialogs {section.dialogs or 'of their solutions'}"
        )
    if name == "mixture":
        return Line(name, ", ".join(f"{k} {v:.0%}" for k, v in section.fractions.items()))
    if name == "pivotal":
        what = f"{show_count(section.questions)} questions, at most {section.rollouts} rollouts a side"
        return Line(name, what, tokens=section.budget or None)
    if name == "judged":
        most = section.prompts * section.samples * section.max_tokens
        return Line(name, f"{show_count(section.prompts)} prompts x {section.samples}", tokens=most)
    if name == "eval":
        return Line(name, f"{section.problems:,} problems x {section.samples} samples")
    return Line(name, "GGUF " + ", ".join(section.gguf) if name == "export" else "one page")


def _train_line(recipe: Recipe, name: str, train: Train) -> Line:
    memory = train_memory(recipe, train)
    kind = "DPO" if isinstance(train, Dpo) else "LM"
    lora = train.lora if isinstance(train, PostTrain) else None
    kind += f", lora rank {lora.rank}" if lora else ""
    what = f"{kind}, {train.optimizer}, lr {train.lr:g}, {train.batch:,} rows x {train.context:,}"
    tokens: int | None = getattr(train, "tokens", None)
    if tokens is None:
        epochs = getattr(train, "epochs", None) or 1
        return Line(name, f"{what}, {epochs:g} epoch{'s' * (epochs != 1)}", memory=memory)
    steps = -(-tokens // (train.batch * train.context))
    flops = flops_of(network_of(recipe), tokens, causal_pairs(tokens, train.context))
    return Line(name, what, tokens, steps, flops, memory)
