"""What enters a fingerprint: no key that changes nothing but rounding, so that a run goes on with other ranks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from phikit.mixture.shards import make_shard
from phikit.recipe.load import load
from phikit.recipe.schema import Layout, Train
from phikit.recipe.status import statuses

OTHER = {
    "fsdp": 2, "tp": 2, "cp": 2, "replicas": 2, "device": "cpu", "compile": "true", "recompute": "blocks",
    "attention": "flex", "timeout": 30,
}  # fmt: skip


def fingerprints(out: Path, *settings: str) -> dict[str, str]:
    return {s.name: s.fingerprint for s in statuses(load("phi4", scale="nano", settings=settings), out)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, str]:
    return fingerprints(tmp_path_factory.mktemp("plain"))


def test_ranks_passes_and_checkpoints_enter_none(plain, tmp_path):
    assert set(OTHER) == Layout.ROUNDING
    more = [f"{s}.micro=2" for s in ("pretrain", "midtrain", "sft", "dpo1", "dpo2")]
    keys = [f"layout.{k}={v}" for k, v in OTHER.items()]
    assert fingerprints(tmp_path, *keys, *more, "checkpoint={every: 5, keep: 4}") == plain


def test_precision_and_batch_do(plain, tmp_path):
    for key in ("layout.precision=fp32", "pretrain.batch=32"):
        changed = {n for n, f in fingerprints(tmp_path, key).items() if f != plain[n]}
        assert "pretrain" in changed
        assert not changed & {"corpus", "synth", "tokenizer", "mixture"}


def test_the_keys_are_there():
    assert Layout.model_fields.keys() >= Layout.ROUNDING
    assert Train.model_fields.keys() >= Train.ROUNDING


def test_shards_that_lie_elsewhere_are_watched(plain, tmp_path):
    make_shard([([1, 2, 3], [100] * 3)]).save(tmp_path / "web", ["a"])
    key = f"mixture.shards=[{{source: web, path: '{tmp_path / 'web'}'}}]"
    first = fingerprints(tmp_path, key)
    assert first["mixture"] != plain["mixture"]
    assert first["tokenizer"] == plain["tokenizer"]
    assert fingerprints(tmp_path, key) == first
    np.save(tmp_path / "web" / "tokens.npy", np.arange(9, dtype=np.uint32))
    os.utime(tmp_path / "web" / "tokens.npy", (1, 1))
    assert fingerprints(tmp_path, key)["mixture"] != first["mixture"]
