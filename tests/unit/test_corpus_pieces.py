"""Large files are read by many tasks: every row by one of them, under the same name, whatever the parts."""

from __future__ import annotations

import gzip
import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from range_server import serving
from test_corpus_folders import http, warc_record
from test_corpus_pipeline import prose

from phikit.corpus import pieces as module
from phikit.corpus import pipeline
from phikit.corpus import rows as reader
from phikit.corpus.folders import Folder, folder_documents
from phikit.corpus.pieces import documents, pieces
from phikit.corpus.pipeline import Settings, build
from phikit.corpus.rejection import Rejection
from phikit.jobs.task import Retryable
from phikit.records import remote
from phikit.records.io import read_jsonl, write_jsonl
from phikit.records.remote import Remote, place


def row(text: str) -> bytes:
    return json.dumps({"text": text}, ensure_ascii=False).encode()


def read(groups, folder):
    return [
        item
        for group in groups
        for inputs in [iter([p.input for p in group if p.input])]
        for piece in group
        for item in documents(json.loads(json.dumps(piece.row())), inputs, folder.source, folder.text_key)
    ]


def shown(items):
    return [(i.path, i.detail) if isinstance(i, Rejection) else (i.meta["path"], i.text) for i in items]


JSONL = {
    "plain": b"".join(row(f"text {i} " + "x" * (i % 37)) + b"\n" for i in range(200)),
    "no line feed at the end": b"\n".join(row(f"text {i}") for i in range(50)),
    "CRLF": b"".join(row(f"text {i}") + b"\r\n" for i in range(80)),
    "blank lines": b"\n\n \n".join(row(f"text {i}") for i in range(40)) + b"\n\n\n",
    "a long line": row("a") + b"\n" + row("y" * 1_000_000) + b"\n" + row("z") + b"\n",
    "a long line alone": row("y" * 100_000),
    "a mark before, UTF-8": b"\xef\xbb\xbf" + b"".join(row("ä€𝄞" * (i % 9)) + b"\n" for i in range(90)),
    "bad lines": b'{"text": "one"}\n{broken\n\xff\xfe\n[1]\n{"text": 5}\n{"text": "last"}\n' * 20,
}


