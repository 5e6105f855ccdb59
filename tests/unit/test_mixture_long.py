"""Long documents: natural ones isolated and upweighted, short samples joined into long rows, and how long they are."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phikit.mixture.lengths import histogram, of_shard, of_source
from phikit.mixture.loader import Loader, PackedSource, open_sources
from phikit.mixture.long import LongDocuments
from phikit.mixture.order import Phase
from phikit.mixture.shards import TokenShard, make_shard
from phikit.recipe import training
from phikit.recipe.load import load
from phikit.recipe.long_sources import long_documents
from phikit.recipe.stages import mixture
from phikit.records import Dialog, Document, to_row
from phikit.records.io import read_json, write_jsonl
from phikit.records.types import Turn
from phikit.text.tokenizer import Tokenizer

NATURAL = LongDocuments("natural", short=8, isolate=16, upweight_from=32, upweight=2.0)
PACKED = LongDocuments("packed-short", short=8, isolate=16, upweight_from=32, upweight=2.0)


def shard_of(lengths) -> TokenShard:
    """Tokens are 1000 x document + place, so that a token tells where it comes from."""
    return make_shard((list(range(1000 * d, 1000 * d + n)), [100] * n) for d, n in enumerate(lengths))


def saved(folder: Path, **sources) -> Path:
    for name, lengths in sources.items():
        (folder / name).mkdir()
        shard_of(lengths).save(folder / name, [f"{name}{i}" for i in range(len(lengths))])
    return folder


def batch_of(source: PackedSource):
    return Loader({"x": source}, [Phase(source.rows, {"x": 1.0})], 0, pad=9).batch(0, source.rows)


# -- the rule ----------------------------------------------------------------------------------------------------------


def test_long_documents_are_isolated_and_the_longest_count_twice():
    lengths = np.asarray([5, 16, 17, 31, 32, 80])
    assert NATURAL.chosen(lengths, made=False).tolist() == [2, 3, 4, 4, 5, 5]
    # What was made to be long need only be longer than pretraining's context.
    assert NATURAL.chosen(lengths, made=True).tolist() == [1, 2, 3, 4, 4, 5, 5]


@given(st.integers(1, 40), st.sampled_from([1.0, 1.5, 2.25, 3.0]))
def test_an_upweight_that_is_no_whole_number_is_a_mean(documents, upweight):
    rule = LongDocuments("natural", 8, 16, 32, upweight)
    times = Counter(rule.chosen(np.full(documents, 64), made=False).tolist())
    assert len(times) == documents
    assert max(times.values()) - min(times.values()) <= 1
    assert sum(times.values()) == int(documents * upweight + 0.5)


# -- views of shards ---------------------------------------------------------------------------------------------------


def test_a_long_source_is_a_view_of_the_plain_one(tmp_path):
    folder = saved(tmp_path, text=[5, 20, 40, 12])
    source = open_sources(folder, ["text_long"], 64, 0, NATURAL)["text_long"]
    seen = Counter((batch_of(source).tokens[batch_of(source).segment >= 0] // 1000).tolist())
    assert seen == {1: 20, 2: 80}


def test_what_was_made_long_is_taken_where_there_is_some(tmp_path):
    folder = saved(tmp_path, text=[40, 40], text_long=[8, 9, 33])
    source = open_sources(folder, ["text_long"], 64, 0, NATURAL)["text_long"]
    assert sorted(source.documents.tolist()) == [1, 2, 2]
    joined = open_sources(folder, ["text_long"], 64, 0, PACKED)["text_long"]
    assert joined.shard.documents == 2  # of `text`


def test_without_a_rule_a_source_is_what_its_name_says(tmp_path):
    folder = saved(tmp_path, text=[40], text_long=[8, 9])
    assert open_sources(folder, ["text_long"], 64, 0)["text_long"].documents.tolist() == [0, 1]


def test_sources_that_are_not_there_and_rules_that_leave_nothing(tmp_path):
    folder = saved(tmp_path, text=[5, 6])
    with pytest.raises(ValueError, match=r"source 'code' is not there; there are \['text'\]"):
        open_sources(folder, ["code"], 64, 0)
    with pytest.raises(ValueError, match=r"'code_long' is made of 'code', which is not there"):
        open_sources(folder, ["code_long"], 64, 0, PACKED)
    with pytest.raises(
        ValueError, match=r"'text_long': 'text' has no document of more than 16 .* midtrain.isolate"
    ):
        open_sources(folder, ["text_long"], 64, 0, NATURAL)


# -- joined samples ----------------------------------------------------------------------------------------------------


def test_joined_samples_pass_for_one_document(tmp_path):
    folder = saved(tmp_path, text=[5, 6, 7, 5, 6, 7, 30])
    source = open_sources(folder, ["text_long"], 32, 3, PACKED)["text_long"]
    batch = batch_of(source)
    documents = [len({*(t[s >= 0] // 1000).tolist()}) for t, s in zip(batch.tokens, batch.segment)]
    assert max(documents) > 1
    for segment, position, weight in zip(batch.segment, batch.position, batch.weight):
        n = int((segment >= 0).sum())
        assert (segment[:n] == 0).all()
        assert position[:n].tolist() == list(range(n))
        assert (weight[: n - 1] > 0).all()  # also the first token of the next sample is predicted
    plain = batch_of(PackedSource(source.shard, 32, 3))
    assert plain.segment.max() > 0


def test_joined_samples_are_the_whole_source_and_none_is_longer_than_short():
    shard = shard_of([3, 8, 9, 50, 64])
    source = PackedSource(shard, 32, 0, joined=8)
    assert (source.pieces[:, 2] - source.pieces[:, 1]).max() == 8
    tokens = Counter((d, t) for d, a, z in source.pieces.tolist() for t in range(a, z))
    assert set(tokens.values()) == {1}
    assert sum(tokens.values()) == 3 + 8 + 8 + 50 + 64  # one token that stands alone is left out


def test_parts_of_a_long_document_do_not_come_together_again():
    source = PackedSource(shard_of([4000]), 64, 0, joined=8)
    pieces = source.pieces.tolist()
    follows = sum(b[1] == a[2] for a, b in itertools.pairwise(pieces))
    assert follows < 0.05 * len(pieces)


# -- the recipe's switch -----------------------------------------------------------------------------------------------


def context(settings: tuple[str, ...], folder: Path) -> Any:
    recipe = load("phi4", scale="nano", settings=settings)
    inputs = {"mixture": SimpleNamespace(path=folder)}
    return SimpleNamespace(
        name="midtrain",
        recipe=recipe,
        config=recipe.midtrain,
        inputs=inputs,
        seed=3,
        one=lambda *a: "mixture",
    )


def test_the_recipe_key_changes_the_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "tokenizer_of", lambda ctx: None)
    monkeypatch.setattr(training, "pad_id", lambda t: 0)
    folder = saved(tmp_path, text=[100, 120, 300, 700, 90, 260] * 4)
    found = {}
    for form in ("natural", "packed-short"):
        ctx = context((f"midtrain.long_documents={form}",), folder)
        rule = long_documents(ctx)
        assert rule == LongDocuments(form, 128, 256, 512, 2.0)
        rows = training.language_rows(ctx, {1.0: {"text_long": 0.5, "text": 0.5}}, 4, rule)
        batch = rows.batch(0, 16)
        is_long = np.asarray([s == "text_long" for s in batch.source])
        found[form] = batch, is_long
        assert is_long.sum() == 8
    natural, packed = found["natural"], found["packed-short"]
    lengths = shard_of([100, 120, 300, 700, 90, 260]).lengths
    of = natural[0].tokens[natural[1]][natural[0].segment[natural[1]] >= 0] // 1000
    assert (lengths[of % 6] > 256).all()
    assert (packed[0].segment[packed[1]] <= 0).all()
    # What is replayed is the same in both.
    assert (natural[0].tokens[~natural[1]] == packed[0].tokens[~packed[1]]).all()
    assert (natural[0].segment[~natural[1]] == packed[0].segment[~packed[1]]).all()


def test_thresholds_are_those_of_the_report_at_its_scale():
    recipe: Any = load("phi4", scale="phi4")
    rule = long_documents(SimpleNamespace(recipe=recipe))  # type: ignore[arg-type]
    assert rule == LongDocuments("natural", 4096, 8192, 16384, 2.0)
    with pytest.raises(ValueError, match="long_documents"):
        load("phi4", settings=["midtrain.long_documents=padded"])


def test_the_mixture_stores_a_document_once_and_writes_its_lengths(tmp_path):
    texts = {"short": "ka mo zu ti " * 5, "long": "ka mo zu ti " * 200}
    tokenizer = Tokenizer.train(
        [*texts.values(), "Codes: 12+30=42. user assistant system hello there " * 3], 280
    )
    tokenizer.save(tmp_path / "tokenizer.json")
    rows = [to_row(Document(t, "text", {"path": n})) for n, t in texts.items()]
    write_jsonl(tmp_path / "documents.jsonl.zst", rows)
    write_jsonl(tmp_path / "long.jsonl.zst", [to_row(Document(texts["long"], "recall_long"))])
    talk = Dialog((Turn("user", "ka"), Turn("assistant", "mo")), "x")
    write_jsonl(tmp_path / "dialogs.jsonl.zst", [to_row(talk)])

    def file(stage: str, name: str) -> Path:
        return tmp_path / ("none.jsonl" if (stage, name) == ("synth", "documents.jsonl.zst") else name)

    write_jsonl(tmp_path / "none.jsonl", [])
    ctx: Any = SimpleNamespace(
        recipe=load("phi4", scale="nano"),
        out=tmp_path / "out",
        work=tmp_path / "out" / ".work",
        file=file,
        on="local",
    )
    counts = mixture.run(ctx)
    assert counts["documents"] == {"text": 2, "recall_long": 1, "dialogs": 1}
    found = read_json(tmp_path / "out" / "lengths.json")
    assert set(found) == set(counts["documents"])
    sizes = [len(tokenizer.encode(t)) + 1 for t in texts.values()]
    assert found["text"] == of_shard(np.asarray(sizes))
    assert counts["tokens"]["text"] == sum(sizes)


# -- histograms --------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5000), max_size=60))
def test_a_histogram_is_shares_of_the_tokens_by_powers_of_two(lengths):
    found = histogram(np.asarray(lengths))
    if not sum(lengths):
        assert found == {}
        return
    assert sum(found.values()) == pytest.approx(1)
    for size, share in found.items():
        inside = sum(n for n in lengths if int(size) <= n < 2 * int(size))
        assert share == pytest.approx(inside / sum(lengths))
    sizes = [int(s) for s in found]
    assert sizes == [sizes[0] << k for k in range(len(sizes))]


def test_upweighting_and_joining_are_seen_in_the_lengths():
    shard = shard_of([20, 40])
    assert of_shard(shard.lengths) == {"before": {"16": pytest.approx(1 / 3), "32": pytest.approx(2 / 3)}}
    natural = PackedSource(shard, 64, 0, NATURAL.chosen(shard.lengths, made=False))
    assert of_source(natural) == {
        "before": {"16": pytest.approx(1 / 3), "32": pytest.approx(2 / 3)},
        "after": {"16": pytest.approx(0.2), "32": pytest.approx(0.8)},
    }
    joined = of_source(PackedSource(shard_of([8] * 40), 64, 0, joined=8))
    assert joined == {"before": {"8": 1.0}, "after": {"64": 1.0}}
