import ast
import gzip
import json
from pathlib import Path

import pytest

from phikit.corpus.code import split_code
from phikit.corpus.extract import extract
from phikit.corpus.folders import Folder, folder_documents
from phikit.corpus.language import language
from phikit.corpus.quality import CODE, TEXT, reason
from phikit.corpus.references import read_references
from phikit.corpus.rejection import Rejection
from phikit.corpus.sources import local_documents
from phikit.records import Document
from phikit.records.io import write_jsonl, write_parquet

ENGLISH = (
    "The river rises in the hills above the town and runs for ninety miles before it meets the "
    "sea. People have "
    "lived along its banks since the ice withdrew, and every spring they still watch the water "
    "with some worry. "
)
GERMAN = (
    "Der Fluss entspringt in den Hügeln oberhalb der Stadt und fließt neunzig Meilen bis zum "
    "Meer. An seinen Ufern "
    "leben seit der letzten Eiszeit Menschen, die das Wasser in jedem Frühling mit Sorge betrachten. "
)


def test_this_machines_documents_are_a_sorted_sample_within_the_budget():
    items = list(local_documents({"code": 300_000, "text": 200_000}))
    assert items == list(local_documents({"code": 300_000, "text": 200_000}))
    assert not [i for i in items if isinstance(i, Rejection)]
    for source, budget in ("code", 300_000), ("text", 200_000):
        mine = [i for i in items if i.source == source]
        sizes = [len(i.text.encode()) for i in mine]
        assert budget <= sum(sizes) < budget + max(sizes)
        paths = [i.meta["path"] for i in mine]
        assert paths == sorted(paths)
        assert not any(Path(p).is_absolute() or "/test" in p or "site-packages" in p for p in paths)
    assert len({i.meta["path"].split("/")[1][0] for i in items if i.source == "code"}) > 4  # not the letter A


def test_docstrings_share_the_origin_of_their_module(tmp_path):
    from phikit.corpus.sources import module

    path = tmp_path / "m.py"
    path.write_text(
        '"""About m."""\ndef f(a, b=1):\n    "Adds."\nclass C:\n'
        '    "Holds."\n    def g(self):\n        "Goes."\n'
    )
    code, text = module(path, "stdlib/m.py")
    assert text.text == "m\n\nAbout m.\n\nm.f(a, b=1)\n\nAdds.\n\nm.C\n\nHolds.\n\nm.C.g(self)\n\nGoes."
    assert code.meta["origin"] == text.meta["origin"] == "stdlib/m.py"


def test_unknown_source_is_named():
    with pytest.raises(ValueError, match=r"corpus\.max_bytes: unknown source \['web'\]"):
        list(local_documents({"web": 1}))


