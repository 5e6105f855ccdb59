"""`phikit plan --gpus`: what one stage costs on a cluster, from the real sharded network on fake tensors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields, replace

from phikit.model.layout import Layout, misfits
from phikit.recipe.plan import layout_of, network_of
from phikit.recipe.schema import Recipe
from phikit.recipe.units import show_bytes, show_count
from phikit.train.cost import DEVICES, causal_pairs, groups, step_seconds, train_flops
from phikit.train.simulate import trace

# The model card of the published run.
PUBLISHED = {"gpus": 1920, "days": 21, "tokens": 9.8e12}


def layout_for(layout: Layout, gpus: int) -> Layout:
    """With so many replicas that all GPUs are used. Raises ValueError where they do not divide."""
    group = layout.fsdp * layout.cp * layout.tp
    if gpus % group:
        raise ValueError(
            f"--gpus {gpus} is not a multiple of layout.fsdp x cp x tp = {group}: change one of them"
        )
    return replace(layout, replicas=gpus // group)


def print_cluster(
    recipe: Recipe, stage: str, gpus: int, device: str, mfu: float, say: Callable[[str], None]
) -> int:
    """Prints the plan of one training stage; 1 where it does not fit the device. Raises ValueError for an unknown
    device, or a layout that does not fit the network."""
    if device not in DEVICES:
        raise ValueError(f"--device {device}: known are {', '.join(DEVICES)}")
    begin = time.monotonic()
    d, train = DEVICES[device], getattr(recipe, stage)
    if train is None or not getattr(train, "tokens", None):
        raise ValueError(f"--stage {stage}: the recipe has no such stage with a number of tokens")
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
    passes, rest = divmod(rows, micro)
    if rest:
        raise ValueError(
            f"{stage}.micro {micro} does not divide the {rows} rows of a rank: change it or --gpus"
        )
    found = trace(c, layout, micro, train.context, cuda=True)
    tokens = train.batch * train.context
    flops = train_flops(c, tokens, causal_pairs(tokens, train.context))
    took = step_seconds(d, layout, found, passes)
    step = sum(took.values())
    own = flops / step / (gpus * d.peak)
    steps = train.tokens / tokens
    say(f"{recipe.name} {stage}: {c.parameters:,} parameters, {show_count(train.tokens)} tokens, {steps:,.0f} steps of "
        f"{train.batch:,} rows x {train.context:,}")  # fmt: skip
    say(f"{gpus:,} {device} = replicas {layout.replicas} x fsdp {layout.fsdp} x cp {layout.cp} x tp {layout.tp}; "
        f"{passes} passes of {micro} rows a step; recompute {layout.recompute}, "
        f"compile {layout.compile}")  # fmt: skip
    memory = found.memory
    kinds = ", ".join(f"{f.name} {show_bytes(getattr(memory, f.name))}" for f in fields(memory))
    say(f"memory of a GPU: {show_bytes(memory.total)} of {show_bytes(int(d.memory))} ({kinds})")
    for (group, kind), (size, calls) in sorted(found.sent.items()):
        n, apart = groups(layout)[group]
        if n > 1:
            times = 1 if group == "replicas" else passes
            link = "in a node" if n * apart <= d.node else "across nodes"
            sent = f"{show_bytes(int(size * times))} in {calls * times:,.0f} calls"
            alone = d.collective(kind, size * times, n, apart)
            say(f"  {group} ({n} ranks, {link}) {kind}: {sent} a step and rank, {alone:.2f} s by themselves")
    if layout.precision == "fp8":
        say(
            "fp8 is planned as bf16: its rate was not measured here, and gathered weights are half of what stands above"
        )
    say(f"roofline: matrix products {d.matmul / 1e12:.0f}, attention {d.attention / 1e12:.0f} TFLOP/s, copies "
        f"{d.copy / 1e12:.1f} TB/s, links {d.near / 1e9:.0f} GB/s in a node of {d.node} and "
        f"{d.far / 1e9:.0f} across")  # fmt: skip
    say(f"a step: {step:.2f} s (" + ", ".join(f"{k} {v:.2f}" for k, v in took.items() if v >= 0.005) + ")")
    for name, rate in (("by this roofline", own), ("at --mfu", mfu)):
        if not rate:
            continue
        days = steps * flops / (gpus * d.peak * rate) / 86_400
        say(f"{name}: MFU {rate:.1%}, {days:.1f} days, {days * 24 * gpus / 1e6:.2f} M GPU hours, "
            f"{days * 24 * gpus * d.hour / 1e6:.1f} M at {d.hour:g} an hour")  # fmt: skip
    p = PUBLISHED
    if stage == "pretrain":
        implied = p["tokens"] / tokens * flops / (p["gpus"] * d.peak * p["days"] * 86_400)
        run = f"{p['gpus']:,} H100, {p['days']} days, {p['tokens'] / 1e12:g} T tokens"
        say(f"the published run ({run}) implies MFU {implied:.1%}")
    say(f"planned in {time.monotonic() - begin:.0f} s")
    if memory.total > d.memory:
        say(f"error: {show_bytes(memory.total)} do not fit {show_bytes(int(d.memory))}: set layout.recompute to "
            f"blocks, lower {stage}.micro, or raise layout.fsdp")  # fmt: skip
        return 1
    return 0
