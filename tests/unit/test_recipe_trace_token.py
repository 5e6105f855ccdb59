"""From a token of a shard to the bytes of its source, on shards that the real stages' code makes."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from phikit.corpus.extract import extract
from phikit.corpus.folders import Folder, folder_documents
from phikit.mixture.encode import encode_files
from phikit.mixture.shards import TokenShard
from phikit.recipe import show
from phikit.recipe.trace_token import trace_token
from phikit.records import Dialog, Document, artifact, to_row, turns
from phikit.records.io import write_jsonl
from phikit.text.tokenizer import Tokenizer

PROSE = 'Ein Müller mahlte das Korn, "das der Bauer brachte"; niemand sah es.\nDann kam die Nacht — und der Wind.\n'
CODE = "".join(f"def f{i}(x):\n    return x + {i}\n\n\n" for i in range(24))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    base = tmp_path_factory.mktemp("traced")
    mine, folder = base / "mine", base / "run"
    mine.mkdir()
    (mine / "a.txt").write_bytes(
        ("\r\n\r\n" + PROSE.replace("\n", "\r\n") + "Eins, zwei, drei.\r\n").encode()
    )
    (mine / "b.py").write_text(CODE)
    rows = [{"n": i, "text": f'Row {i}: \u00fcber "{i * 7}"\n\tand\u2028on.'} for i in range(3)]
    (mine / "c.jsonl").write_text("".join(json.dumps(r, ensure_ascii=bool(r["n"])) + "\n" for r in rows))
    (mine / "d.html").write_text(
        f"<html><body><main><h1>Bread &amp; wine</h1><p>{PROSE}</p></main></body></html>"
    )
    (mine / "e.txt.gz").write_bytes(gzip.compress(b"packed words, a few of them"))
    (mine / "f.txt").write_text("na na na na na na na na na na na na na na na na na na\n" * 40)
    items = [i for i in folder_documents(Folder(mine, "text")) if isinstance(i, Document)]
    documents = [d for i in items for d in extract(i, max_code=500) if isinstance(d, Document)]
    dialog = Dialog(turns(("user", "Who?"), ("assistant", "Nobody.")), "chat", {}, (documents[0].id,))
    tokenizer = Tokenizer.train([PROSE, CODE], 320)
    tokenizer.save(folder / "tokenizer" / "tokenizer.json")
    write_jsonl(folder / "corpus" / "documents.jsonl.zst", map(to_row, documents))
    write_jsonl(folder / "synth" / "dialogs.jsonl.zst", [to_row(dialog)])
    config = {"recipe": {"corpus": {"folders": [{"path": str(mine), "source": "text"}]}}}
    artifact.seal(folder / "corpus", stage="corpus", fingerprint="f", config=config, inputs={}, counts={})
    encode_files(
        folder / "tokenizer" / "tokenizer.json",
        [folder / "corpus" / "documents.jsonl.zst"],
        [folder / "synth" / "dialogs.jsonl.zst"],
        folder / "mixture",
        base / "work",
    )
    return folder, mine


@pytest.fixture(scope="module")
def traced(run):
    """TokenTraces of every seventh token of the shard."""
    folder, _ = run
    count = len(TokenShard.load(folder / "mixture" / "text").tokens)
    return [trace_token(folder, f"text@{i}") for i in range(0, count, 7)]


def test_every_token_lies_in_its_document_and_its_source(run, traced):
    _, mine = run
    exact: dict[str, list[bool]] = {}
    for t in traced:
        if t.characters is None:
            assert t.number == t.tokens - 1  # the end of text
            continue
        text = t.document.row["text"]
        assert text.encode()[slice(*t.bytes)] in text[slice(*t.characters)].encode()
        assert t.around[1] == text[slice(*t.characters)]
        name = t.source.partition("#")[0].removeprefix("mine/")
        exact.setdefault(name, []).append(t.exact)
        data = (mine / name).read_bytes()
        assert t.place is not None
        if t.exact:
            found = data[slice(*t.place)]
            forms = {t.around[1].encode(), t.around[1].replace("\n", "\r\n").encode()}
            forms |= {json.dumps(t.around[1], ensure_ascii=a)[1:-1].encode() for a in (True, False)}
            assert found in forms
        elif "bytes=" in t.source:
            assert json.loads(data[slice(*t.place)])["text"] == text
        else:
            assert t.place == (0, len(data))
    assert all(all(exact[name]) for name in ("a.txt", "b.py", "c.jsonl"))
    assert (
        sum(exact["d.html"]) >= len(exact["d.html"]) / 2
    )  # near a heading the text has other signs around it
    assert not any(exact["e.txt.gz"])  # bytes of a packed file say nothing
    assert not any(exact["f.txt"])  # the same words stand all over the file


def test_equal_words_are_told_apart_by_what_surrounds_them(run, traced):
    _, mine = run
    data = (mine / "b.py").read_text()
    seen = {t.place[0]: t for t in traced if t.source == "mine/b.py" and t.exact}
    assert len(seen) > 25  # no two tokens in one place
    for place, t in seen.items():
        assert data[place:].startswith(t.around[1])
        assert data[:place].endswith(t.around[0][-80:])


def test_the_parts_of_a_long_file_lead_to_the_file(traced):
    part = next(t for t in traced if t.source == "mine/b.py" and t.document.row["meta"].get("part", 0) > 1)
    assert (
        part.document.missing == part.document.row["parents"]
    )  # the whole file is no document of the corpus
    assert part.place[0] > part.bytes[0]


def test_a_dialog_leads_to_what_it_was_made_from(run):
    folder, _ = run
    t = trace_token(folder, "dialogs@1")
    assert t.document.file == "synth/dialogs.jsonl.zst"
    assert [p.row["meta"]["path"] for p in t.document.parents] == ["mine/a.txt"]
    assert (t.characters, t.place) == (None, None)


def test_a_source_that_is_gone_is_said_so(run, tmp_path, capsys):
    folder, mine = run
    hidden = mine.rename(mine.with_name("elsewhere"))
    try:
        t = trace_token(folder, "text@5")
        assert (t.place, t.exact) == (None, False)
        show.print_token(folder, "text@5")
        assert "the file is not at hand" in capsys.readouterr().out
    finally:
        hidden.rename(mine)


def test_the_printed_token(run, capsys):
    show.print_token(run[0], "text@12")
    printed = capsys.readouterr().out
    assert "mine/a.txt: bytes" in printed
    assert "the token itself" in printed


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("text@999999", "text has .* tokens, the last one is text@"),
        ("nothing@1", "with a shard of .*: dialogs, text"),
        ("text@", "SOURCE@INDEX"),
        ("@3", "SOURCE@INDEX"),
    ],
)
def test_an_absent_token_is_a_clear_error(run, where, message):
    with pytest.raises(ValueError, match=message):
        trace_token(run[0], where)


def test_a_document_that_no_file_has_is_named(run, tmp_path):
    folder = tmp_path / "other"
    (folder / "corpus").mkdir(parents=True)
    write_jsonl(folder / "corpus" / "documents.jsonl.zst", [])
    one = TokenShard(np.zeros(2, np.uint32), np.zeros(2, np.uint8), np.array([0, 2]))
    one.save(folder / "mixture" / "text", ["0" * 32])
    with pytest.raises(ValueError, match=r"no file of .*corpus, synth.* has a row with the id 0000"):
        trace_token(folder, "text@0")
