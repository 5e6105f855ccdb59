import random
from pathlib import Path

import pytest

from phikit.mixture import encode
from phikit.mixture.encode import encode_files
from phikit.mixture.shards import ShardWriter, encode_dialog, encode_documents
from phikit.records import Dialog, Document, io, to_row
from phikit.records.io import write_jsonl
from phikit.records.types import turns
from phikit.text.tokenizer import Tokenizer

NAMES = ("tokens.npy", "weights.npy", "offsets.npy", "ids.txt")
WORDS = ("the", "quick", "brown", "fox", "12", "names,", "na\u00efve", "\u017f", "\U0001f600", "and\n\nlong")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    Tokenizer.train([" ".join(WORDS) * 3], 290).save(path)
    return path


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Two files of documents, the first in many frames, and one of dialogs."""
    monkeypatch.setattr(io, "FRAME", 3000)
    monkeypatch.setattr(encode, "PART", 2000)
    monkeypatch.setattr(encode, "BATCH", 1500)
    rng = random.Random(0)
    documents = []
    for i in range(300):
        text = " ".join(rng.choices(WORDS, k=rng.randrange(40))) + f" {i}"
        spans = {"answers": [[2, 9]]} if i % 5 == 0 and len(text) > 20 else {}
        documents.append(Document(text, rng.choice(["text", "code", "facts"]), spans))
    dialogs = [Dialog(turns(("user", f"name {i}"), ("assistant", f"fox {i}")), "chat") for i in range(9)]
    write_jsonl(tmp_path / "a.jsonl.zst", map(to_row, documents[:250]))
    write_jsonl(tmp_path / "b.jsonl", map(to_row, documents[250:]))
    write_jsonl(tmp_path / "d.jsonl.zst", map(to_row, dialogs))
    return documents, dialogs


def encoded(tokenizer: Path, at: Path, name: str, workers: int) -> dict:
    files = [at / "a.jsonl.zst", at / "b.jsonl"]
    return encode_files(
        tokenizer, files, [at / "d.jsonl.zst"], at / name, at / f"{name}.work", answer=1.0,
        other={"facts": 0.3}, workers=workers,
    )  # fmt: skip


def test_shards_have_the_bytes_of_documents_encoded_one_by_one(tmp_path, tokenizer, world):
    documents, dialogs = world
    counts = encoded(tokenizer, tmp_path, "one", 1)
    assert len(list((tmp_path / "one.work").glob("*.tokens"))) > 5
    made = Tokenizer.load(tokenizer)
    sources = {d.source for d in documents} | {"dialogs"}
    expected = {s: ShardWriter(tmp_path / "expected" / s) for s in sources}
    for d in documents:
        [row] = encode_documents(made, [d], [(1.0, 0.3 if d.source == "facts" else 1.0)])
        expected[d.source].add(d.id, *row)
    for d in dialogs:
        expected["dialogs"].add(d.id, *encode_dialog(made, d))
    for source, writer in expected.items():
        writer.close()
        for name in NAMES:
            there, here = (tmp_path / side / source / name for side in ("expected", "one"))
            assert here.read_bytes() == there.read_bytes(), (source, name)
    assert counts["documents"] == {s: len(w.offsets) - 1 for s, w in sorted(expected.items())}
    assert counts["tokens"] == {s: w.offsets[-1] for s, w in sorted(expected.items())}


def test_any_number_of_workers_gives_the_same_bytes(tmp_path, tokenizer, world):
    assert encoded(tokenizer, tmp_path, "one", 1) == encoded(tokenizer, tmp_path, "two", 2)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 4 * 4
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_finished_parts_are_kept_and_a_changed_file_is_encoded_again(tmp_path, tokenizer, world):
    documents, _ = world
    encoded(tokenizer, tmp_path, "one", 1)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "one.work").glob("*.tokens")}
    encoded(tokenizer, tmp_path, "one", 1)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    write_jsonl(tmp_path / "b.jsonl", map(to_row, documents[250:260]))
    counts = encoded(tokenizer, tmp_path, "one", 1)
    assert sum(counts["documents"].values()) == 250 + 10 + 9
    assert sum(p.stat().st_mtime_ns != before[p] for p in before) == 1


def test_a_bad_row_is_named(tmp_path, tokenizer):
    (tmp_path / "bad.jsonl").write_text('{"text": "a", "source": "text"}\n{"text": "a", "colour": 1}\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 2: .*colour"):
        encode_files(tokenizer, [tmp_path / "bad.jsonl"], [], tmp_path / "out", tmp_path / "work")


def test_a_part_of_a_file_that_has_changed_is_refused(tmp_path, tokenizer):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [to_row(Document("one", "text"))])
    options = {"at": str(path), "size": path.stat().st_size + 1, "changed": 0, "part": None}
    with pytest.raises(ValueError, match="has changed since the plan was written"):
        encode.encode_part(options, [tokenizer], [tmp_path / str(i) for i in range(5)])
