import pytest
from typer.testing import CliRunner

import phikit.cli  # noqa: F401  adds the commands
from phikit.cli.app import app
from phikit.records.io import write_json, write_jsonl


def corpus(folder):
    rows = [
        {"id": str(i), "text": "x" * (100 << (i % 3)), "source": "web" if i % 4 else "code",
         "meta": {"language": "en" if i % 2 else "de", "topic": "history", "licence": "MIT"} if i % 4 else {}}
        for i in range(40)
    ]  # fmt: skip
    rejected = [
        {
            "id": "r",
            "source": "web",
            "path": f"web/{i}",
            "reason": "language",
            "detail": "fr (0.9) & <b>",
            "text": "Le",
        }
        for i in range(7)
    ]
    write_jsonl(folder / "documents.jsonl.zst", rows)
    write_jsonl(folder / "rejected.jsonl.zst", rejected)
    counts = {"in": 49, "parts": 0, "out": 40, "heldout": 2, "dropped": {"language": 7}}
    write_json(folder / "manifest.json", {"counts": counts})


def test_the_card_counts_every_source_and_shows_what_was_left_out(tmp_path):
    corpus(tmp_path / "corpus")
    done = CliRunner().invoke(app, ["corpus", "card", str(tmp_path / "corpus")])
    assert done.exit_code == 0, done.output
    html = (tmp_path / "corpus-card.html").read_text()
    assert "40 documents" in html
    assert "40 documents are kept, 2 held out, 7 left out" in html
    for label in ("history", "de", "en", "MIT", "language: 7"):
        assert label in html
    assert "By source: web 7." in html
    assert html.count("web/") == 3  # examples of a reason
    assert "&amp; &lt;b&gt;" in html
    assert "<script></script>" in html


def test_a_folder_without_a_corpus_is_an_error(tmp_path):
    from phikit.report.corpus_card import write_card

    with pytest.raises(ValueError, match="no finished corpus here"):
        write_card(tmp_path, tmp_path / "card.html")
