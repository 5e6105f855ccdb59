import pytest

from phikit.corpus import pipeline
from phikit.corpus.pipeline import Settings, build
from phikit.records import Document
from phikit.records.io import read_jsonl

NOTICE = "This page uses small files that are stored on your machine; read our policy."
LINE = "All rights to this text and to the pictures in it are reserved by the owner."


def body(i: int) -> str:
    return " ".join(f"word{(i * 37 + k) % 997}" for k in range(60))


def documents(code: str = "text") -> list[Document]:
    found = [Document(f"{body(i)}\n\n{NOTICE}\n\nSee also", code, {"path": str(i)}) for i in range(6)]
    found.append(Document(f"{body(7)}\n{LINE}\n{body(8)}", code, {"path": "lines"}))
    found.append(Document(f"{body(9)}\n{LINE.upper()}\n{body(10)}", code, {"path": "again"}))
    found.append(Document(f"{NOTICE}\n\nshort", code, {"path": "only"}))
    return found


def run(tmp_path, items, **settings):
    settings = {"quality": False, "heldout": 0.0, "languages": ("en", "und", "de", "pt", "nl"), **settings}
    counts = build(items, [], tmp_path, tmp_path / "work", Settings(**settings))
    kept, rejected = (
        {r.get("path") or r["meta"]["path"]: r for r in read_jsonl(tmp_path / f"{n}.jsonl.zst")}
        for n in ("documents", "rejected")
    )
    return counts, kept, rejected


@pytest.mark.parametrize("shard", [300, 10_000_000])
def test_a_paragraph_of_many_documents_stays_in_the_first_alone(tmp_path, monkeypatch, shard):
    monkeypatch.setattr(pipeline, "SHARD_CHARACTERS", shard)
    monkeypatch.setattr(pipeline, "language", lambda text: ("en", 1.0))
    counts, kept, rejected = run(tmp_path, documents(), paragraphs=2)
    assert NOTICE in kept["0"]["text"]
    for i in range(1, 6):
        assert kept[str(i)]["text"] == f"{body(i)}\n\nSee also"  # short paragraphs stay
        assert kept[str(i)]["meta"]["paragraphs_cut"] == 1
    assert LINE in kept["lines"]["text"]
    assert LINE.upper() in kept["again"]["text"]  # two documents are not more than two
    assert rejected["only"]["reason"] == "repeated_paragraphs"
    assert counts["dropped"] == {"repeated_paragraphs": 1}
    assert counts["in"] + counts["parts"] == counts["out"] + sum(counts["dropped"].values())


def test_lines_count_where_there_are_no_blank_ones_and_code_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "language", lambda text: ("en", 1.0))
    _, kept, _ = run(tmp_path / "a", documents(), paragraphs=1)
    assert kept["again"]["text"] == f"{body(9)}\n{body(10)}"
    _, kept, _ = run(tmp_path / "b", documents("code"), paragraphs=1)
    assert all("paragraphs_cut" not in row["meta"] for row in kept.values())
    assert len({row["id"] for row in kept.values()}) == len(kept) == 9


def test_what_was_cut_makes_documents_equal(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "language", lambda text: ("en", 1.0))
    items = [Document(f"{body(1)}\n\n{NOTICE} {i}", "text", {"path": str(i)}) for i in range(3)]
    items += [Document(f"{body(1)}\n\n{NOTICE} {i}", "text", {"path": f"{i}b"}) for i in range(3)]
    _, kept, rejected = run(tmp_path, items, paragraphs=1)
    assert list(kept) == ["0"]
    assert {r["reason"] for r in rejected.values()} <= {
        "exact_duplicate",
        "near_duplicate",
        "repeated_paragraphs",
    }
