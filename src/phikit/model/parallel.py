"""Parallelism, applied from outside: the network file knows nothing of it.

In this order: products in fp8, tensor parallelism, compilation of each block, recomputation of blocks, FSDP2 (HSDP with
replicas).
Context parallelism is in the mask (`Ulysses`), and the loss of a head divided by vocabulary in `model.logprob`.
Between the parts of a block activations are whole on every tp rank: attention and MLP each end in one all-reduce.
"""

from __future__ import annotations

import warnings
from functools import partial

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, distribute_module
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.parallel.style import ParallelStyle
from torch.utils.checkpoint import checkpoint

from phikit.model import fp8
from phikit.model.fused import fuse
from phikit.model.layout import Layout, kernel_of, misfits
from phikit.model.logprob import shared
from phikit.model.ranks import Ranks
from phikit.model.transformer import Transformer


def parallelize(
    model: Transformer,
    ranks: Ranks,
    *,
    compile: bool = True,
    half: bool | None = None,
    cuda: bool | None = None,
) -> None:
    """Moves the network to its devices. `compile`: whether the shapes of this stage repeat, so that layout.compile
    holds. `cuda`: as on that device, by default where it is. There, unless precision is fp32, `half`: bf16 in the
    residual stream and in gathered weights. On the CPU blocks that are not compiled are `model.fused`'s. Raises
    ValueError where the layout does not fit the network or the device."""
    layout = ranks.layout
    if cuda is None:
        cuda = ranks.device.type == "cuda"
    if half is None:
        half = layout.half and cuda
    if wrong := misfits(model.config, layout, model.config.context):
        raise ValueError("; ".join(wrong))
    if layout.precision == "fp8":
        fp8.check(ranks.device)
        fp8.convert(model, gathered=ranks.shards is not None)
    if ranks.shards is not None and layout.tp > 1:
        tensor_parallel(model, ranks.shards["tp"])
    for block in model.blocks:  # no wrapper modules: parameters keep their names
        if layout.compile and compile:
            run = torch.compile(block.forward)
        else:
            run = block.forward if cuda else fuse(block)  # type: ignore[arg-type]
        if layout.recompute == "blocks":
            run = partial(checkpoint, run, use_reentrant=False)
        block.forward = run
    if ranks.shards is not None:
        shard(model, ranks.shards, layout, half)
    elif not model.embed.weight.is_meta:
        model.to(ranks.device)
    model.kernel = kernel_of(layout, ranks.device, model.config.context)
    if half:
        model.stream = torch.bfloat16


class Whole(ParallelStyle):
    """A module that every tp rank computes alike. Its weights are DTensors too: clipping needs one mesh."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def inputs(_, args, mesh):
            return (DTensor.from_local(args[0], mesh, [Replicate()], run_check=False), *args[1:])

        def outputs(_, out, mesh):
            return out.to_local(grad_placements=[Replicate()])

        return distribute_module(module, device_mesh, input_fn=inputs, output_fn=outputs)  # type: ignore[arg-type]


class Shared(ParallelStyle):
    """A part of a block whose whole input several divided maps use: their gradients of it are summed once."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def hook(_, args):
            if torch.compiler.is_compiling():  # it takes no function that changes gradients in place
                return DTensor.from_local(args[0], device_mesh, [Replicate()], run_check=False), *args[1:]
            return shared(args[0], device_mesh.get_group()), *args[1:]

        module.register_forward_pre_hook(hook)
        return module


class Wide(ColwiseParallel):
    """Divided by outputs, within a `Shared` module."""

    @staticmethod
    def _prepare_input_fn(input_layouts, desired_input_layouts, mod, inputs, device_mesh):
        return inputs if isinstance(inputs[0], DTensor) else (_Unsummed.apply(inputs[0], device_mesh),)


class _Unsummed(torch.autograd.Function):
    """A whole tensor as a DTensor. Its gradient stays this rank's summand."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, mesh: DeviceMesh):
        return DTensor.from_local(x, mesh, [Replicate()], run_check=False)

    @staticmethod
    def backward(ctx, *grads):
        return grads[0].to_local(), None


class Words(RowwiseParallel):
    """An embedding divided by vocabulary."""

    @staticmethod
    def _prepare_output_fn(output_layouts, use_local_output, mod, outputs, device_mesh):
        found = RowwiseParallel._prepare_output_fn(
            output_layouts, use_local_output, mod, outputs, device_mesh
        )
        # A sum that may still be under way: a compiled block would give no gradient to it.
        return found.clone()


def tensor_parallel(model: Transformer, mesh: DeviceMesh) -> None:
    """Heads, the MLP's width and the vocabulary are divided; every parameter has its place."""
    wide, narrow = Wide(), RowwiseParallel()
    block = {
        "attn_norm": Whole(), "attn.q": wide, "attn.k": wide, "attn.v": wide, "attn.o": narrow, "attn": Shared(),
        "mlp_norm": Whole(), "mlp.gate": wide, "mlp.up": wide, "mlp.down": narrow, "mlp": Shared(),
    }  # fmt: skip
    for b in model.blocks:
        parallelize_module(b, mesh, block, src_data_rank=None)
    rest = {"embed": Words(input_layouts=Replicate()), "norm": Whole()}
    if model.head is not None:
        rest["head"] = ColwiseParallel()
    parallelize_module(model, mesh, rest, src_data_rank=None)


def shard(model: Transformer, mesh: DeviceMesh, layout: Layout, half: bool) -> None:
    """FSDP2 over the mesh's `shard`, gradients summed in fp32; `half`: weights are gathered in bf16."""
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    # The final norm of divided heads is a view of a DTensor; nothing changes it in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    where = mesh["replicas", "shard"] if layout.replicas > 1 else mesh["shard"]
    for block in model.blocks:
        fully_shard(block, mesh=where, mp_policy=policy)
    fully_shard(model, mesh=where, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Sums alone: a loss is divided once, by the count of the whole step.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def whole_network(model: Transformer, ranks: Ranks) -> Transformer | None:
    """The network in the memory of rank 0, on the CPU; None on the others, which must call this too."""
    if ranks.shards is None:
        if ranks.layout.precision == "fp8":
            fp8.revert(model)
        return model.cpu()
    found = None
    if ranks.first:
        with torch.device("meta"):
            found = Transformer(model.config)
        found.to_empty(device="cpu")
    places = dict(found.named_parameters()) if found else {}
    with torch.no_grad():
        for name, p in model.named_parameters():
            full = p.full_tensor() if isinstance(p, DTensor) else p
            if found:
                places[name].copy_(full)
    return found
