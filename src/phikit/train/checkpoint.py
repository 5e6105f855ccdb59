"""Training checkpoints: everything a step depends on, written while training goes on, the newest few kept.

A checkpoint is a folder `step-<n>`: tensors as DCP writes them into safetensors (no pickle is ever read), each rank
its own part, and `meta.json`, written last, with what is no tensor and the digests of all files. Any number of ranks
reads what any other has written. Together with the data order, a pure function of (seed, rows consumed), it makes
resume exact to the last bit on one CPU. A damaged newest checkpoint falls back to the one before.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import xxhash

from phikit.model.ranks import Ranks, control_group
from phikit.records.io import read_json, write_json

META = "meta.json"
_writer = ThreadPoolExecutor(1, "checkpoint")  # its thread begins with the first checkpoint
State = dict[str, torch.Tensor]


class Saver:
    """Writes checkpoints of one run into `folder`, one at a time."""

    def __init__(self, folder: Path, ranks: Ranks, keep: int) -> None:
        self.folder, self.ranks, self.keep = folder, ranks, keep
        self._under_way: Any = None  # a future

    def begin(self, step: int, tensors: State, meta: dict[str, Any]) -> None:
        """Copies the tensors and goes on writing in the background; waits first for the one before."""
        self.finish()
        place = self.folder / f"step-{step:08d}"
        if self.ranks.first:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        self.ranks.wait()
        written = write_tensors(place, tensors, self.ranks)
        first = self.ranks.first
        self._under_way = (
            _writer.submit(self._end, place, {"step": step, **meta}, written) if first else written
        )

    def _end(self, place: Path, meta: dict[str, Any], written: Any) -> None:
        """Rank 0, in the background too, since it reads all files again: once every rank has written, makes the
        checkpoint valid and removes old ones."""
        try:
            end_of(written)
            seal(place, meta)
        except OSError:  # such as a full disk: the ones before stay
            shutil.rmtree(place, ignore_errors=True)
            raise
        for old in _folders(self.folder)[: -self.keep]:
            shutil.rmtree(old)

    def poll(self) -> None:
        """Ends the one under way if it is written."""
        if self._under_way and self._under_way.done():
            self.finish()

    def finish(self) -> None:
        """Waits for the one under way."""
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            end_of(under_way)


def end_of(written: Any) -> None:
    """Waits for a future of `write_tensors`. Raises an OSError where a rank could not write, such as for want of room:
    DCP raises something that is no Exception."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        written.result()
    except CheckpointException as e:
        rank, (why, _) = min(e.failures.items(), key=lambda failure: failure[0])
        said = f"rank {rank} could not write its part of a checkpoint"
        if isinstance(why, OSError) and why.errno:
            raise OSError(why.errno, f"{said}: {why.strerror}", why.filename) from why
        raise RuntimeError(f"{said}: {type(why).__name__}: {why}") from why


def write_tensors(place: Path, tensors: State, ranks: Ranks) -> Any:
    """Begins to write copies; the future ends when every rank has written."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import async_save, save

    writer = HuggingFaceStorageWriter(str(place), save_distributed=True)
    if ranks.shards is not None:
        return async_save(tensors, storage_writer=writer, process_group=control_group(ranks.layout.timeout))
    copies = {k: v.to("cpu", copy=True) for k, v in tensors.items()}

    def write() -> None:
        with _quiet():
            save(copies, storage_writer=writer, no_dist=True)

    return _writer.submit(write)


def seal(place: Path, meta: Mapping[str, Any]) -> None:
    files = sorted(p for p in place.iterdir() if p.suffix == ".safetensors")
    for file in files:
        with file.open("rb+") as f:
            os.fsync(f.fileno())
    write_json(place / META, {**meta, "files": {p.name: _digest(p) for p in files}})


def read_tensors(place: Path, tensors: State, ranks: Ranks) -> None:
    """Fills `tensors` in place, each rank its own part. Raises ValueError where names or shapes are others."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(place))
    written = {k: tuple(v.size) for k, v in reader.read_metadata().state_dict_metadata.items()}  # type: ignore[union-attr]
    wanted = {k: tuple(v.shape) for k, v in tensors.items()}
    if written != wanted:
        odd = next(iter(sorted(written.items() ^ wanted.items())))[0]
        raise ValueError(
            f"{place} holds other tensors, such as {odd!r}: it was written with another network, optimizer or `lora`"
        )
    with _quiet():
        load(tensors, storage_reader=reader, no_dist=ranks.shards is None)


def newest(folder: Path, ranks: Ranks) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint and its meta; rank 0 looks, and removes what is damaged."""
    found = None
    if ranks.first:
        for place in reversed(_folders(folder)):
            meta, why = _check(place)
            if meta is not None:
                found = str(place), meta
                break
            if why:
                print(f"  {place.name} is damaged ({why}); falling back to the one before", file=sys.stderr)
            shutil.rmtree(place)
    found = ranks.tell(found)
    return (Path(found[0]), found[1]) if found else None


def _check(place: Path) -> tuple[dict[str, Any] | None, str]:
    """Its meta, or why not: empty for one that a killed run did not end."""
    if not (place / META).is_file():
        return None, ""
    try:
        meta = read_json(place / META)
        for name, digest in meta["files"].items():
            if _digest(place / name) != digest:
                return None, f"{name} has changed"
    except (OSError, ValueError, KeyError, TypeError) as e:
        return None, f"{type(e).__name__}: {e}"
    return meta, ""


def _digest(file: Path) -> str:
    h = xxhash.xxh3_128()
    with file.open("rb") as f:
        while block := f.read(1 << 22):
            h.update(block)
    return h.hexdigest()


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step-*") if p.is_dir())


@contextmanager
def _quiet() -> Iterator[None]:
    """DCP tells a lone process that it is alone."""
    logger = logging.getLogger("torch.distributed.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
