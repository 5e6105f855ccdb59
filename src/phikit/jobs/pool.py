"""Shard tasks on a local process pool: pure functions, atomic outputs, resume.

A task is `fn(shard) -> result`; its result is written to `work/<index>.json` when it is done, so a killed run
repeats only the shards that were under way. Order of results is the order of shards, whatever the workers did.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from phikit.jobs.progress import bar
from phikit.records.ids import fingerprint
from phikit.records.io import read_json, write_json


class ShardError(RuntimeError):
    """A shard failed; the message names it and what was raised."""


def run_shards(
    fn: Callable[[Any], Any], shards: Sequence[Any], *, work: Path, label: str, workers: int = 1
) -> list[Any]:
    """Results of `fn` over JSON-able `shards`, in order. Done shards are read back from `work`.

    A result belongs to its shard by the shard's fingerprint: a changed shard is computed again.
    Raises ShardError at the first failure; what was finished by then is kept.
    """
    results: list[Any] = [None] * len(shards)
    todo: list[int] = []
    for i, shard in enumerate(shards):
        path = work / f"{i:05d}.json"
        saved = read_json(path) if path.exists() else None
        if saved is not None and saved["key"] == fingerprint(shard):
            results[i] = saved["result"]
        else:
            todo.append(i)

    def keep(i: int, result: Any) -> None:
        results[i] = result
        write_json(work / f"{i:05d}.json", {"key": fingerprint(shards[i]), "result": result})

    with bar(label, total=len(shards), unit="shards") as b:
        b.advance(len(shards) - len(todo))
        if workers <= 1 or len(todo) <= 1:
            for i in todo:
                try:
                    result = fn(shards[i])
                except Exception as e:
                    raise ShardError(f"{label}, shard {i} ({_short(shards[i])}): {e}") from e
                keep(i, result)
                b.advance()
            return results
        # spawn: a forked child of a process that holds torch's thread pools may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(todo)), mp_context=context) as pool:
            futures = {pool.submit(fn, shards[i]): i for i in todo}
            for future in as_completed(futures):
                i = futures[future]
                try:
                    result = future.result()
                except Exception as e:
                    pool.shutdown(cancel_futures=True)
                    raise ShardError(f"{label}, shard {i} ({_short(shards[i])}): {e}") from e
                keep(i, result)
                b.advance()
    return results


def _short(shard: Any) -> str:
    text = str(shard)
    return text if len(text) <= 80 else text[:77] + "..."
