"""Ids, rows, atomic files and artifacts."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phikit.records import (
    Completion,
    Dialog,
    Document,
    Preference,
    Score,
    artifact,
    canonical_json,
    content_id,
    fingerprint,
    from_row,
    seed_of,
    to_row,
    turns,
)
from phikit.records.io import (
    RowError,
    atomic_path,
    read_json,
    read_jsonl,
    read_parquet,
    write_jsonl,
    write_parquet,
    write_text,
)

PAIR = Preference(
    turns(("user", "1+1?")), (5, 6), (7,), (8,), " 2", " 3", "pivotal", {"p_chosen": 0.5}, ("q1",)
)
RECORDS = [
    Document("a text", "code", {"path": "x.py", "answers": [[0, 1]]}, ("p",)),
    Dialog(turns(("user", "Hi"), ("assistant", "Hello\n\u2028")), "chat", {"answer": "3"}),
    Completion("ab", (1, 2), (-0.5, -1.5), "stop"),
    Score(-2.5, True, 3),
    PAIR,
]


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_ids_differ_unless_the_parts_are_equal(a, b):
    assert (content_id(*a) == content_id(*b)) == (a == b)
    assert len(content_id(*a)) == 32


def test_splits_of_one_string_do_not_collide():
    assert len({content_id("ab", "c"), content_id("a", "bc"), content_id("abc"), content_id("abc", "")}) == 4
    assert content_id("\ud800")  # broken text has an id as well


def test_the_id_of_a_record_is_its_content():
    one, same = Document("t", "code"), Document("t", "code", {"path": "elsewhere"})
    assert one.id == same.id != Document("t", "text").id
    a, b = Dialog(turns(("user", "x")), "s"), Dialog(turns(("assistant", "x")), "s")
    assert a.id != b.id
    row = to_row(PAIR) | {"id": "", "rejected_ids": [9]}
    assert from_row(Preference, row).id != PAIR.id


def test_seeds_depend_on_every_part_and_fit_63_bits():
    seeds = {seed_of(1, "a"), seed_of(1, "b"), seed_of(2, "a"), seed_of("1a"), seed_of(1, "a", 0)}
    assert len(seeds) == 5
    assert all(0 <= s < 2**63 for s in seeds)


def test_canonical_json_ignores_the_order_of_keys():
    assert canonical_json({"b": 1, "a": [1.0, "é"]}) == '{"a":[1.0,"é"],"b":1}'
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
    with pytest.raises(TypeError, match="set has no canonical"):
        canonical_json({1, 2})


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_records_survive_a_file(tmp_path, record, suffix):
    path = tmp_path / f"rows{suffix}"
    assert write_jsonl(path, [to_row(record)] * 3) == 3
    assert [from_row(type(record), row) for row in read_jsonl(path)] == [record] * 3


def test_records_survive_parquet(tmp_path):
    documents = [Document(f"text {i}", "code", {"n": i}) for i in range(3)]
    write_parquet(tmp_path / "d.parquet", [to_row(d) for d in documents])
    assert [from_row(Document, r) for r in read_parquet(tmp_path / "d.parquet")] == documents
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 this is no parquet file PAR1")
    with pytest.raises(RowError, match=r"bad\.parquet: not a readable Parquet"):
        list(read_parquet(tmp_path / "bad.parquet"))


def test_unknown_columns_are_named():
    with pytest.raises(ValueError, match=r"Document row has unknown columns \['colour'\]"):
        from_row(Document, {"text": "t", "source": "s", "colour": "red"})


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_equal_rows_give_equal_bytes(tmp_path, suffix):
    rows = [{"i": i, "text": "é" * i} for i in range(50)]
    write_jsonl(tmp_path / f"a{suffix}", rows)
    write_jsonl(tmp_path / f"b{suffix}", iter(rows))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("bad", ['{"a": 1', "[1, 2]"], ids=["torn", "no object"])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_a_bad_line_names_file_and_row(tmp_path, bad, suffix):
    path = tmp_path / f"rows{suffix}"
    good = json.dumps({"a": 0})
    if suffix == ".jsonl":
        path.write_text(f"{good}\n\n{bad}\n{good}\n")
    elif suffix == ".jsonl.gz":
        path.write_bytes(gzip.compress(f"{good}\n\n{bad}\n{good}\n".encode()))
    else:
        import zstandard

        path.write_bytes(zstandard.compress(f"{good}\n\n{bad}\n{good}\n".encode()))
    rows = read_jsonl(path)
    assert next(rows) == {"a": 0}
    with pytest.raises(RowError, match=r"rows\.jsonl.*, line 3"):
        next(rows)


def test_other_faults_of_a_file_name_it_too(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(RowError, match=r"latin\.jsonl, after line \d: not UTF-8"):
        list(read_jsonl(tmp_path / "latin.jsonl"))
    data = gzip.compress(b'{"a": "some text"}\n' * 1000)
    (tmp_path / "torn.jsonl.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(RowError, match=r"torn\.jsonl\.gz, .*(cut off|not valid JSON)"):
        list(read_jsonl(tmp_path / "torn.jsonl.gz"))
    with pytest.raises(FileNotFoundError):
        list(read_jsonl(tmp_path / "none.jsonl"))


def test_bad_json_names_the_file(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(RowError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "new folder" / "rows.jsonl.zst"
    write_jsonl(path, [{"old": 1}])

    def rows():
        yield {"new": 1}
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        write_jsonl(path, rows())
    assert list(read_jsonl(path)) == [{"old": 1}]
    assert [p.name for p in path.parent.iterdir()] == ["rows.jsonl.zst"]


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with atomic_path(path) as tmp:
        tmp.write_text("half")
        assert path.read_text() == "old"
    assert path.read_text() == "half"


def seal(folder, **more):
    given = {"stage": "s", "fingerprint": "f", "config": {"a": 1}, "inputs": {"x": "y"}, "counts": {"n": 2}}
    return artifact.seal(folder, **(given | more))


def test_an_artifact_lists_its_files(tmp_path):
    write_text(tmp_path / "rows.txt", "rows")
    write_text(tmp_path / "sub" / "log.txt", "12:00")
    write_text(tmp_path / ".work" / "part.txt", "part")
    write_text(tmp_path / "sub" / ".hidden", "x")
    assert artifact.load(tmp_path) is None
    sealed = seal(tmp_path, unhashed=["sub/log.txt"])
    assert artifact.load(tmp_path) == sealed
    assert set(sealed.manifest.files) == {"rows.txt", "sub/log.txt"}
    assert sealed.manifest.files["sub/log.txt"] == artifact.UNHASHED
    assert sealed.file("rows.txt").read_text() == "rows"
    with pytest.raises(FileNotFoundError, match=r"stage s wrote no 'other\.txt'.*rows\.txt"):
        sealed.file("other.txt")


@pytest.mark.parametrize("unhashed", [["logs"], ["logs/*"], ["*.log"]])
def test_unhashed_files_do_not_change_the_manifest(tmp_path, unhashed):
    texts = []
    for name, log in (("a", "12:00"), ("b", "12:01")):
        write_text(tmp_path / name / "rows.txt", "rows")
        write_text(tmp_path / name / "logs" / "x.log", log)
        seal(tmp_path / name, unhashed=unhashed)
        texts.append((tmp_path / name / "manifest.json").read_bytes())
    assert texts[0] == texts[1]
    # Sealing again gives the same, and a hashed file that differs does not.
    seal(tmp_path / "b", unhashed=unhashed)
    assert (tmp_path / "b" / "manifest.json").read_bytes() == texts[0]
    write_text(tmp_path / "b" / "rows.txt", "other")
    seal(tmp_path / "b", unhashed=unhashed)
    assert (tmp_path / "b" / "manifest.json").read_bytes() != texts[0]
