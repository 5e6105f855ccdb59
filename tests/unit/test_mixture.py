"""Packing, the order of rows, batches and loss weights."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phikit.mixture.loader import Loader, PackedSource, open_sources
from phikit.mixture.order import BLOCK, Order, Phase
from phikit.mixture.pack import pack
from phikit.mixture.shards import ShardWriter, TokenShard, encode_dialog, encode_documents, make_shard
from phikit.records import Dialog, Document, turns
from phikit.text.tokenizer import Tokenizer

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=150)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["Codes: ka mo, zu ti. 12+30=42. user assistant system hello there " * 3], 300)


def shard_of(lengths, weights=None) -> TokenShard:
    """Documents whose tokens are all different numbers."""
    n, encoded = 0, []
    for length in lengths:
        encoded.append((list(range(n, n + length)), [100] * length))
        n += length
    shard = make_shard(encoded)
    return shard if weights is None else TokenShard(shard.tokens, weights, shard.offsets)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(2, 24), st.randoms(use_true_random=False))
def test_every_token_is_packed_exactly_once(lengths, context, rng):
    order = list(range(len(lengths)))
    rng.shuffle(order)
    pieces, offsets = pack(np.asarray(lengths), context, np.asarray(order))
    assert (offsets[0], offsets[-1]) == (0, len(pieces))
    seen = Counter((d, t) for d, a, z in pieces.tolist() for t in range(a, z))
    assert all(n == 1 for n in seen.values())
    missing = {(d, t) for d, n in enumerate(lengths) for t in range(n)} - set(seen)
    # Only a token that stands alone (nothing to predict) is left out: the last of n = 1 modulo context.
    assert missing == {(d, n - 1) for d, n in enumerate(lengths) if n % context == 1}
    for row in range(len(offsets) - 1):
        sizes = [z - a for _, a, z in pieces[offsets[row] : offsets[row + 1]].tolist()]
        assert min(sizes) >= 2
        assert sum(sizes) <= context


def test_rows_are_well_filled():
    lengths = np.random.default_rng(0).integers(5, 120, 2000)
    _, offsets = pack(lengths, 128, np.arange(2000))
    assert lengths.sum() / (128 * (len(offsets) - 1)) > 0.97


def test_an_order_may_repeat_documents():
    pieces, _ = pack(np.asarray([5, 6]), 8, np.asarray([0, 1, 0]))
    assert Counter(pieces[:, 0].tolist()) == {0: 2, 1: 1}


# -- order -----------------------------------------------------------------------------------------------------

ROWS = {"a": 100, "b": 7, "c": 333}
PHASES = [Phase(1500, {"a": 0.5, "b": 0.2, "c": 0.3}), Phase(5000, {"a": 0.25, "c": 0.75})]


def sequence(n: int, seed: int = 0, phases=PHASES) -> list[tuple[str, int]]:
    order = Order(phases, ROWS, seed)
    return [order.row(i) for i in range(n)]


def test_fractions_are_exact_in_each_phase():
    rows = sequence(5000)
    assert Counter(s for s, _ in rows[:1500]) == {"a": 750, "b": 300, "c": 450}
    assert Counter(s for s, _ in rows[1500:]) == {"a": 875, "c": 2625}
    # ... and in every block, so that no source comes early or late.
    for start, end in ((0, BLOCK), (BLOCK, 1500), (1500, 1500 + BLOCK), (1500 + 3 * BLOCK, 5000)):
        of_a = sum(s == "a" for s, _ in rows[start:end])
        assert of_a == pytest.approx((0.5 if end <= 1500 else 0.25) * (end - start), abs=1)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 3000), st.integers(0, 2**62))
def test_the_drawn_rows_are_those_the_fractions_ask_for(parts, n, seed):
    names = "wxyz"[: len(parts)]
    fractions = {s: x / sum(parts) for s, x in zip(names, parts)}
    order = Order([Phase(n, fractions)], dict.fromkeys(names, 50), seed)
    counts = Counter(order.row(i)[0] for i in range(n))
    assert order.drawn(n) == {s: counts[s] for s in names}
    for s in names:  # one source takes the rounding of all others
        assert abs(counts[s] - fractions[s] * n) <= max(1, len(parts) - 1) / 2 + 1e-9


@pytest.mark.parametrize("n", [5000, 1500, 777, 3001])
def test_every_row_is_seen_equally_often(n):
    """After any number of rows: the last block of a run is seldom whole."""
    seen = Counter(sequence(n))
    for source, rows in ROWS.items():
        times = [seen[source, r] for r in range(rows)]
        assert max(times) - min(times) <= 1, source


def test_epochs_follow_from_the_fractions():
    order = Order(PHASES, ROWS, 0)
    assert order.epochs(5000) == {"a": 1625 / 100, "b": 300 / 7, "c": 3075 / 333}


def test_the_order_is_a_pure_function_of_seed_and_number():
    rows = sequence(5000)
    order = Order(PHASES, ROWS, 0)
    for i in np.random.default_rng(1).integers(0, 5000, 400).tolist():
        assert order.row(i) == rows[i]
    other = sequence(5000, seed=1)
    assert Counter(s for s, _ in other) == Counter(s for s, _ in rows)
    assert sum(x == y for x, y in zip(rows, other)) < 100


def test_epochs_are_shuffled_differently():
    rows = [r for s, r in sequence(1500) if s == "b"]
    epochs = [tuple(rows[i : i + 7]) for i in range(0, 294, 7)]
    assert len(set(epochs)) > 30


def test_a_source_without_rows_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"'d' is given 10% of a phase but has no rows; .*\['a', 'b', 'c'\]"):
        Order([Phase(10, {"a": 0.9, "d": 0.1})], ROWS, 0)
    Order([Phase(10, {"a": 1.0, "d": 0.0})], ROWS, 0)


# -- batches ---------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=20).filter(lambda x: max(x) > 1),
    st.integers(2, 24),
    st.integers(0, 2**31),
)
def test_targets_never_cross_documents_and_weights_are_the_targets_own(lengths, context, seed):
    rng = np.random.default_rng(seed)
    shard = shard_of(lengths, rng.integers(0, 200, sum(lengths)).astype(np.uint8))
    source = PackedSource(shard, context, seed)
    loader = Loader({"s": source}, [Phase(source.rows, {"s": 1.0})], seed, pad=10**6)
    batch = loader.batch(0, source.rows)
    document = np.searchsorted(shard.offsets, np.arange(sum(lengths)), side="right") - 1
    seen, targets = Counter(), Counter()
    for b in range(source.rows):
        for t in range(context):
            token = int(batch.tokens[b, t])
            if batch.segment[b, t] < 0:
                assert (token, batch.weight[b, t]) == (10**6, 0)
                continue
            seen[token] += 1
            if t == 0 or batch.segment[b, t] != batch.segment[b, t - 1]:
                assert batch.position[b, t] == 0
            else:
                assert batch.position[b, t] == batch.position[b, t - 1] + 1
                assert token == batch.tokens[b, t - 1] + 1
            if batch.weight[b, t]:
                target = int(batch.targets[b, t])
                targets[target] += 1
                assert target == token + 1  # so the next of the same text ...
                assert document[target] == document[token]  # ... and document
                assert batch.weight[b, t] == np.float32(shard.weights[target] / 100)
    assert max(seen.values()) == 1
    # Whatever has a predecessor in its window is a target, once.
    window = np.arange(sum(lengths)) - shard.offsets[document]
    due = {i for i in range(sum(lengths)) if window[i] % context and shard.weights[i]}
    assert targets == dict.fromkeys(due, 1)


def test_random_access_equals_one_large_batch():
    sources = {n: PackedSource(shard_of([k] * 30), 16, k) for n, k in (("a", 5), ("b", 11))}
    loader = Loader(sources, [Phase(100, {"a": 0.5, "b": 0.5})], 3, pad=0)
    whole = loader.batch(0, 90)
    again = Loader(sources, [Phase(100, {"a": 0.5, "b": 0.5})], 3, pad=0)
    for first, count in ((60, 30), (7, 3), (0, 1), (30, 30)):
        part, same = again.batch(first, count), whole.slice(first, first + count)
        for name in ("tokens", "targets", "weight", "segment", "position"):
            assert np.array_equal(getattr(part, name), getattr(same, name))
        assert part.source == same.source


def test_chosen_documents_are_repeated():
    source = PackedSource(shard_of([4, 4, 4]), 4, 0, np.asarray([2, 2, 0]))
    assert sorted(int(d) for d, _, _ in source.pieces) == [0, 2, 2]


def test_shards_on_disk(tmp_path):
    shard = shard_of([3, 0, 5])
    shard.save(tmp_path / "s", ["x", "y", "z"])
    assert (tmp_path / "s" / "ids.txt").read_text() == "x\ny\nz\n"
    again = open_sources(tmp_path, ["s"], 8, 1)["s"]
    assert again.rows == 1
    assert again.shard.documents == 3
    assert again.shard.lengths.tolist() == [3, 0, 5]
    assert make_shard([]).documents == 0


# -- weights ---------------------------------------------------------------------------------------------------


def test_answer_spans_get_the_answer_weight(tokenizer):
    text = "12+30=42. zu ti"
    start = text.index("42")
    document = Document(text, "facts", {"answers": [[start, start + 3]]})
    plain = Document(text, "text")
    [(ids, weights), other] = encode_documents(tokenizer, [document, plain], [(1.0, 0.3)] * 2)
    assert tokenizer.decode([t for t, w in zip(ids, weights) if w == 100]) == "42."
    assert ids[-1] == tokenizer.end_of_text
    assert weights[-1] == 100
    assert set(weights) == {30, 100}
    assert other == (ids, [30] * len(ids))


def test_dialogs_train_answers_and_the_end_of_turn(tokenizer):
    dialog = Dialog(
        turns(("user", "hello"), ("assistant", "there"), ("user", "12"), ("assistant", "42")), "chat"
    )
    ids, weights = encode_dialog(tokenizer, dialog)
    end = [tokenizer.im_end]
    trained = [t for t, w in zip(ids, weights) if w]
    assert trained == tokenizer.encode("there") + end + tokenizer.encode("42") + end
    assert set(weights) == {0, 100}
    # As targets: the last thing a row is asked for is the end of turn.
    source = PackedSource(make_shard([(ids, weights)]), 64, 0)
    batch = Loader({"c": source}, [Phase(1, {"c": 1.0})], 0, tokenizer.pad).batch(0, 1)
    assert batch.targets[0][batch.weight[0] > 0].tolist() == trained


def test_a_dialog_without_an_answer_is_an_error_that_names_it(tokenizer):
    dialog = Dialog(turns(("user", "hello")), "chat")
    with pytest.raises(ValueError, match=rf"dialog {dialog.id} \(chat\) has no assistant turn"):
        encode_dialog(tokenizer, dialog)


def test_a_shard_written_row_by_row_has_the_bytes_of_one_saved_whole(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        (rng.integers(0, 100_000, n).tolist(), rng.integers(0, 101, n).tolist()) for n in (3, 0, 70_000, 5)
    ]
    make_shard(rows).save(tmp_path / "whole", list("abcd"))
    writer = ShardWriter(tmp_path / "rows")
    for id, row in zip("abcd", rows):
        writer.add(id, *row)
    writer.close()
    for name in ("tokens.npy", "weights.npy", "offsets.npy", "ids.txt"):
        assert (tmp_path / "rows" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "rows").iterdir()) == sorted(
        p.name for p in (tmp_path / "whole").iterdir()
    )