def test_folder_reads_every_kind_and_counts_what_it_cannot_read(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.txt").write_text("plain", encoding="utf-8")
    (folder / "b.md").write_text("# head", encoding="utf-8")
    (folder / "c.html").write_bytes("<meta charset=latin1><p>caf\xe9".encode("latin1"))
    (folder / "d.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    write_jsonl(
        folder / "e.jsonl.zst", [{"body": "row one"}, {"text": "wrong key"}, {"body": "half \\ud800"}]
    )
    with gzip.open(folder / "f.jsonl.gz", "wt", encoding="utf-8") as f:
        f.write('{"body": "first"}\n{"body": "bad \\ud800"}\n{broken\n{"body": "read on"}\n')
    write_parquet(folder / "g.parquet", [{"body": "from parquet"}])
    (folder / "h.txt").write_bytes(b"\xff\xfe\x00bad")
    (folder / "i.py").write_text("def (:")
    (folder / "j.parquet").write_bytes(b"not parquet")
    (folder / "k.jsonl.zst").write_bytes(b"not zstd at all")
    (folder / "l.png").write_bytes(b"ignored")
    items = list(folder_documents(Folder(folder, "notes", "body")))
    texts = {i.meta["path"]: i.text for i in items if isinstance(i, Document)}
    assert texts == {
        "mine/a.txt": "plain",
        "mine/b.md": "# head",
        "mine/c.html": "<meta charset=latin1><p>café",
        "mine/d.py": "# -*- coding: latin-1 -*-\nx = 'é'\n",
        "mine/e.jsonl.zst#1": "row one",
        "mine/e.jsonl.zst#3": "half \\ud800",
        "mine/f.jsonl.gz#1": "first",
        "mine/f.jsonl.gz#4": "read on",
        "mine/g.parquet#1": "from parquet",
    }
    bad = {i.path: i for i in items if isinstance(i, Rejection)}
    assert sorted(bad) == [
        "mine/e.jsonl.zst#2",
        "mine/f.jsonl.gz#2",
        "mine/f.jsonl.gz#3",
        "mine/h.txt",
        "mine/i.py",
        "mine/j.parquet",
        "mine/k.jsonl.zst",
    ]
    assert {i.reason for i in bad.values()} == {"unreadable"}
    assert "text_key 'body' (it has text)" in bad["mine/e.jsonl.zst#2"].detail
    assert "line 3" in bad["mine/f.jsonl.gz#3"].detail
    assert all(str(tmp_path) not in i.detail for i in bad.values())


def test_empty_or_missing_folder_names_the_recipe_key(tmp_path):
    with pytest.raises(ValueError, match=r"corpus\.folders: .*holds no readable kind of file"):
        list(folder_documents(Folder(tmp_path, "x")))
    with pytest.raises(ValueError, match=r"corpus\.folders: .*is not a folder"):
        list(folder_documents(Folder(tmp_path / "none", "x")))


def test_html_keeps_pre_and_drops_the_menu():
    html = (
        "<html><body><nav><a href=x>Home</a> <a href=y>Imprint</a></nav><main><h1>Loops</h1>"
        f"<p>{ENGLISH}</p><pre>for i in x:\n    print(i)</pre></main><footer>Copyright</footer></body></html>"
    )
    (document,) = extract(Document(html, "text", {"format": "html"}))
    assert "for i in x:\n    print(i)" in document.text
    assert ENGLISH.strip() in document.text
    assert "Imprint" not in document.text
    (rejection,) = extract(Document("<html><body></body></html>", "text", {"format": "html"}))
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "empty"


def test_long_code_is_cut_at_definitions_and_names_its_file():
    parts = [f"# about f{i}\n@cache\ndef f{i}(x):\n    y = x + {i}\n    return y * 2" for i in range(60)]
    text = '"""Module."""\f\n' + "\n\n\n".join(parts)
    documents = list(extract(Document(text, "code", {"format": "python"}), max_code=500))
    assert len(documents) > 4
    assert {d.parents for d in documents} == {(Document(text, "code").id,)}
    for d in documents:
        assert len(d.text) <= 500
        ast.parse(d.text)
        assert d.text.startswith(("# about", '"""'))
    assert "".join("".join(d.text.split()) for d in documents) == "".join(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "class A:\n" + "\n".join(f"    def m{i}(self):\n        return {i}\n" for i in range(40)),
        "x = [\n" + "\n".join(f"    {i}," for i in range(400)) + "\n]",
        "x = '" + "a" * 2000 + "'",
    ],
)
def test_no_part_is_longer_than_the_cap(text):
    parts = split_code(text, 300)
    assert max(map(len, parts)) <= 300
    assert "".join("".join(p.split()) for p in parts) == "".join(text.split())
    if text.startswith("class"):
        assert all(p.lstrip().startswith(("class A", "def m")) for p in parts)


def test_language_looks_beyond_the_start():
    assert language(ENGLISH * 5)[0] == "en"
    assert language(GERMAN * 5)[0] == "de"
    assert language("Menu Home Login " + GERMAN * 10)[0] == "de"
    assert language(GERMAN + ENGLISH * 12)[0] == "en"
    assert language("```\n" + "int main() { return 0; }\n" * 50 + "```\n" + GERMAN * 3)[0] == "de"
    assert language(GERMAN * 3 + "\n\n    for (i = 0;;)\n\n" + GERMAN * 3)[1] > 0.8
    assert language("12345 678 --- !!!") == ("und", 0.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENGLISH * 3, None),
        ("too short", "characters"),
        (ENGLISH * 3 + "\x00\x01\x02\x03\x04", "control_share"),
        ("a b c d e f g h i j " * 20, "mean_word_length"),
        (" ".join(f"{i} pages" for i in range(1000, 1200)) + " 1" * 900, "mean_word_length"),
        (" ".join(f"page{i:012d}" for i in range(60)), "mean_word_length"),
        ("word 20394 2039 48 5869 " * 30, "alphabetic_share"),
        ("word = {[()]}; <*> " * 30, "alphabetic_share"),
        (ENGLISH + "the very same line again\n" * 60, "repeated_lines"),
        (" ".join(["water"] * 600), "compression_ratio"),
    ],
)
def test_quality_reasons(text, expected):
    found = reason(text, TEXT)
    assert (found[0] if found else None) == expected


def test_code_has_its_own_ranges():
    table = (
        "TABLE = {\n"
        + "".join(f"    '\\x{i:02x}': 0x{i * 7:04x},  # LATIN LETTER {i}\n" for i in range(200))
        + "}\n"
    )
    assert (
        reason(table, CODE) == ("data_lines", "0.9852 is above 0.6") or reason(table, CODE)[0] == "data_lines"
    )
    source = Path(ast.__file__).read_text(encoding="utf-8")[:20_000]
    assert reason(source, CODE) is None


def test_references_join_question_and_options(tmp_path):
    path = tmp_path / "bench.jsonl"
    rows = [
        {"question": "Q?", "options": ["A 1", "B 2"], "label": None},
        {"id": 7, "text": "whole", "answer": "no"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert list(read_references(path)) == [("bench.jsonl:1", "Q?\nA 1\nB 2"), ("7", "whole")]
    with pytest.raises(ValueError, match=r"corpus\.decontaminate\.against"):
        list(read_references(tmp_path / "none.jsonl"))
