"""A device for tests where there is none: tensors that lie in ordinary memory, say that they are elsewhere (torch's
label `meta`, the only one that a build without CUDA lets through), and refuse what a tensor on CUDA refuses.

Every operation runs on the memory behind them with the CPU's kernels. An operation that mixes a tensor of this device
with one of the host raises as CUDA does (numbers of no dimension, copies and indices aside), and so do `numpy` and
`from_numpy` memory without a copy.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
CROSSING = {"aten::_to_copy", "aten::copy_"}  # the operations that may join the two
# Indices may come from the host, at the price of a wait: the engine is held to its own device all the same.
ATTENTION = "aten::_fused_sdp_choice"
MATH = 0


class OnDevice(torch.Tensor):
    """A tensor of the fake device; `memory` is the CPU tensor behind it."""

    memory: torch.Tensor

    @staticmethod
    def __new__(cls, memory: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls, memory.shape, strides=memory.stride(), storage_offset=memory.storage_offset(), dtype=memory.dtype,
            device=DEVICE, requires_grad=False,
        )  # fmt: skip

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = memory

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.memory!r})"

    def tolist(self) -> Any:
        return self.memory.tolist()

    def numpy(self, *args: Any, **kw: Any):
        raise TypeError("can't convert a tensor of the device to numpy: use .cpu()")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class Mode(TorchDispatchMode):
    """Sees the operations that make a tensor on the device out of none."""

    def __init__(self) -> None:
        super().__init__()
        self.crossed = 0  # copies between host and device
        self.made = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {}, self)


def run(func, args, kwargs, mode: Mode | None = None):
    name = func.name().partition(".")[0]
    flat = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    ours = [x for x in flat if isinstance(x, OnDevice)]
    hosts = [x for x in flat if not isinstance(x, OnDevice) and x.dim() > 0]
    if ours and hosts and name not in CROSSING:
        raise RuntimeError(f"{func.name()}: expected all tensors to be on the same device, not on two")
    wanted = kwargs.get("device")
    target = torch.device(wanted).type if wanted is not None else None
    if name == ATTENTION and ours:
        return MATH
    if name == "aten::_local_scalar_dense":
        return func(*(unwrap(x) for x in args))
    if target == DEVICE.type:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    there = target == DEVICE.type or (target is None and bool(ours))
    if mode is not None and name in CROSSING and (target is not None or (ours and hosts)):
        mode.crossed += 1
    if name.endswith("_") and not name.endswith("__") and isinstance(args[0], torch.Tensor):
        return args[0]  # in place
    if not there:
        return out.clone() if name == "aten::_to_copy" and ours else out
    if mode is not None and not ours:
        mode.made += 1
    with torch.inference_mode(False):  # torch cannot detach a wrapper that was made in it
        return tree_map(lambda x: OnDevice(x) if isinstance(x, torch.Tensor) else x, out)


def unwrap(x: Any) -> Any:
    return x.memory if isinstance(x, OnDevice) else x


@contextmanager
def fake_device():
    """While it lasts `device=DEVICE` is understood; yields the mode, which counts."""
    with Mode() as mode:
        yield mode


def moved(module: torch.nn.Module) -> None:
    """Puts the parameters of a module on the fake device."""
    for owner in module.modules():
        for name, p in list(owner.named_parameters(recurse=False)):
            setattr(owner, name, torch.nn.Parameter(OnDevice(p.detach()), requires_grad=False))
