"""Token shards that lie elsewhere: a folder or a URL in `mixture.shards`, read where it is."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from range_server import serving

from phikit.mixture.loader import Loader, open_sources
from phikit.mixture.long import LongDocuments
from phikit.mixture.order import Phase
from phikit.mixture.shards import TokenShard, make_shard, placed
from phikit.model.config import ModelConfig
from phikit.model.layout import Layout
from phikit.model.transformer import build
from phikit.recipe.load import load
from phikit.recipe.stages import mixture
from phikit.records import Dialog, Document, Turn
from phikit.records.io import read_json, write_jsonl
from phikit.records.types import to_row
from phikit.text.tokenizer import Tokenizer
from phikit.train.objectives import LanguageModeling
from phikit.train.trainer import TrainConfig, Trainer

TOKENIZER = Tokenizer.train(["ka mo zu ti user assistant system 1 + 2 = 3. " * 4], 280)


def saved(folder: Path, count: int = 60, top: int = 250) -> Path:
    rng = np.random.default_rng(0)
    rows = ((rng.integers(0, top, k).tolist(), [100] * k) for k in rng.integers(5, 90, count))
    make_shard(rows).save(folder, [str(i) for i in range(count)])
    return folder


def run_stage(tmp: Path, *shards: dict[str, str]) -> dict[str, Any]:
    """Stage mixture on one document and one dialog."""
    TOKENIZER.save(tmp / "tokenizer.json")
    write_jsonl(tmp / "documents.jsonl.zst", [to_row(Document("ka mo zu ti", "text"))])
    write_jsonl(tmp / "none.jsonl", [])
    talk = Dialog((Turn("user", "ka"), Turn("assistant", "mo")), "x")
    write_jsonl(tmp / "dialogs.jsonl.zst", [to_row(talk)])
    files = {
        ("tokenizer", "tokenizer.json"): "tokenizer.json", ("synth", "dialogs.jsonl.zst"): "dialogs.jsonl.zst",
        ("corpus", "documents.jsonl.zst"): "documents.jsonl.zst",
    }  # fmt: skip
    ctx: Any = SimpleNamespace(
        recipe=load("phi4", scale="nano", settings=[f"mixture.shards={list(shards)}"]),
        out=tmp / "out", work=tmp / "out" / ".work", on="local",
        file=lambda stage, name: tmp / files.get((stage, name), "none.jsonl"),
    )  # fmt: skip
    return mixture.run(ctx)


def test_a_source_is_read_where_it_lies(tmp_path):
    saved(tmp_path / "far" / "web")
    with serving(tmp_path / "far") as (_, url):
        counts = run_stage(
            tmp_path, {"source": "web", "path": f"{url}/web"}, {"source": "near", "path": str(tmp_path / "far" / "web")}
        )  # fmt: skip
        out = tmp_path / "out"
        assert counts["documents"] == {"dialogs": 1, "text": 1, "web": 60, "near": 60}
        assert counts["tokens"]["web"] == counts["tokens"]["near"] > 60
        assert sorted(read_json(out / "lengths.json")) == ["dialogs", "near", "text", "web"]
        assert [p.name for p in (out / "web").iterdir()] == ["place.json"]
        rule = LongDocuments("natural", 16, 40, 64)
        sources = open_sources(out, ("web", "web_long", "near", "near_long"), 32, 1, rule)
        assert [s.shard.remote for s in sources.values()] == [True, True, False, False]
        for a, b in (("web", "near"), ("web_long", "near_long")):
            one, other = (Loader({n: sources[n]}, [Phase(99, {n: 1.0})], 1, 0) for n in (a, b))
            assert (one.remote, other.remote) == (True, False)
            # Each source is packed in an order of its own name.
            seen, wanted = (
                sorted(np.concatenate([x.batch(i, 8).tokens.ravel() for i in range(0, x.order.rows[n], 8)]).tolist())
                for x, n in ((one, a), (other, b))
            )  # fmt: skip
            assert len(seen) > 0
            assert set(seen) == set(wanted)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: {"source": "web", "path": str(p / "none")}, r"mixture\.shards: .*none: no token shard: tokens\.npy"),
        (
            lambda p: {"source": "web", "path": str(saved(p / "other", top=90_000))},
            r"mixture\.shards: .*it holds token \d+, the tokenizer has 2\d\d: it was made with another one",
        ),
        (lambda p: {"source": "text", "path": str(saved(p / "web"))}, r"'text' is there already"),
    ],
)  # fmt: skip
def test_shards_that_cannot_be_taken(make, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        run_stage(tmp_path, make(tmp_path))


def test_rows_behind_a_url_are_fetched_at_once_and_a_step_ahead(tmp_path, monkeypatch):
    """Each read takes 50 ms: one after the other a step's rows would wait for longer than the step takes."""
    monkeypatch.setenv("PHIKIT_QUIET", "1")
    folder, pause = saved(tmp_path / "web"), 0.05
    with serving(tmp_path) as (store, url):
        far = tmp_path / "far"
        placed(far / "web", f"{url}/web", TOKENIZER.vocab_size)
        sources = open_sources(far, ["web"], 32, 1)
        for array in (sources["web"].shard.tokens, sources["web"].shard.weights):
            array.block = 128  # type: ignore[union-attr]
        store.delay, store.most = pause, 0
        rows = Loader(sources, [Phase(10_000, {"web": 1.0})], 1, 0)
        batch = rows.batch(0, 16)
        assert store.most >= 8
        near = Loader(open_sources(tmp_path, ["web"], 32, 1), [Phase(10_000, {"web": 1.0})], 1, 0)
        np.testing.assert_array_equal(batch.tokens, near.batch(0, 16).tokens)

        class Slow(LanguageModeling):
            def __call__(self, model, batch, ranks=None):
                time.sleep(1.0)  # a device at work
                return super().__call__(model, batch, ranks)

        model = build(ModelConfig(TOKENIZER.vocab_size, 16, 1, 2, 1, 24, 32), 0)
        t = Trainer(model, Slow(), rows, TrainConfig(3, 4, 4, layout=Layout(device="cpu")), tmp_path / "work")
        t.run("x")
        waited = [r["rows_seconds"] for r in t.watch.rows]
        assert all(w < 0.5 for w in waited[1:]), waited  # one after the other: 1.5 s and more
    assert TokenShard.load(folder).documents == 60
