"""Rates of this rank for `train.cost.Device`, while the other ranks measure theirs.

Microbenchmarks in turns: a matrix product, a few operations on next to nothing, now and then attention's products, a
copy, a collective. So each finds caches, cores and the other ranks as the parts of a step do: an operation on 16
numbers takes ten times as long after a product as after itself, and a collective waits for the slower rank. Means, for
what a step waits for adds up. No network, no loss and no optimizer is run.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from phikit.model.blockwise import BLOCK
from phikit.model.product import product

SETS = 3  # of a block's weights, in turns: caches hold none of them
SECONDS = ("call", "divided")  # of one; the others are rates a second


def clock() -> float:
    """Wall time, or CPU time of this process."""
    return time.process_time() if os.environ.get("CLOCK") == "cpu" else time.perf_counter()


class Rates:
    """Work and seconds by kind."""

    def __init__(self) -> None:
        self._work: dict[str, float] = defaultdict(float)
        self._took: dict[str, float] = defaultdict(float)

    def time(self, kind: str, work: float, call: Callable[[], Any]) -> None:
        begin = clock()
        call()
        self._took[kind] += clock() - begin
        self._work[kind] += work

    def found(self) -> dict[str, float]:
        return {
            k: self._took[k] / n if k in SECONDS else n / self._took[k] for k, n in self._work.items() if n
        }


def calibrate(c, ranks, rows: int, turns: int) -> dict[str, float]:
    """`turns` as of a block of the network `c`: with as many as it has, products and collectives are together about
    those of one forward and backward pass over `rows` rows."""
    layout = ranks.layout
    tokens = rows * c.context // layout.cp
    rates, products = Rates(), _products(c, layout, tokens)
    head = _product(tokens, c.vocab // layout.tp, c.width, _way(layout))
    attention, copies, few = _attention(c, layout, rows), _copies(c, tokens), _few()
    block, rest = _collectives(c, ranks, tokens)
    divided = _divided(ranks) if layout.tp > 1 else None
    ranks.wait()
    for turn in range(-1, turns):
        if turn == 0:
            rates = Rates()  # what came before warmed memory up
        outside = turn < 0 or turn % c.layers == 0  # of blocks: once a pass
        of_turn = products + (head if outside else [])
        for i, (flops, calls) in enumerate(of_turn):
            rates.time("matmul", flops, calls[turn % len(calls)])
            rates.time("call", few[0], few[1])
            if divided:
                rates.time("divided", *divided)
            for size, copy in copies[i % len(copies)]:
                rates.time("copy", size, copy)
            a, b = (j * len(block) // len(products) for j in (i, i + 1))
            for kind, size, collective in block[a:b]:
                rates.time(kind, size, collective)
        for flops, calls in attention:
            rates.time("attention", flops, calls[0])
        if outside:
            for kind, size, collective in rest:
                rates.time(kind, size, collective)
    return rates.found()


Timed = list[tuple[float, list[Callable[[], Any]]]]  # FLOPs of each; the same on other weights


Way = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # x, w -> x w^T


def _way(layout) -> Way:
    """`model.fused` has a product of its own; divided weights go to torch's."""
    return product if layout.tp == 1 else lambda x, w: x @ w.T


def _product(tokens: int, out: int, into: int, way: Way) -> Timed:
    """Forward, and the gradients of input and weight."""
    x, g = torch.randn(tokens, into), torch.randn(tokens, out)
    weights = [torch.randn(out, into) for _ in range(SETS)]
    flops = 2.0 * tokens * out * into
    return [
        (flops, [lambda w=w: way(x, w) for w in weights]),
        (flops, [lambda w=w: way(g, w.T) for w in weights]),
        (flops, [lambda: g.T @ x]),
    ]


