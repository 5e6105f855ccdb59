"""`phikit decontaminate`: what is found, what is kept, byte for byte, on any number of workers."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pyarrow.parquet as pq
import pytest
from range_server import serving
from typer.testing import CliRunner

from phikit.cli.app import app
from phikit.corpus import scrub as module
from phikit.corpus import scrub_files
from phikit.corpus.allow import boilerplate, common_phrases
from phikit.corpus.references import read_references
from phikit.corpus.scrub import Scrub, scrub
from phikit.corpus.table import documents_of
from phikit.jobs.run import ShardError
from phikit.records import remote
from phikit.records.io import open_lines, read_json, read_jsonl, read_parquet, write_parquet
from phikit.records.remote import place
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
    module._index.cache_clear()


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
    monkeypatch.setattr(scrub_files, "PIECE", 700)
    monkeypatch.setattr(module, "BATCH", 300)
    rows = lines(40)
    path = tmp_path / name
    with open_lines(path, like=path) as f:
        f.write("".join(rows).encode())
    summary = scrub([path], tmp_path / "out", Scrub((benchmark,)))
    assert (summary["rows"], summary["contaminated"], summary["unreadable"]) == (40, 4, 0)
    with open_lines(tmp_path / "out" / "clean" / name) as f:
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
    monkeypatch.setattr(scrub_files, "MAX_LINE", 2000)
    monkeypatch.setattr(scrub_files, "PIECE", 700)
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
        with open_lines(tmp_path / name, like=tmp_path / name) as f:
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


def test_a_second_call_builds_no_index_again_and_another_benchmark_does(tmp_path, benchmark, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(lines(20)))
    built = []
    real = module.EvalIndex.save
    monkeypatch.setattr(module.EvalIndex, "save", lambda self, p: (built.append(p), real(self, p))[1])
    first = scrub([path], tmp_path / "out", Scrub((benchmark,)))
    assert scrub([path], tmp_path / "out", Scrub((benchmark,))) == first
    assert len(built) == 1
    benchmark.write_text(json.dumps({"id": "other", "question": FILLER}) + "\n")
    assert scrub([path], tmp_path / "out", Scrub((benchmark,)))["items_found"] == 1
    assert len(built) == 2
    assert len(list((tmp_path / "out" / ".work").glob("items-*"))) == 2


def test_an_item_with_other_numbers_is_partial_unless_it_is_to_be_dropped(tmp_path, benchmark):
    item = "Ann buys 3 red pens, 4 blue pens and 5 books for 60 dollars; what is the price of 7 books and 8 red pens?"
    benchmark.write_text(json.dumps({"id": "pens", "text": item}) + "\n")
    other = item.replace("3", "9").replace("4", "6").replace("5", "2").replace("60", "75").replace("7", "1")
    other = other.replace("8", "12")
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": FILLER + t}) + "\n" for t in (other, "and so on")))
    kept = scrub([path], tmp_path / "kept", Scrub((benchmark,)))
    assert (kept["partial"], kept["contaminated"]) == (1, 0)
    assert kept["by_rule"] == {"13-gram, numbers alike": 1}
    assert len((tmp_path / "kept/clean/a.jsonl").read_text().splitlines()) == 2
    dropped = scrub([path], tmp_path / "dropped", Scrub((benchmark,), numbers=True))
    assert (dropped["partial"], dropped["contaminated"]) == (0, 1)
    assert len((tmp_path / "dropped/clean/a.jsonl").read_text().splitlines()) == 1
    assert "13-grams with numbers alike" in page(tmp_path / "dropped")


@pytest.mark.parametrize("ranges", [True, False])
def test_urls_give_what_local_files_give(tmp_path, benchmark, ranges, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(scrub_files, "PIECE", 700)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(lines(40)))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(lines(20)).encode()))
    write_parquet(folder / "c.parquet", [json.loads(x) for x in lines(15)])
    (folder / "bench.jsonl").write_bytes(benchmark.read_bytes())
    names = ("a.jsonl", "b.jsonl.gz", "c.parquet")
    here = scrub([folder / n for n in names], tmp_path / "here", Scrub((folder / "bench.jsonl",)))
    with serving(folder) as (store, url):
        store.ranges = ranges
        files = [place(f"{url}/{n}?key=secret") for n in names]
        there = scrub(files, tmp_path / "there", Scrub((place(f"{url}/bench.jsonl"),)))
    for n in names[:2]:
        assert (tmp_path / "there/clean" / n).read_bytes() == (tmp_path / "here/clean" / n).read_bytes()
    kept = [list(read_parquet(tmp_path / f"{at}/clean/c.parquet")) for at in ("here", "there")]
    assert kept[0] == kept[1]
    assert {k: v for k, v in there.items() if k not in ("by_file", "against")} == {
        k: v for k, v in here.items() if k not in ("by_file", "against")
    }
    flagged = list(read_jsonl(tmp_path / "there/flagged.jsonl"))
    assert {r["file"] for r in flagged} == {f"{url}/{n}" for n in names}
    assert "secret" not in (tmp_path / "there/flagged.jsonl").read_text()


def test_a_damaged_file_stops_and_is_named_and_nothing_is_written_for_it(tmp_path, benchmark):
    whole = gzip.compress("".join(lines(3000)).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ShardError, match=r"cut\.jsonl\.gz: damaged \(EOFError"):
        scrub([tmp_path / "cut.jsonl.gz"], tmp_path / "o", Scrub((benchmark,)))
    path = tmp_path / "bad.parquet"
    write_parquet(path, [json.loads(x) for x in lines(500)])
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    data, start = bytearray(path.read_bytes()), column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(bytes(data))
    with pytest.raises(ShardError, match=r"bad\.parquet, row group 1: damaged"):
        scrub([path], tmp_path / "p", Scrub((benchmark,)))
    assert not (tmp_path / "o/clean").exists()
    assert not (tmp_path / "p/clean").exists()


def test_a_file_that_changed_while_it_was_checked_is_not_written(tmp_path, benchmark, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(lines(20)))
    real = module.run_shards

    def changed(*args, **kwargs):
        found = real(*args, **kwargs)
        path.write_text("".join(lines(21)))
        return found

    monkeypatch.setattr(module, "run_shards", changed)
    with pytest.raises(ValueError, match="has changed since it was looked at"):
        scrub([path], tmp_path / "out", Scrub((benchmark,)))
    assert not (tmp_path / "out/clean/a.jsonl").exists()


def test_urls_that_do_not_answer_are_named(tmp_path, benchmark, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(remote, "PAUSE", 0)
    (tmp_path / "a.jsonl").write_text("".join(lines(3)))
    with serving(tmp_path) as (store, url):
        at = place(f"{url}/a.jsonl")
        assert [d.text for d in documents_of([at])] == [json.loads(x)["text"] for x in lines(3)]
        assert next(documents_of([at])).meta["path"] == f"{url}/a.jsonl#bytes=0-{len(lines(1)[0]) - 2}"
        store.fail = 99
        with pytest.raises(ValueError, match=r"a\.jsonl: .*give the command again"):
            list(documents_of([at]))
        with pytest.raises(ValueError, match=r"a\.jsonl"):
            scrub([at], tmp_path / "out", Scrub((benchmark,)))
    with pytest.raises(ValueError, match=r"b\.jsonl"):
        scrub([place(f"{url}/b.jsonl")], tmp_path / "out", Scrub((benchmark,)))
