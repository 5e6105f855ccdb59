"""IFEval: strict and loose, by prompt and by instruction."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from phikit.engine.scripted import ScriptedEngine
from phikit.evals import packs
from phikit.evals.metrics import ifeval
from phikit.evals.run import Settings, evaluate
from phikit.evals.select import choose
from phikit.evals.task import Answer, Item
from phikit.records.io import RowError, write_jsonl

BENCHMARKS = Path(__file__).parents[3] / "shared" / "data" / "benchmarks"
TWO = Item("a", "x", reference={
    "kinds": ["punctuation:no_comma", "startend:end_checker"], "arguments": [{}, {"end_phrase": "The end."}],
})  # fmt: skip


@pytest.mark.parametrize(
    ("text", "strict", "loose"),
    [
        ("All is well. The end.", 2, 2),
        ("Well, yes. The end.", 1, 1),
        ("Sure, here it is:\nAll is well. The end.", 1, 2),  # without its first line
        ("All is well. The end.\nAsk me for more!", 1, 2),  # without its last line
        ("Sure, here:\nAll is well. **The end.**\nBye!", 0, 2),  # without both and the asterisks
        ("", 0, 0),
        ("  \n ", 0, 0),
        ("***", 1, 1),  # no comma; bare of asterisks it is empty and keeps nothing
    ],
)
def test_strict_and_loose(text, strict, loose):
    found = ifeval.grade(TWO, Answer(text))
    assert (found.scores["kept_strict"], found.scores["kept_loose"]) == (strict, loose)
    assert found.scores["prompt_strict"] == (strict == 2)
    assert found.scores["prompt_loose"] == (loose == 2)
    assert found.outcome == ("right" if strict == 2 else "wrong")


def test_loose_is_never_below_strict():
    texts = ["a\nb", "*a*, b", "The end.", "x\nThe end.", "\n\n", "*", "a,\nThe end."]
    for text in texts:
        scores = ifeval.grade(TWO, Answer(text)).scores
        assert scores["kept_loose"] >= scores["kept_strict"]


def test_accuracies_by_prompt_and_by_instruction(tmp_path):
    rows = [
        {"key": 1, "prompt": "one", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"x": None}]},
        {"key": 2, "prompt": "two", "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase",
         "detectable_format:title"], "kwargs": [{}, {}, {}]},
    ]  # fmt: skip
    write_jsonl(tmp_path / "ifeval/input_data.jsonl", rows)
    engine = ScriptedEngine(lambda p: "No comma here" if "one" in p else "all lower case, though")
    found = evaluate(engine, "m", choose("ifeval"), tmp_path / "out", Settings(data=(tmp_path,)))
    value = {s["metric"]: s["value"] for s in found.scores}
    assert value["prompt_strict"] == 0.5
    assert value["inst_strict"] == pytest.approx(2 / 4)  # not (1 + 1/3) / 2
    assert found.records["ifeval"][1]["detail"] == "punctuation:no_comma, detectable_format:title"


def test_a_row_with_too_few_arguments_is_an_error(tmp_path):
    row = {"key": 1, "prompt": "one", "instruction_id_list": ["punctuation:no_comma"], "kwargs": []}
    write_jsonl(tmp_path / "ifeval/input_data.jsonl", [row])
    with pytest.raises(RowError, match="1 instructions with 0 kwargs"):
        packs.load(packs.PACKS["ifeval"], "test", [tmp_path])


def test_every_row_of_the_benchmark_is_graded():
    path = BENCHMARKS / "ifeval" / "input_data-half.jsonl.gz"
    if not path.exists():
        pytest.skip("IFEval is not here")
    loaded = packs.load(packs.PACKS["ifeval"], "test", [BENCHMARKS])
    with gzip.open(path, "rt") as f:
        instructions = sum(len(json.loads(line)["instruction_id_list"]) for line in f)
    asked = 0
    for row in loaded.rows:
        item = Item(
            row["id"], row["prompt"], reference={"kinds": row["kinds"], "arguments": row["arguments"]}
        )
        asked += ifeval.grade(item, Answer(row["prompt"])).scores["asked"]
    assert asked == instructions