def _products(c, layout, tokens: int) -> Timed:
    """Of one block: as `model.fused` has them, or one by one where heads are divided; forward, then backward."""
    tp, kv, width = layout.tp, c.kv_heads * c.head_dim, c.width
    if tp == 1:
        shapes = [(width + 2 * kv, width), (width, width), (2 * c.ffn, width), (width, c.ffn)]
    else:
        shapes = [(width // tp, width), (kv // tp, width), (kv // tp, width), (width, width // tp)]
        shapes += [(c.ffn // tp, width), (c.ffn // tp, width), (width, c.ffn // tp)]
    made = [_product(tokens, *s, _way(layout)) for s in shapes]
    return [m[0] for m in made] + [x for m in reversed(made) for x in m[1:]]


def _attention(c, layout, rows: int) -> Timed:
    """Scores of blocks of queries, and what they are multiplied with."""
    heads, kv = rows * c.heads // layout.tp // layout.cp, max(1, rows * c.kv_heads // layout.tp // layout.cp)
    q, found = torch.randn(kv, heads // kv * BLOCK, c.head_dim), []
    for end in range(BLOCK, c.context + 1, BLOCK):
        keys, scores = torch.randn(kv, end, c.head_dim), torch.randn(kv, q.shape[1], end)
        flops = 2.0 * q.numel() * end
        found.append((flops, [lambda k=keys: torch.bmm(q, k.mT)]))
        found.append((flops, [lambda k=keys, s=scores: torch.bmm(s, k)]))
        found.append((flops, [lambda s=scores: torch.bmm(s.mT, q)]))
    return found


def _copies(c, tokens: int) -> list[list[tuple[float, Callable[[], Any]]]]:
    """Of the residual stream, and of a matrix of weights: as many bytes of both. Read and written."""
    found = []
    for size in (tokens * c.width, c.ffn * c.width):
        a, b = torch.randn(SETS, size), torch.empty(SETS, size)
        found.append([(8.0 * size, lambda a=a[i], b=b[i]: b.copy_(a)) for i in range(SETS)])
    return found


def _few() -> tuple[int, Callable[[], Any]]:
    """Operations on 16 numbers, and how many."""
    a, b = torch.zeros(16), torch.zeros(16)

    def run() -> None:
        for _ in range(2):
            (a * b).view(4, 4).transpose(0, 1).add_(a.view(4, 4))

    return _count(run)


def _divided(ranks) -> tuple[int, Callable[[], Any]]:
    """Operations on DTensors of small maps divided by outputs, forward and backward, on their way from plain tensors
    and back; nothing is sent."""
    from torch.distributed.tensor import DTensor, Replicate
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    mesh = ranks.shards["tp"]
    style = ColwiseParallel(use_local_output=False)
    module = parallelize_module(nn.Linear(16, 16, bias=False), mesh, style)
    x = torch.zeros(1, 16, 16)  # with rows, as the network's

    def run() -> None:
        out = [module(DTensor.from_local(x, mesh, [Replicate()], run_check=False)) * 2.0 for _ in range(4)]
        torch.stack([y.to_local() for y in out]).sum().backward()

    return _count(run)


class _Operations(TorchDispatchMode):
    """Counts as the trace of a plan does: on DTensors where there are any."""

    def __init__(self) -> None:
        super().__init__()
        self.all = self.divided = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        from torch.distributed.tensor import DTensor

        self.all += 1
        self.divided += any(isinstance(x, DTensor) for x in args)
        return func(*args, **(kwargs or {}))


def _count(run: Callable[[], Any]) -> tuple[int, Callable[[], Any]]:
    run()
    with _Operations() as seen:
        run()
    return seen.divided or seen.all, run


def _collectives(c, ranks, tokens: int):
    """(kind, bytes that cross a link, the call) of what this layout sends: for one block, and outside of blocks."""
    if ranks.shards is None:
        return [], []
    layout, block, rest = ranks.layout, [], []
    group = {name: ranks.shards[name].get_group() for name in ("shard", "tp")}

    def add(to: list, kind: str, name: str, count: int) -> None:
        n = dist.get_world_size(group[name])
        whole, part = torch.randn(count // n * n), torch.empty(count // n)
        calls = {
            "all_reduce": lambda: dist.all_reduce(whole, group=group[name]),
            "all_gather": lambda: dist.all_gather_single(whole, part, group=group[name]),
            "reduce_scatter": lambda: dist.reduce_scatter_single(part, whole, group=group[name]),
            "all_to_all": lambda: dist.all_to_all_single(torch.empty_like(whole), whole, group=group[name]),
        }
        to.append((kind, whole.nbytes * (2 if kind == "all_reduce" else 1) * (n - 1) / n, calls[kind]))

    of_block = c.width * (2 * c.width + 2 * c.kv_heads * c.head_dim + 3 * c.ffn) // layout.tp
    shards = layout.fsdp * layout.cp > 1
    if shards:
        add(block, "all_gather", "shard", of_block)
    for _ in range(2 if layout.tp > 1 else 0):
        add(block, "all_reduce", "tp", tokens * c.width)
    if shards:
        add(block, "all_gather", "shard", of_block)
    for _ in range(2 if layout.tp > 1 else 0):
        add(block, "all_reduce", "tp", tokens * c.width)
    if shards:
        add(block, "reduce_scatter", "shard", of_block)
        for kind in ("all_gather", "reduce_scatter"):
            add(rest, kind, "shard", 2 * c.vocab * c.width // layout.tp)
    return block, rest
