"""Comparing documents on disk: the same result as in memory, however the shards lie, with memory that does not grow."""

import json
import subprocess
import sys

import numpy as np
import pytest

from phikit.corpus import dedup, pipeline, spill
from phikit.corpus.cleaned import lines
from phikit.corpus.heldout import hold_out
from phikit.corpus.pipeline import Settings, build
from phikit.corpus.spill import Spill
from phikit.records import Document
from phikit.records.io import read_jsonl
from phikit.text import ngrams

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in ("an", "el", "ir", "os") for c in ("ta", "mo", "sku", "ry")]


def texts(n: int, seed: int = 0) -> list[str]:
    """Texts of 60 words with exact copies (blanks changed), near copies and chains of near copies among them."""
    rng = np.random.default_rng(seed)
    out: list[str] = []
    for i in range(n):
        old = out[rng.integers(len(out))].split() if out else []
        kind = rng.random() if out else 1.0
        if kind < 0.1:
            words = [old[0], "", *old[1:]]
        elif kind < 0.25:
            words = old.copy()
            words[int(rng.integers(len(words)))] = "edited"
        else:
            words = [f"{w}{i % 7}" for w in rng.choice(WORDS, 60)]
        out.append("\n".join(words))
    return out


def corpus(n: int) -> list[Document]:
    return [Document(t, "code", {"path": f"{i}.py", "origin": f"{i // 3}"}) for i, t in enumerate(texts(n))]


def run(tmp_path, documents, **settings):
    config = Settings(quality=False, **{"heldout": 0.1, **settings})
    counts = build(documents, [], tmp_path, tmp_path / ".work", config)
    names = ("documents", "heldout", "rejected")
    return counts, [list(read_jsonl(tmp_path / f"{n}.jsonl.zst")) for n in names]


@pytest.mark.parametrize("shard", [1_000, 10_000_000])
def test_shards_on_disk_give_what_comparing_in_memory_gives(tmp_path, monkeypatch, shard):
    monkeypatch.setattr(pipeline, "SHARD_CHARACTERS", shard)
    monkeypatch.setattr(spill, "PART_ROWS", 100)  # many parts
    documents = corpus(300)
    _, (kept, held, rejected) = run(tmp_path, documents)
    exact = dedup.exact_twins([d.text for d in documents])
    unique = [d for i, d in enumerate(documents) if exact[i] == i]
    words = ngrams.words([d.text for d in unique])
    near = dedup.near_twins(words)
    left = [i for i, twin in enumerate(near) if twin == i]
    train, out = hold_out([unique[i] for i in left], words.take(left), 0.1)
    assert [r["id"] for r in kept] == [d.id for d in train]
    assert [r["id"] for r in held] == [d.id for d in out]
    assert held
    dropped = {(r["id"], r["path"], r["reason"]) for r in rejected}
    assert dropped == {
        *((d.id, d.meta["path"], "exact_duplicate") for i, d in enumerate(documents) if exact[i] != i),
        *((d.id, d.meta["path"], "near_duplicate") for i, d in enumerate(unique) if near[i] != i),
    }
    first = {unique[int(near[i])].id for i in range(len(unique)) if near[i] != i}
    assert {r["detail"].split()[1] for r in rejected if r["reason"] == "near_duplicate"} == first


def test_survivors_are_the_first_of_each_group_in_any_order(tmp_path):
    documents = corpus(120)
    groups = []
    for name, some in ("there", documents), ("back", documents[::-1]):
        _, (kept, _, rejected) = run(tmp_path / name, some, heldout=0.0)
        place = {d.id: i for i, d in reversed(list(enumerate(some)))}
        of = {r["id"]: r["detail"].split()[1] for r in rejected if r["reason"] == "near_duplicate"}
        assert all(place[first] < place[twin] for twin, first in of.items())
        groups.append(len({r["id"] for r in kept}))
    assert groups[0] == groups[1]  # the groups are the same, only their first members differ


def test_held_out_asks_again_where_the_first_candidates_repeat_others(tmp_path, monkeypatch):
    """All but a few origins share their text with others; the few come late in the order of hashes."""
    monkeypatch.setattr("phikit.corpus.heldout._LEAST", 1)
    rng = np.random.default_rng(5)
    shared = " ".join(rng.choice(WORDS, 40))
    documents = [
        Document(" ".join([shared] * (i % 5 > 0) + list(rng.choice(WORDS, 60))), "code", {"origin": f"f{i}"})
        for i in range(60)
    ]
    _, (_, held, _) = run(tmp_path, documents, heldout=0.1, near=1.0)
    _, out = hold_out(documents, ngrams.words([d.text for d in documents]), 0.1)
    assert [r["id"] for r in held] == [d.id for d in out]
    assert held
    assert not any(shared in r["text"] for r in held)


def test_spill_brings_equal_keys_together_and_keeps_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(spill, "PART_ROWS", 64)
    keys = np.random.default_rng(0).integers(0, 2**64, 500, np.uint64)
    keys = np.concatenate([keys, keys[::2]])
    rows = np.column_stack([keys, np.arange(len(keys), dtype=np.uint64)])
    box = Spill(tmp_path / "box", len(rows), 2)
    for some in np.array_split(rows, 7):
        box.by_hash(some[:, 0], some)
    parts = list(box.read())
    assert len(parts) > 5
    assert sorted(np.concatenate(parts)[:, 1].tolist()) == list(range(len(rows)))
    assert all((np.diff(p[:, 1].astype(int)) > 0).all() for p in parts)
    where: dict[int, int] = {}
    assert all(where.setdefault(int(k), n) == n for n, p in enumerate(parts) for k in p[:, 0])
    assert not (tmp_path / "box").exists()
    box = Spill(tmp_path / "box", 300, 1)
    box.by_place(np.arange(300), 300, np.arange(300)[:, None])
    assert np.concatenate(list(box.read())).ravel().tolist() == list(range(300))


GROWTH = """
import json, resource, sys
sys.path.insert(0, "tests/unit")
from pathlib import Path
from phikit.corpus import cleaned, pipeline, spill
from phikit.records import Document
from test_corpus_compare import WORDS
import numpy as np
pipeline.SHARD_CHARACTERS = cleaned.BATCH = 1 << 18
spill.PART_ROWS = 1 << 12

def items(n):
    rng = np.random.default_rng(1)
    for i in range(n):
        text = " ".join(rng.choice(WORDS, 300)) if i % 10 else "the same text " * 100 + str(i % 50)
        yield Document(text, "code", {"path": str(i), "origin": str(i)})

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def once(n, name):
    settings = pipeline.Settings(quality=False, heldout=0.01)
    pipeline.build(items(n), [], Path(sys.argv[1], name), Path(sys.argv[1], name, "work"), settings)

once(100, "warm")
before = peak()
once(int(sys.argv[2]), "all")
print(json.dumps(peak() - before))
"""


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    growth = {}
    for n in (600, 6000):
        done = subprocess.run(
            [sys.executable, "-c", GROWTH, str(tmp_path / str(n)), str(n)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        growth[n] = json.loads(done.stdout.splitlines()[-1])
    assert len(list(lines(tmp_path / "6000/all/documents.jsonl.zst"))) > 5000
    # ten times the text (12 MB): a few MB for what is held per document, none of the text
    assert growth[6000] <= 1.1 * growth[600] + 4, growth
