"""Damaged and hostile files: each is one named rejection, memory stays bounded, and its neighbours are read."""

from __future__ import annotations

import gzip
import io
import os
import tracemalloc
import zipfile

import pytest

from phikit.corpus import folders, packed, rows
from phikit.corpus.folders import Folder, folder_documents
from phikit.corpus.rejection import Rejection

MB = 1 << 20


@pytest.fixture
def small(monkeypatch):
    """The same bounds at 1/16, so that the faults are quick."""
    monkeypatch.setattr(packed, "MAX_ENTRY", 4 * MB)
    monkeypatch.setattr(folders, "MAX_FILE", 4 * MB)
    monkeypatch.setattr(rows, "MAX_LINE", 4 * MB)
    monkeypatch.setattr(packed.bounded, "__defaults__", (4 * MB,))


def outcome(folder):
    (folder / "good.txt").write_text("good")
    items = list(folder_documents(Folder(folder, "x")))
    texts = [i.text for i in items if not isinstance(i, Rejection)]
    bad = {i.path.split("/", 1)[1]: i for i in items if isinstance(i, Rejection)}
    assert all(i.reason == "unreadable" and str(folder) not in i.detail for i in bad.values())
    return texts, {k: i.detail for k, i in bad.items()}


def zipped(path, name, data):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr(name, data)


def test_bombs_are_never_unpacked_whole(tmp_path, small):
    zeros = bytes(64 * MB)
    zipped(tmp_path / "bomb.docx", "word/document.xml", zeros)
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(zeros, 1))
    (tmp_path / "line.jsonl.gz").write_bytes(gzip.compress(zeros + b'\n{"text": "after"}\n', 1))
    del zeros
    tracemalloc.start()
    texts, bad = outcome(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts == ["good", "after"]
    assert set(bad) == {"bomb.docx", "bomb.txt.gz", "line.jsonl.gz#1"}
    assert "unpacks to more than 4 MB" in bad["bomb.docx"]
    assert "line 1 is longer than 4 MB" in bad["line.jsonl.gz#1"]
    assert peak < 24 * MB


@pytest.mark.skipif(not os.environ.get("SLOW"), reason="reads 2 GB: SLOW=1")
def test_a_gigabyte_in_one_line(tmp_path):
    for name in ("one.txt", "one.jsonl", "one.csv", "one.json"):
        with (tmp_path / name).open("wb") as f:
            f.truncate(1 << 30)  # a hole: takes no room on disk
    tracemalloc.start()
    texts, bad = outcome(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts == ["good"]
    assert set(bad) == {"one.txt", f"one.jsonl#bytes=0-{(1 << 30) - 1}", "one.csv", "one.json"}
    assert all("MB" in detail for detail in bad.values())
    assert peak < 300 * MB


def test_entities_are_not_expanded(tmp_path):
    xml = '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;">]><document>&b;</document>'
    zipped(tmp_path / "a.docx", "word/document.xml", xml)
    zipped(tmp_path / "b.docx", "word/document.xml", xml.encode("utf-16"))
    zipped(tmp_path / "c.docx", "word/document.xml", "<a>" * 5000)
    zipped(tmp_path / "d.docx", "other.xml", "<a/>")
    texts, bad = outcome(tmp_path)
    assert texts == ["good"]
    assert "document type" in bad["a.docx"]
    assert "document type" in bad["b.docx"]
    assert "nested" in bad["c.docx"]
    assert "word/document.xml is missing" in bad["d.docx"]


def test_cut_short_and_not_utf8(tmp_path):
    whole = gzip.compress(b'{"text": "first"}\n' + bytes(range(32, 127)) * 3000)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(bytes(range(256)) * 40)[:200])
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    (tmp_path / "d.jsonl").write_bytes(b'{"text": "ok"}\n{"text": "caf\xe9"}\n')
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        z.writestr("word/document.xml", "<d/>" * 99)
    (tmp_path / "e.docx").write_bytes(buffer.getvalue()[:150])
    (tmp_path / "f.epub").write_bytes(b"")
    (tmp_path / "g.mbox").write_bytes(b"\x00\x01")
    (tmp_path / "h.warc.gz").write_bytes(gzip.compress(b"WARC/1.0\r\nContent-Length: 999\r\n\r\nshort"))
    (tmp_path / "i.warc").write_bytes(b"GIF89a")
    (tmp_path / "j.csv").write_bytes(b'text\n"never closed')
    (tmp_path / "k.json").write_bytes(b"[" * 100_000)
    texts, bad = outcome(tmp_path)
    assert texts.count("ok") == 1
    assert texts.count("good") == 1
    assert set(bad) == {
        "a.jsonl.gz", "b.txt.gz", "c.txt", "d.jsonl#bytes=15-30", "e.docx", "f.epub", "g.mbox", "h.warc.gz",
        "i.warc", "j.csv", "k.json",
    }  # fmt: skip
    assert "missing" in bad["h.warc.gz"]
    assert "utf-8" in bad["d.jsonl#bytes=15-30"]
