"""`phikit decontaminate`: what is found, what is kept, byte for byte, on any number of workers."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest
from typer.testing import CliRunner

from phikit.cli.app import app
from phikit.corpus import scrub as module
from phikit.corpus.allow import boilerplate, common_phrases
from phikit.corpus.references import read_references
from phikit.corpus.scrub import Scrub, scrub
from phikit.records.io import read_json, read_jsonl, read_parquet, write_parquet
from phikit.report.contamination_page import page
from phikit.text import ngrams

QUESTION = (
    "A baker sells 24 loaves of bread each morning and half as many each afternoon. If every loaf costs 3 dollars, "
    "how many dollars does the baker earn in a week of six days?"
)
SOLUTION = "Each day the baker sells " + " ".join(f"step {i} of a long solution" for i in range(40))
FILLER = (
    "The morning was cold and nobody in the village had expected the visitors to come before noon that day. "
)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")
    module._cached.cache_clear()


@pytest.fixture
def benchmark(tmp_path):
    path = tmp_path / "bench.jsonl"
    path.write_text(json.dumps({"id": "bread", "question": QUESTION, "answer": SOLUTION}) + "\n")
    return path


def lines(n: int) -> list[str]:
    """Rows with odd spacing; every tenth holds the question, re-wrapped."""
    text = [FILLER + str(i) + ("\n" + QUESTION.replace(" ", "\n") if i % 10 == 3 else "") for i in range(n)]
    return [
        json.dumps({"n": i, "text": t}, indent=None, separators=(", ", " :  ")) + "\n"
        for i, t in enumerate(text)
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_kept_lines_have_their_bytes_and_flagged_rows_their_numbers(tmp_path, benchmark, name, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 700)
    monkeypatch.setattr(module, "BATCH", 300)
    rows = lines(40)
    path = tmp_path / name
    with module.open_lines(path, like=path) as f:
        f.write("".join(rows).encode())
    summary = scrub([path], tmp_path / "out", Scrub((benchmark,)))
    assert (summary["rows"], summary["contaminated"], summary["unreadable"]) == (40, 4, 0)
    with module.open_lines(tmp_path / "out" / "clean" / name) as f:
        assert f.read().decode() == "".join(r for i, r in enumerate(rows) if i % 10 != 3)
    flagged = list(read_jsonl(tmp_path / "out" / "flagged.jsonl"))
    assert [r["row"] for r in flagged] == [3, 13, 23, 33]
    assert " ".join(flagged[0]["match"].split()) == QUESTION.rstrip("?")
    assert flagged[0]["item_text"].startswith(QUESTION)


def test_parquet_and_pieces_on_two_workers_give_what_one_gives(tmp_path, benchmark, monkeypatch):
    rows = [
        {"chat": [{"role": "user", "content": QUESTION if i % 7 == 2 else FILLER}], "n": i} for i in range(30)
    ]
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "chat.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=8)
    one = scrub([path], tmp_path / "one", Scrub((benchmark,)))
    two = scrub([path], tmp_path / "two", Scrub((benchmark,)), workers=2)
    assert one == two
    assert (tmp_path / "one/flagged.jsonl").read_bytes() == (tmp_path / "two/flagged.jsonl").read_bytes()
    assert list(read_parquet(tmp_path / "two/clean/chat.parquet")) == [r for r in rows if r["n"] % 7 != 2]


def test_a_row_that_cannot_be_read_is_flagged_and_left_out(tmp_path, benchmark):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine and well"}\nnot json\n[1]\n{"text": null}\n{"prompt": "x"}\n')
    summary = scrub([path], tmp_path / "out", Scrub((benchmark,), key="text"))
    assert (summary["rows"], summary["unreadable"]) == (5, 4)
    assert (tmp_path / "out/clean/a.jsonl").read_text() == '{"text": "fine and well"}\n'
    details = [r["match"] for r in read_jsonl(tmp_path / "out/flagged.jsonl")]
    assert "not valid JSON" in details[0]
    assert "list" in details[1]
    assert "no text under 'text' (keys: prompt)" in details[3]


def test_lines_that_no_row_can_be_are_flagged_and_never_held(tmp_path, benchmark, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE", 2000)
    monkeypatch.setattr(module, "PIECE", 700)
    path = tmp_path / "a.jsonl"
    good = lines(2)
    bad = ["[" * 1999 + "\n", '{"text": "' + "x" * 5000 + '"}\n', '{"text": "\\ud800 ' + QUESTION + '"}\n']
    path.write_text(good[0] + "".join(bad) + good[1])
    summary = scrub([path], tmp_path / "out", Scrub((benchmark,)))
    assert (summary["rows"], summary["unreadable"]) == (5, 3)
    flagged = list(read_jsonl(tmp_path / "out/flagged.jsonl"))
    assert [r["row"] for r in flagged] == [1, 2, 3]
    assert "not valid JSON" in flagged[0]["match"]
    assert "a line of more than" in flagged[1]["match"]
    assert "surrogate" in flagged[2]["match"]
    assert (tmp_path / "out/clean/a.jsonl").read_text() == "".join(good)


def test_a_benchmark_that_changed_is_read_again(tmp_path, benchmark):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": FILLER + QUESTION}) + "\n")
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "b.jsonl").write_text(json.dumps({"question": SOLUTION}) + "\n")
    before = scrub([tmp_path / "a.jsonl"], tmp_path / "out", Scrub((folder,)))
    (folder / "b.jsonl").write_bytes(benchmark.read_bytes())
    after = scrub([tmp_path / "a.jsonl"], tmp_path / "out", Scrub((folder,)))
    assert (before["contaminated"], after["contaminated"]) == (0, 1)


def test_a_long_solution_does_not_hide_the_question(tmp_path, benchmark):
    """Numbers changed: no 13-gram is left, and 7-grams of the question are a small part of question and solution."""
    changed = (
        QUESTION.replace("24", "30")
        .replace("3 dollars", "5 dollars")
        .replace("six", "two")
        .replace("half", "third")
    )
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": FILLER + changed}) + "\n")
    summary = scrub([path], tmp_path / "out", Scrub((benchmark,), info=0.05, contaminated=0.2))
    (row,) = read_jsonl(tmp_path / "out/flagged.jsonl")
    assert (row["rule"], row["item"]) == ("7-gram", "bread")
    assert summary["items"] == 1
    whole = QUESTION + "\n" + SOLUTION
    w = ngrams.words([whole, QUESTION])
    shared, of_question = row["overlap"], int(ngrams.ngrams(w, 7)[1][2] - ngrams.ngrams(w, 7)[1][1])
    assert row["ratio"] == pytest.approx(shared / of_question, abs=1e-4)


def test_benchmarks_of_every_form(tmp_path):
    text = f"{QUESTION}\tan answer\n"
    (tmp_path / "t.tsv").write_text(text)
    (tmp_path / "c.csv").write_text(f'"{QUESTION}",an answer\n')
    (tmp_path / "l.json").write_text(json.dumps({"train": [{"q": QUESTION}], "test": [{"q": QUESTION}]}))
    (tmp_path / "g.jsonl.gz").write_bytes(gzip.compress(json.dumps({"q": QUESTION}).encode()))
    write_parquet(tmp_path / "p.parquet", [{"q": QUESTION}])
    for name in ("z.jsonl.zst", "z.tsv.zst"):
        with module.open_lines(tmp_path / name, like=tmp_path / name) as f:
            f.write((json.dumps({"q": QUESTION}) if "json" in name else text).encode())
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as t:
        data = f'"{QUESTION}",x\n'.encode("latin-1")
        info = tarfile.TarInfo("deep/b.csv")
        info.size = len(data)
        t.addfile(info, io.BytesIO(data))
    for name in (
        "t.tsv",
        "c.csv",
        "l.json",
        "g.jsonl.gz",
        "p.parquet",
        "a.tar.gz",
        "z.jsonl.zst",
        "z.tsv.zst",
    ):
        pairs = list(read_references(tmp_path / name))
        assert [t for _, t in pairs if QUESTION not in t] == [], name
        assert pairs, name
    assert len(dict(read_references(tmp_path))) >= 6
    (tmp_path / "x.bin").write_text("?")
    with pytest.raises(ValueError, match=r"x\.bin: not a kind of file"):
        list(read_references(tmp_path / "x.bin"))


def test_boilerplate_of_many_items_is_allowed_and_a_shared_passage_is_not():
    options = "choose the one best answer to the question below and write only its letter in the box"
    passage = " ".join(f"p{i}" for i in range(60))
    items = [f"{' '.join(f'q{k}w{i}' for i in range(20))} {options}" for k in range(6)]
    items += [f"{passage} {' '.join(f'r{k}w{i}' for i in range(20))}" for k in range(6)]
    allowed = boilerplate(ngrams.words(items))
    of_options = ngrams.ngrams(ngrams.words([options]), 13)[0]
    of_passage = ngrams.ngrams(ngrams.words([passage]), 13)[0]
    assert set(of_options) == set(allowed)
    assert not set(of_passage) & set(allowed)
    assert len(common_phrases([options] * 2)) == 0
    assert set(common_phrases([options] * 3)) == set(of_options)


def test_the_command_and_its_page(tmp_path, benchmark):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(lines(14)) + json.dumps({"text": "<script>alert(1)</script> " + QUESTION}) + "\n")
    result = CliRunner().invoke(
        app,
        [
            "decontaminate",
            str(path),
            "--against",
            str(benchmark),
            "--out",
            str(tmp_path / "o"),
            "--workers",
            "1",
        ],
    )
    assert result.exit_code == 0, result.output
    assert "15 rows: 3 contaminated" in result.output
    html = (tmp_path / "o" / "report.html").read_text()
    assert html == page(tmp_path / "o")
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "bread" in html
    assert "20.00%" in html
    assert read_json(tmp_path / "o/summary.json")["top_items"] == {"bread": 3}


def test_missing_files_and_wrong_kinds_are_named(tmp_path, benchmark):
    with pytest.raises(ValueError, match=r"nothing\.jsonl.*no such file"):
        scrub([benchmark], tmp_path / "o", Scrub((tmp_path / "nothing.jsonl",)))
    for name in ("b.tar.gz", "b.zip", "b.jsonl.gz", "b.csv.zst"):
        (tmp_path / name).write_bytes(b"no archive")
        with pytest.raises(ValueError, match=rf"{name}: it cannot be read"):
            scrub([benchmark], tmp_path / "o", Scrub((tmp_path / name,)))
    with pytest.raises(ValueError, match=r"a\.txt: give files"):
        scrub([tmp_path / "a.txt"], tmp_path / "o", Scrub((benchmark,)))
