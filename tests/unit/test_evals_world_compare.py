"""Pairing and contamination."""

from __future__ import annotations

import pytest
from evals_world import N, engine, perfect, worked_answer, write_world

from phikit.evals.compare import compare
from phikit.evals.contamination import overlap, texts
from phikit.evals.world.overlap import contamination
from phikit.evals.world.pairs import PAIRS, comparisons
from phikit.evals.world.plan import Settings
from phikit.evals.world.run import evaluate, load_items
from phikit.records.io import write_jsonl

SETTINGS = Settings(window=32)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("evals"))


def sometimes(share: int):
    """Right on `share` of 10 problems, by the problem."""

    def script(prompt: str) -> str:
        answer = worked_answer(prompt)
        return (
            perfect(prompt)
            if answer is None or int(answer[:-1].split()[-1]) % 10 < share
            else "The answer is 0."
        )

    return script


def test_each_stage_is_compared_on_the_same_items(world):
    rows, reference = {}, None
    for name, share in (("sft", 3), ("pretrain", 0), ("midtrain", 0), ("dpo1", 9), ("dpo2", 9)):
        kind = "base" if name in ("pretrain", "midtrain") else "chat"
        found = evaluate(engine(sometimes(share)), name, kind, *world, SETTINGS, reference)
        rows[name], reference = found.rows, found.references or reference
    out = comparisons(rows)
    assert [(c["a"], c["b"], c["task"], c["metric"]) for c in out] == list(PAIRS)
    by = {(c["a"], c["task"], c["metric"]): c for c in out}
    gain = by["dpo1", "arithmetic", "sampled"]
    assert gain["verdict"] == "higher"
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    assert (gain["n"], gain["clusters"], gain["method"]) == (4 * N, N, "paired-cluster")
    assert by["dpo2", "arithmetic", "sampled"]["verdict"] == "no visible change"
    assert by["midtrain", "recall_4x", "exact"]["p"] == 1.0
    assert by["sft", "arithmetic", "greedy"]["p"] < 0.05
    assert "p" not in gain
    assert comparisons({"sft": rows["sft"]}) == []


def test_different_items_cannot_be_paired():
    def rows(*ids):
        return [{"task": "t", "metric": "m", "id": i, "sample": 0, "value": 1.0} for i in ids]

    with pytest.raises(ValueError, match="2 and 2 answers, 1 of them"):
        compare("a", rows("x", "y"), "b", rows("x", "z"), "t", "m")
    fell = compare("a", [{**r, "value": 0.0} for r in rows("x", "y")], "b", rows("x", "y"), "t", "m")
    assert (fell["verdict"], fell["value"]) == ("lower", -1.0)


def test_contamination_finds_the_seen_items_and_scores_the_rest(world, tmp_path):
    held = load_items(*world, SETTINGS)
    found = evaluate(engine(sometimes(5)), "sft", "chat", *world, SETTINGS)
    seen = held["arithmetic"][0]["question"]
    docs, dialogs = tmp_path / "documents.jsonl.zst", tmp_path / "dialogs.jsonl"
    write_jsonl(docs, [{"text": "nothing in common"}, {"text": "Before: " + seen.upper() + " After."}])
    asked = held["arithmetic"][1]["question"]
    write_jsonl(
        dialogs, [{"turns": [{"role": "user", "content": asked}, {"role": "assistant", "content": "7"}]}]
    )
    report = contamination(held, found.rows, texts([docs, dialogs]))
    assert report["tasks"]["arithmetic"] == {"items": N, "contaminated": 2, "share": 2 / N, "too_short": 0}
    assert report["tasks"]["recall_4x"]["contaminated"] == 0
    assert report["tasks"]["recall_4x"]["too_short"] == 8
    clean = {(s["task"], s["metric"]): s for s in report["clean"]}
    assert clean["arithmetic", "sampled"]["n"] == 4 * (N - 2)
    assert clean["format", "well_formed"]["n"] == 4 * (N - 2)
    gone = {held["arithmetic"][k]["id"] for k in (0, 1)}
    left = [r["value"] for r in found.rows if r["metric"] == "greedy" and r["id"] not in gone]
    assert clean["arithmetic", "greedy"]["value"] == pytest.approx(sum(left) / len(left))


def test_twelve_words_are_no_hit():
    words = "one two three four five six seven eight nine ten eleven twelve thirteen"
    held = {"t": [{"id": "a", "question": words}]}
    assert overlap(held, [words.rsplit(" ", 1)[0]])["t"] == set()
    assert overlap(held, ["x", words.replace(" ", "\n").upper()])["t"] == {"a"}
