"""Forum dumps, notebooks and trees of code in many languages."""

from __future__ import annotations

import json
from xml.sax.saxutils import quoteattr

import pytest

from phikit.corpus import forum
from phikit.corpus.code import split_code
from phikit.corpus.extract import extract
from phikit.corpus.folders import Folder, folder_documents
from phikit.corpus.rejection import Rejection
from phikit.records import Document


def row(**fields):
    return f"  <row {' '.join(f'{k}={quoteattr(str(v))}' for k, v in fields.items())} />\n"


def dump(path, *rows, end="</posts>"):
    path.write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<posts>\n' + "".join(rows) + end, encoding="utf-8"
    )


def read(folder):
    items = list(folder_documents(Folder(folder, "qa")))
    good = {i.meta["path"].split("/", 1)[1]: i for i in items if isinstance(i, Document)}
    return good, {i.path.split("/", 1)[1]: i.detail for i in items if isinstance(i, Rejection)}


QUESTION = row(
    Id=4, PostTypeId=1, AcceptedAnswerId=9, Title="Why is <b> bold?", OwnerUserId=3, CreationDate="2010-01-02T03:04:05",
    Body="<p>I wrote <code>&lt;b&gt;</code>:</p><pre><code>a  =  1\n  b\n</code></pre>", ContentLicense="CC BY-SA 4.0",
)  # fmt: skip
ANSWERS = (
    row(Id=7, PostTypeId=2, ParentId=4, Score=30, Body="<p>Most liked.</p>", OwnerDisplayName="ann"),
    row(Id=9, PostTypeId=2, ParentId=4, Score=2, Body="<p>Accepted, and $x^2$.</p>"),
    row(Id=8, PostTypeId=2, ParentId=4, Score=-5, Body="<p>Least liked.</p>", ContentLicense="CC BY-SA 3.0"),
)


def test_a_thread_is_one_document_with_its_answers_in_order(tmp_path):
    other = row(Id=2, PostTypeId=1, Title="First", Body="<p>Nobody answered.</p>")
    wiki = row(Id=11, PostTypeId=4, Body="<p>a tag's text</p>")
    dump(tmp_path / "Posts.xml", QUESTION, *ANSWERS, wiki, other)
    good, bad = read(tmp_path)
    assert list(good) == ["Posts.xml#2", "Posts.xml#4"]
    thread = good["Posts.xml#4"]
    assert thread.meta["licence"] == "CC BY-SA 3.0, CC BY-SA 4.0"
    assert thread.meta["origin"].endswith("Posts.xml#4")
    text = thread.text
    assert text.startswith("# Why is <b> bold?\n\n---\n\nuser 3, 2010-01-02:\n\nI wrote `<b>`:")
    assert "```\na  =  1\n  b\n```" in text
    places = [
        text.index(x) for x in ("Accepted, and $x^2$.", "ann:\n\nMost liked.", "somebody:\n\nLeast liked.")
    ]
    assert places == sorted(places)
    assert "tag's text" not in "".join(d.text for d in good.values())
    assert bad == {}


def test_a_damaged_dump_gives_what_came_before_and_one_rejection(tmp_path):
    orphan = row(Id=20, PostTypeId=2, ParentId=19, Body="<p>To whom?</p>")
    dump(tmp_path / "Posts.xml", QUESTION, *ANSWERS, orphan, '<row Id="3" PostTypeId="1" Bo', end="")
    good, bad = read(tmp_path)
    assert list(good) == ["Posts.xml#4"]
    assert "Least liked." in good["Posts.xml#4"].text
    assert "not in the dump" in bad["Posts.xml#19"]
    assert "damaged at byte" in bad["Posts.xml"]


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (
            '<!DOCTYPE p [<!ENTITY a "aaaa">]><posts><row Id="1" PostTypeId="1" Body="&a;"/></posts>',
            "document type",
        ),
        ("<posts></posts>", "no question or answer"),
        ("", "damaged"),
        (f'<posts><row Id="1" PostTypeId="1" Body="{"x" * 5000}"/></posts>', "a post of more than 0 MB"),
    ],
)
def test_hostile_dumps_are_one_rejection(tmp_path, text, detail, monkeypatch):
    monkeypatch.setattr(forum, "MAX_POST", 1000)
    monkeypatch.setattr(forum, "_READ", 500)
    (tmp_path / "Posts.xml").write_text(text)
    good, bad = read(tmp_path)
    assert good == {}
    assert detail in bad["Posts.xml"]


def test_a_thread_that_is_too_long_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(forum, "MAX_THREAD", 100)
    dump(tmp_path / "Posts.xml", QUESTION, *ANSWERS, row(Id=2, PostTypeId=1, Title="t", Body="<p>short</p>"))
    good, bad = read(tmp_path)
    assert list(good) == ["Posts.xml#2"]
    assert "a thread of more than" in bad["Posts.xml#4"]


def test_notebooks_keep_their_code_and_no_output(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "$x^2$"]},
        {"cell_type": "code", "source": "for i in x:\n    print('```')", "outputs": [{"text": ["gone"]}]},
        {"cell_type": "code", "source": []},
    ]
    book = {"cells": cells, "metadata": {"kernelspec": {"language": "python"}}}
    (tmp_path / "a.ipynb").write_text(json.dumps(book))
    (tmp_path / "b.ipynb").write_text('{"worksheets": []}')
    (tmp_path / "c.ipynb").write_text("[" * 100_000)
    good, bad = read(tmp_path)
    assert good["a.ipynb"].text == "# Title\n$x^2$\n\n````python\nfor i in x:\n    print('```')\n````"
    assert good["a.ipynb"].meta["format"] == "markdown"
    assert "not a notebook" in bad["b.ipynb"]
    assert "nested too deep" in bad["c.ipynb"]


def test_code_of_many_languages_is_code(tmp_path):
    function = "int f%d(int x)\n{\n    if (x)\n\n        return x + %d;\n    return 0;\n}\n\n"
    text = "".join(function % (i, i) for i in range(60))
    (tmp_path / "a.c").write_text(text)
    (tmp_path / "b.rs").write_text("fn main() {}\n")
    (tmp_path / "c.go").write_bytes(b"\xff\xfe")
    good, bad = read(tmp_path)
    assert {k: d.meta["format"] for k, d in good.items()} == {"a.c": "c", "b.rs": "rust"}
    assert "utf-8" in bad["c.go"]
    parts = [d.text for d in extract(good["a.c"], max_code=500)]
    assert len(parts) > 5
    assert all(len(p) <= 500 and p.startswith("int f") and p.endswith("}") for p in parts)
    assert "\n\n".join(parts) + "\n\n" == text


def test_a_long_stretch_without_definitions_is_cut_where_it_must_be():
    text = "{\n" + "    call(1);\n\n" * 40 + "}"
    parts = split_code(text, 100, "c")
    assert all(len(p) <= 100 for p in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(p.count("call") == p.count("call(1);") for p in parts)
