"""`phikit plan --gpus`: what one stage costs on a cluster, from the real sharded network on fake tensors."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from phikit.model.config import PHI4, ModelConfig
from phikit.model.layout import Layout, misfits
from phikit.recipe.plan import FP8, counted, layout_of, network_of
from phikit.recipe.schema import Recipe, Train
from phikit.recipe.units import show_bytes, show_count
from phikit.train.cost import DEVICES, Device, causal_pairs, groups, step_seconds, train_flops

if TYPE_CHECKING:
    from phikit.train.simulate import Trace

# The model card of the published run.
PUBLISHED = {"gpus": 1920, "days": 21, "tokens": 9.8e12}


@dataclass(frozen=True)
class Cluster:
    """A stage on a cluster: `passes` forward and backward passes of `micro` rows on each rank make a step."""

    name: str  # of recipe and stage
    network: ModelConfig  # its context is that of the stage
    layout: Layout
    device: Device
    tokens: int  # of the stage
    batch: int  # rows of a step
    micro: int
    trace: Trace  # of one pass
    planned: float  # seconds that the plan took

    @property
    def gpus(self) -> int:
        return self.layout.ranks

    @property
    def passes(self) -> int:
        return self.batch // self.layout.data // self.micro

    @property
    def step_tokens(self) -> int:
        return self.batch * self.network.context

    @property
    def step_flops(self) -> float:
        return train_flops(
            self.network, self.step_tokens, causal_pairs(self.step_tokens, self.network.context)
        )

    @property
    def seconds(self) -> dict[str, float]:
        """Of a step, by what they go to."""
        return step_seconds(self.device, self.layout, self.trace, self.passes)

    @property
    def mfu(self) -> float:
        return self.step_flops / sum(self.seconds.values()) / (self.gpus * self.device.peak)

    def days(self, tokens: float, mfu: float) -> float:
        return tokens / self.step_tokens * self.step_flops / (self.gpus * self.device.peak * mfu) / 86_400

    def price(self, days: float) -> float:
        return days * 24 * self.gpus * self.device.hour

    @property
    def fits(self) -> bool:
        return self.trace.memory.total <= self.device.memory


def layout_for(layout: Layout, gpus: int) -> Layout:
    """With so many replicas that all GPUs are used. Raises ValueError where they do not divide."""
    group = layout.fsdp * layout.cp * layout.tp
    if gpus % group:
        raise ValueError(
            f"--gpus {gpus} is not a multiple of layout.fsdp x cp x tp = {group}: change one of them"
        )
    return replace(layout, replicas=gpus // group)


def stage_of(recipe: Recipe, stage: str) -> tuple[Train, int]:
    """The stage and its tokens. Raises ValueError where the recipe does not train it for a number of tokens."""
    train = getattr(recipe, stage, None)
    tokens: int | None = getattr(train, "tokens", None)
    if not isinstance(train, Train) or not tokens:
        raise ValueError(f"--stage {stage}: the recipe has no such stage with a number of tokens")
    return train, tokens


def device_named(name: str) -> Device:
    if name not in DEVICES:
        raise ValueError(f"--device {name}: known are {', '.join(DEVICES)}")
    return DEVICES[name]


def plan_cluster(recipe: Recipe, stage: str, gpus: int, device: str) -> Cluster:
    """Raises ValueError for an unknown device or stage, or a layout that does not fit the network."""
    from phikit.train.simulate import trace

    begin = time.monotonic()
    d, (train, tokens) = device_named(device), stage_of(recipe, stage)
    layout = layout_for(layout_of(recipe), gpus)
    c = replace(network_of(recipe), context=train.context)
    rows, rest = divmod(train.batch, layout.data)
    if rest:
        raise ValueError(
            f"{stage}.batch {train.batch} does not divide among {layout.data} data ranks: change --gpus"
        )
    if wrong := misfits(c, layout, train.context):
        raise ValueError("; ".join(wrong))
    micro = train.micro or rows
    if rows % micro:
        raise ValueError(
            f"{stage}.micro {micro} does not divide the {rows} rows of a rank: change it or --gpus"
        )
    found = trace(c, layout, micro, train.context, cuda=True)
    return Cluster(
        f"{recipe.name} {stage}", c, layout, d, tokens, train.batch, micro, found, time.monotonic() - begin
    )


def cluster_lines(made: Cluster, mfu: float) -> list[str]:
    """What people read: memory, what is sent, a step, days and price by the roofline and at `mfu` (0: not)."""
    layout, d, c = made.layout, made.device, made.network
    memory, seconds = made.trace.memory, made.seconds
    lines = [
        f"{made.name}: {c.parameters:,} parameters, {show_count(made.tokens)} tokens, "
        f"{made.tokens / made.step_tokens:,.0f} steps of {made.batch:,} rows x {c.context:,}",
        f"{made.gpus:,} {d.name} = replicas {layout.replicas} x fsdp {layout.fsdp} x cp {layout.cp} x tp {layout.tp}; "
        f"{counted(made.passes, 'pass', 'passes')} of {counted(made.micro, 'row', 'rows')} a step; "
        f"recompute {layout.recompute}, compile {layout.compile}",
        f"memory of a GPU: {show_bytes(memory.total)} of {show_bytes(int(d.memory))} (" + ", ".join(
            f"{f.name} {show_bytes(getattr(memory, f.name))}" for f in fields(memory)
        ) + ")",
    ]  # fmt: skip
    if layout.compile:
        lines.append(
            "  of eager blocks: compiled ones keep less (61.7 GB where 68.7 were planned, measured on an H100)"
        )
    if layout.precision == "fp8":
        lines.append("  " + FP8)
    lines += _sent(made)
    lines.append(
        f"roofline: matrix products {d.matmul / 1e12:.0f}, attention {d.attention / 1e12:.0f} TFLOP/s, copies "
        f"{d.copy / 1e12:.1f} TB/s, links {d.near / 1e9:.0f} GB/s in a node of {d.node} and {d.far / 1e9:.0f} across"
    )
    lines.append(
        f"a step: {sum(seconds.values()):.2f} s ("
        + ", ".join(f"{k} {v:.2f}" for k, v in seconds.items() if v >= 0.005) + ")"
    )  # fmt: skip
    for name, rate in (("by this roofline", made.mfu), ("at --mfu", mfu)):
        if rate:
            days = made.days(made.tokens, rate)
            lines.append(
                f"{name}: MFU {rate:.1%}, {show_days(days)}, {show_count(days * 24 * made.gpus)} GPU hours, "
                f"{show_count(made.price(days))} at {d.hour:g} an hour"
            )
    if made.name.endswith(" pretrain") and c.width == PHI4.width:
        p = PUBLISHED
        implied = p["tokens"] / made.step_tokens * made.step_flops / (p["gpus"] * d.peak * p["days"] * 86_400)
        run = f"{p['gpus']:,} H100, {p['days']} days, {p['tokens'] / 1e12:g} T tokens"
        lines.append(f"the published run ({run}) implies MFU {implied:.1%}")
    lines.append(f"planned in {made.planned:.0f} s")
    if not made.fits:
        lines.append(
            f"error: {show_bytes(memory.total)} do not fit {show_bytes(int(d.memory))}: set layout.recompute to "
            f"blocks, lower {made.name.split()[-1]}.micro, or raise layout.fsdp"
        )
    return lines


def show_days(days: float) -> str:
    return (
        f"{days:.1f} days"
        if days >= 1
        else f"{days * 24:.1f} hours"
        if days * 24 >= 1
        else f"{days * 1440:.0f} min"
    )


def _sent(made: Cluster) -> list[str]:
    """A table of collectives: those over replicas come once a step, others in each pass."""
    layout, d, rows = made.layout, made.device, []
    for (group, kind), (size, calls) in sorted(made.trace.sent.items()):
        n, apart = groups(layout)[group]
        if n > 1:
            times = 1 if group == "replicas" else made.passes
            link = "in a node" if n * apart <= d.node else "across nodes"
            alone = d.collective(kind, size * times, n, apart)
            rows.append(
                f"  {group:<9} {n:>5}  {link:<12}  {kind:<14} {show_bytes(int(size * times)):>8} "
                f"{calls * times:>9,.0f} {alone:>8.2f} s"
            )
    head = f"  {'group':<9} {'ranks':>5}  {'link':<12}  {'collective':<14} {'bytes':>8} {'calls':>9} {'alone':>10}"
    return ["sent by a rank in a step:", head, *rows] if rows else []
