"""Matrix products in fp8 through torchao: weights, inputs and gradients are scaled by tensor as they are used.

The linear maps of blocks whose sides are multiples of 16, which is what the hardware multiplies; embedding and head
stay in bf16, as do attention, norms and the residual stream. Master weights, gradients and moments are fp32 as with
bf16. Under FSDP2 weights are gathered in fp8: half the bytes of bf16.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from phikit.model.transformer import Transformer

SIDE = 16  # of a matrix, in elements: scaled_mm takes multiples
CAPABILITY = 8, 9  # the first with fp8 tensor cores


def check(device: torch.device) -> None:
    """Raises ValueError where the device or the package has no fp8, with the fix."""
    if device.type != "cuda":
        raise ValueError("layout.precision is fp8, but the device is the CPU: set layout.precision to bf16")
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        raise ValueError(
            f"layout.precision is fp8, but {torch.cuda.get_device_name(device)} (compute capability "
            f"{found[0]}.{found[1]}) has none: it begins with 8.9 (L40, H100); set layout.precision to bf16"
        )
    check_package()


def check_package() -> None:
    if find_spec("torchao") is None:
        raise ValueError(
            "layout.precision is fp8, but torchao is not installed: pip install 'phikit[fp8]', or set "
            "layout.precision to bf16"
        )


def qualifies(module: nn.Module, name: str) -> bool:
    """Whether a module is multiplied in fp8. Maps with adapters are not plain ones."""
    return (
        type(module) is nn.Linear
        and ".blocks." in f".{name}"
        and not any(n % SIDE for n in module.weight.shape)
    )


def convert(model: Transformer, *, gathered: bool, emulate: bool = False) -> list[str]:
    """Swaps the linear maps that qualify; returns their names. Parameters keep names, shapes and values. `gathered`:
    FSDP2 will shard the network and gathers these weights in fp8. `emulate` rounds to fp8 and multiplies in fp32, on
    any device. Raises ValueError where no map qualifies."""
    check_package()
    chosen = [n for n, m in model.named_modules() if qualifies(m, n)]
    if not chosen:
        raise ValueError(
            f"layout.precision is fp8, but no linear map of a block has sides that are multiples of {SIDE}: set "
            "layout.precision to bf16"
        )
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    config = Float8LinearConfig(enable_fsdp_float8_all_gather=gathered, emulate=emulate)
    convert_to_float8_training(model, module_filter_fn=qualifies, config=config)
    return chosen


def revert(model: nn.Module) -> None:
    """Plain linear maps again, with the same parameters."""
    from torchao.float8.float8_linear import Float8Linear

    for name, module in list(model.named_modules()):
        if isinstance(module, Float8Linear):
            with torch.device("meta"):
                plain = nn.Linear(module.in_features, module.out_features, bias=False)
            plain.weight = module.weight
            model.set_submodule(name, plain)


def prepare(model: nn.Module) -> None:
    """After an optimizer step: the scales of all sharded weights in one all-reduce, not one for each."""
    from torchao.float8 import precompute_float8_dynamic_scale_for_fsdp

    precompute_float8_dynamic_scale_for_fsdp(model)
