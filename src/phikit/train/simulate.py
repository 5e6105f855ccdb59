"""One training step of the real, sharded network, without its memory, its arithmetic or its ranks.

The network is built on the meta device, laid out by `parallelize` on a process group that sends nothing, and run
forward and backward on fake tensors: every operation of one rank passes by with its shapes. From them follow the
memory by kind, what is sent over each group, and the time of a stated roofline. One process, no GPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from phikit.model.attention import Ulysses
from phikit.model.config import ModelConfig
from phikit.model.documents import Documents
from phikit.model.layout import CUDA_CHUNK, Layout
from phikit.model.logprob import weighted_nll
from phikit.model.parallel import parallelize
from phikit.model.ranks import Ranks, leave
from phikit.model.transformer import Transformer
from phikit.train.cost import Memory


@dataclass
class Trace:
    """Of one forward and backward pass on one rank: FLOPs of matrix products and of attention, bytes that other
    operations read and write, operations, and how many of them are on DTensors; by group and kind the bytes that go
    into collectives, and their number."""

    memory: Memory
    sent: dict[tuple[str, str], list[float]]
    matmul: float = 0.0
    attention: float = 0.0
    moved: float = 0.0
    calls: int = 0
    divided: int = 0
    late: int = 0  # bytes of buffers when activations are gone, and gradients outside blocks are summed


ALLOCATES = "aten::empty", "aten::new_empty"  # and write nothing
IN_PLACE = "_", "_.Tensor", "_.Scalar", "out", ".grad_input"  # ends of names
TRACED = 2, 4  # layers: blocks are alike, so the others follow in a straight line


def trace(config: ModelConfig, layout: Layout, rows: int, context: int, *, cuda: bool) -> Trace:
    """Of one forward and backward pass over `rows` rows of `context` tokens, one document each. `cuda`: as on that
    device (weights gathered in bf16, packed documents by the flash kernel), else as on the CPU. fp8 is taken for
    bf16. The whole network is built and laid out; of its blocks, which are alike, two small numbers are run."""
    config = replace(config, context=context)
    if layout.precision == "fp8":
        layout = replace(layout, precision="bf16")
    with _no_ranks(layout) as ranks:
        if config.layers <= TRACED[1]:
            found = _run(config, ranks, rows, cuda)
        else:
            few, more = (_run(replace(config, layers=n), ranks, rows, cuda) for n in TRACED)
            held = 4 * sum(_local(p).numel() for p in _laid_out(config, ranks, cuda).parameters())
            found = _longer(few, more, (config.layers - TRACED[1]) / (TRACED[1] - TRACED[0]), held)
    m = found.memory
    found.memory = replace(m, buffers=max(m.buffers, found.late - m.activations))
    return found


def _longer(few: Trace, more: Trace, steps: float, held: int) -> Trace:
    def line(a: float, b: float) -> float:
        return b + steps * (b - a)

    memory = Memory(
        held,
        held,
        2 * held,
        round(line(few.memory.activations, more.memory.activations)),
        more.memory.buffers,
    )
    sent = {k: [line(a, b) for a, b in zip(few.sent.get(k, [0.0, 0]), v)] for k, v in more.sent.items()}
    found = Trace(memory, sent, late=more.late)
    for k in ("matmul", "attention", "moved", "calls", "divided"):
        setattr(found, k, line(getattr(few, k), getattr(more, k)))
    return found


def _laid_out(config: ModelConfig, ranks: Ranks, cuda: bool) -> Transformer:
    with torch.device("meta"):
        model = Transformer(config)
    parallelize(model, ranks, compile=False, cuda=cuda)
    return model


def _run(config: ModelConfig, ranks: Ranks, rows: int, cuda: bool) -> Trace:
    from torch._subclasses.fake_tensor import FakeTensorMode

    layout, context = ranks.layout, config.context
    model = _laid_out(config, ranks, cuda)
    held = 4 * sum(_local(p).numel() for p in model.parameters())
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        for p in model.parameters():
            p.grad = torch.zeros_like(p)  # gradients of the forward passes before
        ids = torch.zeros(rows, context // layout.cp, dtype=torch.long)
        mask = Documents(torch.zeros(rows + 1, dtype=torch.int32), context) if cuda else None
        if layout.cp > 1:
            mask = Ulysses(mask, ranks.cp_group, layout.cp)
        weight = torch.ones(ids.numel())
        recorder = _Recorder(
            ranks, [x for p in model.parameters() for x in (_local(p), _local(p.grad))], rows
        )
        with recorder:
            with torch.autocast("cpu", torch.bfloat16, enabled=layout.half):
                hidden = model(ids, ids, None, mask)
                recorder.forward_ends()
                how = {"chunk": CUDA_CHUNK, "step": _one_kernel} if cuda else {}
                loss = weighted_nll(hidden.flatten(0, 1), model.head_weight, ids.flatten(), weight, **how)
            del hidden
            loss.backward()
    weights, summed = _gathered(model, layout, cuda)
    buffers = max(0, recorder.peak - recorder.activations) + weights
    recorder.trace.memory = Memory(held, held, 2 * held, recorder.activations, buffers)
    recorder.trace.late = weights + summed
    return recorder.trace


def _gathered(model: Transformer, layout: Layout, cuda: bool) -> tuple[int, int]:
    """Bytes that FSDP has beside its shards at the worst moment: the weights outside blocks and of two blocks (one
    gathered ahead; copied in time where nothing is divided); gradients of the former and of one block, as computed
    and in fp32 for the sum."""
    if layout.ranks == 1:
        return 0, 0
    size = 2 if cuda and layout.half else 4
    block = sum(p.numel() for p in model.blocks[0].parameters()) // layout.tp
    rest = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("blocks.")) // layout.tp
    blocks = 2 if layout.fsdp * layout.cp > 1 else 1
    return size * (rest + blocks * block), (size + 4) * (rest + block)


def _one_kernel(logits: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor):
    """In place of the compiled step of `weighted_nll`: the tensors that it makes."""
    return weight.sum(), torch.empty_like(logits)


@contextmanager
def _no_ranks(layout: Layout) -> Iterator[Ranks]:
    """Ranks of a process group that sends nothing."""
    if dist.is_initialized():
        raise ValueError("a plan is made by one process: start it without torchrun")
    if layout.ranks > 1:
        from torch.testing._internal.distributed.fake_pg import FakeStore

        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=layout.ranks)
    try:
        yield Ranks(replace(layout, device="cpu"))
    finally:
        leave()


class _Recorder(TorchDispatchMode):
    """Adds up what passes by. Memory: bytes of all storages that live, weights, gradients and inputs left out."""

    def __init__(self, ranks: Ranks, held: list[torch.Tensor], rows: int) -> None:
        super().__init__()
        self._rows = rows
        self.trace = Trace(Memory(0, 0, 0, 0, 0), {})
        self._held = {_key(x) for x in held}
        self.peak = self.activations = 0
        self._live: dict[int, weakref.ref] = {}
        self._gathered: set[int] = set()
        self._groups: dict[str, str] = {}
        if ranks.shards is not None:
            self._groups = {ranks.shards[n].get_group().group_name: n for n in ("replicas", "shard", "tp")}
            if ranks.cp_group is not None and ranks.layout.cp > 1:
                self._groups[ranks.cp_group.group_name] = "cp"

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        if name == "aten::_local_scalar_dense":  # no values to branch on: what is rare does not happen
            return False if args[0].dtype == torch.bool else 0
        out = func(*args, **(kwargs or {}))
        if name.startswith(("prim::", "profiler::")):  # of fake tensors and labels: no work of a real step
            return out
        outputs = [_local(x) for x in _flat(out) if isinstance(x, torch.Tensor)]
        inputs = [_local(x) for x in _flat((args, kwargs)) if isinstance(x, torch.Tensor)]
        self._remember(outputs)
        if name.startswith(("fsdp::", "c10d::")):  # gathered weights, gradients that are summed: `_gathered`
            self._gathered |= {_key(x) for x in (*inputs, *outputs)}
        t, before = self.trace, {_key(x) for x in inputs}
        new = [x for x in outputs if _key(x) not in before]
        written = name.startswith("fsdp::") and "out" in (kwargs or {})
        t.calls += 1
        t.divided += any(isinstance(x, DTensor) for x in _flat((args, kwargs)))
        if "c10d" in name:
            self._send(name, args, inputs)
        elif name.startswith(("aten::mm", "aten::addmm", "aten::bmm")):
            a, b = [_local(x) for x in args if isinstance(x, torch.Tensor)][-2:]
            flops = 2.0 * a.numel() * b.shape[-1]
            if name.startswith("aten::bmm"):  # of attention by blocks of queries
                t.attention += flops
            else:
                t.matmul += flops
        elif "documents" in name or "scaled_dot_product" in name:
            back = "backward" in name
            q, k = (inputs[1], inputs[2]) if back else inputs[:2]
            t.attention += self._attention(q, k, name, self._rows) * (2.5 if back else 1.0)
        elif not name.startswith(ALLOCATES) and (new or written or name.endswith(IN_PLACE)):
            t.moved += sum(x.numel() * x.element_size() for x in (*inputs, *(new or outputs[:1])))
        self._measure()
        return out

    @staticmethod
    def _attention(q: torch.Tensor, k: torch.Tensor, name: str, rows: int) -> float:
        """Of causal rows; `documents` has them end to end."""
        if "documents" in name:
            n, heads, h = q.shape
            return 2.0 * n * heads * h * n / rows
        b, heads, t, h = q.shape
        return 4.0 * b * heads * t * k.shape[2] * h

    def _send(self, name: str, args, inputs) -> None:
        if "wait" in name or not inputs:
            return
        kind = next(
            (
                k
                for k in ("all_gather", "reduce_scatter", "all_reduce", "all_to_all")
                if k.replace("_", "") in name.replace("_", "")
            ),
            name,
        )
        group = next(g for a in _flat(args) if (g := self._groups.get(_group_name(a))))
        if group == "cp" and kind in ("all_gather", "reduce_scatter"):
            group = "shard"  # of the same ranks where fsdp is 1
        size = max(x.numel() * x.element_size() for x in inputs)
        row = self.trace.sent.setdefault((group, kind), [0.0, 0])
        row[0] += size
        row[1] += 1

    def _remember(self, outputs: list[torch.Tensor]) -> None:
        for x in outputs:
            storage = x.untyped_storage()
            key = storage._cdata
            if key in self._held:
                continue
            known = self._live.get(key)
            if known is None or known() is None:
                self._live[key] = weakref.ref(storage)
                self._gathered.discard(key)

    def _sizes(self) -> Iterator[tuple[int, int]]:
        for key, ref in list(self._live.items()):
            storage = ref()
            if storage is None:
                del self._live[key]
            else:
                yield key, storage.nbytes()

    def _measure(self) -> None:
        if self.trace.calls % 16 == 0:
            self.peak = max(self.peak, sum(n for k, n in self._sizes() if k not in self._gathered))

    def forward_ends(self) -> None:
        """What lives now is kept for the backward pass, but for weights that are gathered."""
        self.activations = sum(n for k, n in self._sizes() if k not in self._gathered)


def _group_name(x) -> str:
    """Collectives name their group, or hold it in a box beside one of the operation."""
    if isinstance(x, torch.ScriptObject):
        try:
            return dist.ProcessGroup.unbox(x).group_name
        except RuntimeError:
            return ""
    return x if isinstance(x, str) else ""


def _local(x) -> torch.Tensor:
    """This rank's part. A mode sees operations on DTensors, whose own shapes are those of all ranks."""
    return x._local_tensor if isinstance(x, DTensor) else x


def _key(x: torch.Tensor) -> int:
    return x.untyped_storage()._cdata


def _flat(value) -> Iterator:
    if isinstance(value, tuple | list):
        for v in value:
            yield from _flat(v)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    else:
        yield value