@pytest.mark.parametrize("name", JSONL)
@pytest.mark.parametrize("size", [64, 1000, 4096, 70_001])
def test_every_line_is_read_once_under_one_name(tmp_path, name, size):
    data = JSONL[name]
    (tmp_path / "a.jsonl").write_bytes(data)
    folder = Folder(tmp_path, "x")
    if size == 64:
        data = data[:20_000]  # a part is a file access; thousands of them show nothing more
        (tmp_path / "a.jsonl").write_bytes(data)
    whole = shown(folder_documents(folder))
    assert len(whole) == sum(1 for line in data.split(b"\n") if line.strip())
    _, groups = pieces(folder, size)
    assert len(groups) == max(-(-len(data) // size), 1)
    assert shown(read(groups, folder)) == whole
    for label, text in whole:
        a, b = label.rpartition("#bytes=")[2].split("-")
        line = data[int(a) : int(b) + 1]
        assert b"\n" not in line
        assert not line.endswith(b"\r")
        if text in ("one", "last"):
            assert json.loads(line)["text"] == text


def test_every_cut_of_a_small_file_is_right(tmp_path):
    data = row("a") + b"\r\n\r\n" + row("bb") + b"\n\n" + row("c")
    (tmp_path / "a.jsonl").write_bytes(data)
    whole = list(reader.rows(tmp_path / "a.jsonl"))
    assert [r["text"] for _, r in whole if isinstance(r, dict)] == ["a", "bb", "c"]
    for cut in range(len(data) + 1):
        parts = [
            *reader.rows(tmp_path / "a.jsonl", (0, cut)),
            *reader.rows(tmp_path / "a.jsonl", (cut, len(data))),
        ]
        assert parts == whole, cut


def test_a_line_that_is_too_long_is_one_rejection_of_the_part_it_begins_in(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_LINE", 5000)
    (tmp_path / "a.jsonl").write_bytes(row("a") + b"\n" + row("y" * 50_000) + b"\n" + row("z") + b"\n")
    folder = Folder(tmp_path, "x")
    whole = shown(folder_documents(folder))
    assert [text for _, text in whole][::2] == ["a", "z"]
    assert "a line of more than" in whole[1][1]
    assert shown(read(pieces(folder, 4096)[1], folder)) == whole


@pytest.mark.parametrize("size", [1, 3000, 10**9])
def test_row_groups_are_parts_and_rows_keep_their_numbers(tmp_path, size, monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")
    table = pa.table({"n": range(100), "text": [prose(i, 24) for i in range(100)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=9)
    folder = Folder(tmp_path, "x")
    whole = shown(folder_documents(folder))
    assert [p for p, _ in whole] == [f"{tmp_path.name}/a.parquet#{i + 1}" for i in range(100)]
    _, groups = pieces(folder, size)
    assert len(groups) == {1: 12, 3000: 6, 10**9: 1}[size]
    assert shown(read(groups, folder)) == whole
    (bad,) = shown(folder_documents(Folder(tmp_path, "x", "body")))[:1]
    assert "no text under text_key 'body' (it has n, text)" in bad[1]


def test_what_cannot_be_cut_is_one_task_and_that_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "LARGE", 1000)
    with gzip.GzipFile(tmp_path / "a.jsonl.gz", "wb", compresslevel=0) as f:
        f.write(JSONL["plain"])
    (tmp_path / "b.csv").write_text("text\n" + "some,\n" * 500)
    (tmp_path / "c.jsonl").write_bytes(JSONL["plain"])
    _, groups = pieces(Folder(tmp_path, "x"), 5000)
    assert [[p.file.place.name for p in g] for g in groups] == [["a.jsonl.gz"], ["b.csv"], *[["c.jsonl"]] * 2]
    told = capsys.readouterr().err
    assert "a.jsonl.gz (0 MB) is packed and one task reads it" in told
    assert "b.csv (0 MB) is a .csv file and one task reads it" in told
    assert "c.jsonl" not in told


def test_small_files_share_a_task_and_enter_the_plan_by_their_bytes(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.txt").write_text("x" * 100)
    _, groups = pieces(Folder(tmp_path, "x"), 250)
    assert [len(g) for g in groups] == [3, 3, 3, 1]
    assert all(
        p.input and p.row() == {"name": f"{tmp_path.name}/{p.file.place.name}"} for g in groups for p in g
    )


def test_very_large_files_become_larger_parts_and_not_more(tmp_path, monkeypatch):
    with (tmp_path / "a.jsonl").open("wb") as f:
        f.truncate(50 << 30)  # a hole: takes no room on disk
    _, groups = pieces(Folder(tmp_path, "x"), 2_000_000)
    assert module.MANY <= len(groups) <= module.MANY + 1
    assert groups[0][0].part == (0, (50 << 30) // module.MANY)
    assert groups[-1][-1].part[1] == 50 << 30


def test_a_file_that_changed_after_planning_is_an_error(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(JSONL["plain"])
    folder = Folder(path, "x")
    _, groups = pieces(folder, 1000)
    path.write_bytes(JSONL["plain"] + row("more"))
    with pytest.raises(ValueError, match=r"a\.jsonl has changed since the plan was written"):
        read(groups, folder)


SETTINGS = Settings(max_code=600, heldout=0.1)


def fill(folder):
    """Rows, row groups, pages and a LaTeX file of two, with duplicates across files."""
    folder.mkdir()
    texts = [prose(i) for i in range(60)]
    (folder / "a.jsonl").write_bytes(
        b"".join(row(t) + b"\n" for t in [*texts[:40], texts[3], "short"]) + b"{\n"
    )
    pq.write_table(pa.table({"text": texts[38:60]}), folder / "b.parquet", row_group_size=5)
    (folder / "sub").mkdir()
    (folder / "sub/page.html").write_text(f"<html><body><p>{prose(77)}</p><p>{prose(78)}</p></body></html>")
    (folder / "sub/main.tex").write_text(
        "\\documentclass{article}\\begin{document}\n" + prose(80) + "\n\\input{part}\n\\end{document}"
    )
    (folder / "sub/part.tex").write_text(prose(81))


def made(out, name):
    return list(read_jsonl(out / f"{name}.jsonl.zst"))


def test_a_corpus_has_equal_rows_whatever_the_parts_and_wherever_it_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")
    fill(tmp_path / "in")
    found = {}
    with serving(tmp_path) as (_, url):
        for name, at, size, workers in (
            ("whole", str(tmp_path / "in"), 10**9, 1), ("parts", str(tmp_path / "in"), 700, 1),
            ("url", f"{url}/in", 3000, 2),
        ):  # fmt: skip
            monkeypatch.setattr(pipeline, "SHARD_CHARACTERS", size)
            out = tmp_path / name
            counts = build(
                [], [], out, out / ".work", SETTINGS, folders=[Folder(place(at), "text")], workers=workers
            )
            rows = [made(out, name) for name in ("documents", "heldout")]
            rejections = sorted(
                made(out, "rejected"), key=lambda r: r["path"]
            )  # duplicates stand at the end of a part
            found[name] = json.dumps([counts, *rows, rejections], sort_keys=True).replace(f"{url}/in", "in")
            rejected = {r["reason"] for r in rejections}
    assert rejected == {"characters", "exact_duplicate", "unreadable"}
    assert prose(81)[:40] in found["url"]
    ids = [_without_ids(text) for text in found.values()]
    assert found["whole"] == found["parts"]
    assert ids[0] == ids[2]


def _without_ids(text: str):
    """Rejections of files are called by a hash of their names, and what is held out is chosen by one: a URL is
    another name than a folder's."""
    counts, documents, heldout, rejected = json.loads(text)
    return (
        sorted((d["id"], d["meta"]["path"]) for d in documents + heldout),
        sorted((r["path"], r["reason"]) for r in rejected),
        counts["in"], counts["dropped"],
    )  # fmt: skip


def test_a_url_that_stops_answering_is_tried_again_and_never_taken_for_a_damaged_file(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    fill(tmp_path / "in")
    with serving(tmp_path / "in") as (store, url):
        for name in ("a.jsonl", "b.parquet", "sub/page.html"):
            folder = Folder(Remote(f"{url}/{name}"), "x")
            _, groups = pieces(folder, 10**9)
            store.fail = 1
            assert read(groups, folder)
            module._asked.cache_clear()
            store.fail = 100
            with pytest.raises(Retryable, match=rf"{url}/{name}: no answer in 3 tries"):
                read(groups, folder)
            store.fail = 0


def test_a_server_without_ranges_is_read_whole_by_one_task(tmp_path, capsys):
    fill(tmp_path / "in")
    with serving(tmp_path / "in") as (store, url):
        store.ranges = False
        folder = Folder(Remote(url), "x")
        _, groups = pieces(folder, 700)
        items = shown(read(groups, folder))
    assert "a.jsonl: its server gives no parts of files" in capsys.readouterr().err
    local = Folder(tmp_path / "in", "x")
    expected = shown(read(pieces(local, 700)[1], local))
    assert [(p.removeprefix(url), t) for p, t in items] == [(p.removeprefix("in"), t) for p, t in expected]


def test_every_kind_of_file_is_read_from_a_url_as_from_a_folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(JSONL["CRLF"]))
    write_jsonl(folder / "b.jsonl.zst", ({"text": f"row {i}"} for i in range(9)))
    (folder / "c.mbox").write_text("From a now\nSubject: one\n\nbody\n\nFrom b now\nSubject: two\n\nbody\n")
    (folder / "d.warc.gz").write_bytes(gzip.compress(warc_record("response", http(b"<p>page</p>"))))
    (folder / "e.json").write_text('[{"text": "one"}]')
    (folder / "f.txt.gz").write_bytes(gzip.compress(b"packed"))
    (folder / "g.py").write_text("x = 1\n")
    (folder / "h.docx").write_bytes(b"no zip")
    local = shown(folder_documents(Folder(folder, "x")))
    for name in sorted(p.name for p in folder.iterdir()):
        with fsspec.open(f"memory://kinds/{name}", "wb") as f:
            f.write((folder / name).read_bytes())
    far = shown(folder_documents(Folder(place("memory://kinds"), "x")))
    assert len(local) == 80 + 9 + 2 + 1 + 1 + 1 + 1 + 1
    assert [(n.removeprefix("memory://kinds"), t) for n, t in far] == [
        (n.removeprefix("in"), t) for n, t in local
    ]
    fsspec.filesystem("memory").store.clear()


def test_names_of_rows_are_urls_and_bytes(tmp_path):
    with fsspec.open("memory://store/deep/a.jsonl", "wb") as f:
        f.write(row("one") + b"\r\n" + row("two"))
    for at in ("memory://store", "memory://store/deep/a.jsonl"):
        names = [i.meta["path"] for i in folder_documents(Folder(place(at), "x"))]  # type: ignore[union-attr]
        assert names == ["memory://store/deep/a.jsonl#bytes=0-14", "memory://store/deep/a.jsonl#bytes=17-31"]
    fsspec.filesystem("memory").store.clear()
