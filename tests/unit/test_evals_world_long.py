"""HELMET's categories in the closed world: what each metric counts, without a judge."""

from __future__ import annotations

import re

import pytest
from evals_world import engine

from phikit.evals.world import long
from phikit.evals.world.pairs import comparisons
from phikit.evals.world.plan import Prompter, Settings
from phikit.evals.world.run import run_plans, summarize

TABLE = "Codes: ka mo, zu ti, ka be, ra su.\nAsk: ka"
HELD = {
    "rag_2x": [
        {"id": "r0", "prompt": "Codes: ka mo.\nAsk: ka", "answer": " mo"},
        {"id": "r1", "prompt": "Codes: zu ti.\nAsk: zu", "answer": " ti"},
    ],
    "rerank_2x": [
        {
            "id": "k0",
            "prompt": TABLE,
            "choices": [" ti", " mo", " su", " be"],
            "relevant": [0.0, 1.0, 0.0, 1.0],
        }
    ],
    "icl_2x": [{"id": "i0", "prompt": "Sort: ka A, zu", "answer": " B", "choices": [" A", " B"]}],
    "qa_2x": [
        {
            "id": "q0",
            "question": "Tom has 3 pens.\nHow many pens does Tom have now?",
            "answer": "3",
            "max_tokens": 64,
        },
        {
            "id": "q1",
            "question": "Ann has 5 pens.\nHow many pens does Ann have now?",
            "answer": "5",
            "max_tokens": 64,
        },
    ],
    "summ_2x": [{"id": "s0", "prompt": TABLE, "facts": ["mo", "be"], "max_tokens": 64}],
}


def scores(script, held=HELD, kind="chat") -> dict[str, tuple[str, float, dict[str, int]]]:
    model = engine(script)
    plans = long.plans(held, Prompter(model, kind), Settings())
    rows = [r.row("sft") for r in run_plans(model, "sft", plans)]
    return {s["task"]: (s["metric"], s["value"], s["counts"]) for s in summarize(rows)}


def script(prompt: str) -> str:
    if prompt == TABLE:
        return " mo, zu ti, ka be"  # both facts, and a pair that nobody asked for
    if prompt.startswith("Codes"):
        return " mo"
    if prompt.startswith("Sort"):
        return " B"
    return f"The answer is {re.findall(r'[0-9]', prompt)[0]}." if "Tom" in prompt else "The answer is"


def test_every_category_has_its_metric():
    found = scores(script)
    assert {t: m for t, (m, _, _) in found.items()} == {
        "rag_2x": "sub_em", "rerank_2x": "ndcg", "icl_2x": "acc", "qa_2x": "exact", "summ_2x": "f1",
    }  # fmt: skip
    assert found["rag_2x"][1:] == (0.5, {"right": 1, "wrong": 1})
    assert found["icl_2x"][1] == 1.0
    assert found["qa_2x"][1] == 0.5
    assert found["qa_2x"][2]["right"] == 1
    assert found["summ_2x"][1] == 1.0


def test_ids_are_ranked_by_log_probability():
    # " mo" is what the script says and comes first; the others are equal and keep their order: ti, su, be.
    _, value, counts = scores(script, {"rerank_2x": HELD["rerank_2x"]})["rerank_2x"]
    assert value == pytest.approx((1 + 1 / 2.3219280948873623) / (1 + 1 / 1.5849625007211562))
    assert counts == {"wrong": 1}


@pytest.mark.parametrize(
    "said, value",
    [(" mo", 2 / 3), (" ti", 0.0), (" mo, ka be, ka su", 0.8), (" mo, zu be", 2 / 3), ("", 0.0)],
)
def test_a_summary_is_the_f1_of_its_facts(said, value):
    assert scores(lambda _: said, {"summ_2x": HELD["summ_2x"]})["summ_2x"][1] == pytest.approx(value)


def test_only_questions_are_asked_by_the_chat_template():
    model = engine(script)
    run_plans(model, "sft", long.plans(HELD, Prompter(model, "chat"), Settings()))
    assert TABLE in model.prompts
    assert any(p.startswith("<|im_start|>user<|im_sep|>Tom has 3") for p in model.prompts)


def test_long_tasks_are_compared_where_both_checkpoints_have_them():
    row = {"task": "rag_4x", "metric": "sub_em", "id": "r0", "sample": 0, "value": 1.0}
    other = {**row, "id": "r1"}
    before = [{**row, "value": 0.0}, {**other, "value": 0.0}]
    (found,) = comparisons({"midtrain": [row, other], "pretrain": before})
    assert (found["task"], found["value"]) == ("rag_4x", 1.0)
    assert comparisons({"midtrain": [row, other], "pretrain": []}) == []
