"""The processes of a training run: who they are, which of them share what, and sums over them.

torchrun starts the processes; without it there is one, and no process group is made. On the CPU they talk through
gloo, on CUDA through NCCL, by the same code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous

from phikit.model.layout import Layout, device_of
from phikit.model.pulse import Pulse

# Others wait here while rank 0 works alone: stages that are not training, the writing of a network.
PATIENCE = timedelta(days=30)


def world() -> tuple[int, int]:
    """(rank, ranks) as torchrun set them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Makes the process group where torchrun started several processes; again: nothing."""
    rank, ranks = world()
    if ranks == 1 or dist.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    store = next(rendezvous("env://", rank, ranks, timeout=PATIENCE))[0]
    # torchrun keeps its store when it starts ranks again: addresses in it would be those of the ranks before.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=PATIENCE)


def leave() -> None:
    """Ends the process group, and forgets what was made on it."""
    if _pulse.cache_info().currsize:
        _pulse().end()
    if dist.is_initialized():
        dist.destroy_process_group()
    for made in (_pulse, _meshes, _everyone, control_group):
        made.cache_clear()


class Ranks:
    """This process among those of `layout`. Raises ValueError where torchrun started another number."""

    def __init__(self, layout: Layout) -> None:
        join()
        self.layout = layout
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        started = dist.get_world_size() if dist.is_initialized() else 1
        if started != layout.ranks:
            raise ValueError(
                f"layout is replicas {layout.replicas} x fsdp {layout.fsdp} x cp {layout.cp} x tp {layout.tp} = "
                f"{layout.ranks} ranks, but {started} run: start `torchrun --nproc-per-node {layout.ranks}`, or set "
                f"layout.fsdp to {max(1, started // (layout.replicas * layout.cp * layout.tp))}"
            )
        self.device = device_of(layout)
        self.shards: DeviceMesh | None = None  # (replicas, shard, tp)
        self.data_rank, self.cp_rank = 0, 0
        self.cp_group: dist.ProcessGroup | None = None
        if started > 1:
            self.rest()  # a rank comes when its own preparations are done
            self._all = _everyone(layout.timeout)
            self.shards, rows = _meshes(self.device.type, layout)
            self.data_rank, self.cp_rank = rows.get_local_rank("data"), rows.get_local_rank("cp")
            self.cp_group = rows["cp"].get_group()
            # tp ranks hold the same sums: they are not added up.
            self._rows = [rows["data"].get_group()], [rows["data"].get_group(), self.cp_group]

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Sequence[float | torch.Tensor], *, cp: bool = False) -> list[float]:
        """Sums over the ranks that rows are divided among; `cp`: and over those that divide a row's tokens."""
        if self.shards is None:
            return [float(v) for v in values]
        found = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=self.device) for v in values])
        for group in self._rows[cp]:
            dist.all_reduce(found, group=group)
        return found.tolist()

    def any(self, flag: int) -> int:
        """The largest of all ranks' flags."""
        if self.shards is None:
            return flag
        found = torch.tensor(flag, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX, self._all)
        return int(found)

    def tell(self, value):
        """Rank 0's value, a plain one, on every rank; they wait as long as it takes rank 0 to find it."""
        if self.shards is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return box[0]

    def wait(self) -> None:
        if self.shards is not None:
            dist.barrier(self._all)

    def rest(self) -> None:
        """As `wait`, however long one of them works alone."""
        if dist.is_initialized():
            dist.barrier()

    @contextmanager
    def together(self, doing: str) -> Iterator[None]:
        """Within, a rank waits `layout.timeout` seconds for another. Raises RankLost, which names those that are
        gone."""
        if self.shards is None:
            yield
            return
        for group in {g for mesh in _meshes(self.device.type, self.layout) for g in mesh.get_all_groups()}:
            dist.distributed_c10d._set_pg_timeout(timedelta(seconds=self.layout.timeout), group)
        self.does(doing)
        with _pulse().guard():
            yield

    def does(self, what: str) -> None:
        """For other ranks to know, should one be missed."""
        if self.shards is not None:
            _pulse().at = what


@cache
def _meshes(device: str, layout: Layout) -> tuple[DeviceMesh, DeviceMesh]:
    shards = init_device_mesh(
        device,
        (layout.replicas, layout.fsdp * layout.cp, layout.tp),
        mesh_dim_names=("replicas", "shard", "tp"),
    )
    rows = init_device_mesh(device, (layout.data, layout.cp, layout.tp), mesh_dim_names=("data", "cp", "tp"))
    return shards, rows


@cache
def _pulse() -> Pulse:
    return Pulse()


@cache
def _everyone(seconds: float) -> dist.ProcessGroup:
    return dist.new_group(timeout=timedelta(seconds=seconds))  # type: ignore[return-value]


@cache
def control_group(seconds: float) -> dist.ProcessGroup:
    """gloo among all ranks, for what goes on beside training; every rank must ask for it."""
    return dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))  # type: ignore[return-value]
