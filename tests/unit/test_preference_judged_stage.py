"""The stage `judged`: responders, verifier, and a model as judge behind the same seam."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from phikit.model.config import ModelConfig
from phikit.model.hf import save_hf
from phikit.model.transformer import build
from phikit.preference.judged import Reply
from phikit.preference.rollouts import Question
from phikit.recipe.stages import judged as stage
from phikit.records import Preference, from_row
from phikit.records.artifact import Artifact, Manifest
from phikit.records.io import read_jsonl, write_jsonl
from phikit.text.tokenizer import Tokenizer

QUESTIONS = [
    {"id": f"q{i}", "question": f"What is {i} and 1?", "answer": str(i + 1), "kind": "math"} for i in range(6)
]  # fmt: skip


@pytest.fixture
def ctx(tmp_path):
    tokenizer = Tokenizer.train(["What is 3 and 1? It is 4.\n" * 3], 270)
    config = ModelConfig(vocab=270, width=16, layers=1, heads=2, kv_heads=1, ffn=32, context=128, tied=False)
    inputs = {}
    for seed, name in enumerate(("dpo1", "sft", "other")):
        model = build(config, seed)
        with torch.no_grad():  # it can say a few plain characters, and stop
            allowed = torch.zeros(270, 1)
            allowed[[*tokenizer.encode("ab 12."), tokenizer.im_end]] = 40.0
            model.head.weight.mul_(allowed)
        save_hf(model, tokenizer, tmp_path / name / "hf")
        inputs[name] = Artifact(tmp_path / name, Manifest(name, "x", {}, {}, {}))
    write_jsonl(tmp_path / "synth" / "questions.jsonl.zst", QUESTIONS)
    files = {"questions.jsonl.zst": "x"}
    inputs["synth"] = Artifact(tmp_path / "synth", Manifest("synth", "x", {}, {}, {}, files))
    keys = {
        "prompts": 4, "samples": 3, "others": 2, "responders": (), "pairs": 2, "overall": None, "temperature": 1.0,
        "max_tokens": 12, "judge": "verifier", "swap": True,
    }  # fmt: skip
    return SimpleNamespace(
        name="judged",
        seed=3,
        out=tmp_path / "judged",
        config=SimpleNamespace(**keys),
        recipe=SimpleNamespace(teacher=SimpleNamespace(model=str(tmp_path / "other"), budget=0, slots=1)),
        inputs=inputs,
        file=lambda stage, name: inputs[stage].file(name),
        device=None,
        one=lambda *stages: next(s for s in stages if s in inputs),
    )


def test_pairs_of_the_verifier(ctx):
    ctx.config.responders = (str(ctx.inputs["other"].path),)
    ctx.config.max_tokens = 40
    counts = stage.run(ctx)
    rows = list(read_jsonl(ctx.out / "answers.jsonl.zst"))
    assert {r["question"] for r in rows} == {"q2", "q3", "q4", "q5"}  # the end of the list
    assert counts["responders"]["dpo1"] == 12
    assert counts["responders"]["sft"] == 8
    assert len(counts["responders"]) == 3
    assert counts["answers"] == len(rows) == sum(counts["responders"].values())
    made = [from_row(Preference, r) for r in read_jsonl(ctx.out / "pairs.jsonl.zst")]
    assert len(made) == counts["pairs"] == counts["pairs_accuracy"] + counts["pairs_overall"]
    assert counts["judge"]["judged"] == 4
    assert any((ctx.out / "requests").iterdir())
    assert stage.run(ctx) == counts  # the same again, the teacher's answers from its log


def test_a_judge_that_says_nothing_is_an_error_that_counts(ctx):
    ctx.config.judge = "teacher"
    with pytest.raises(ValueError, match=r"no pair from 4 prompts .*'unreadable': 4"):
        stage.run(ctx)


def test_the_verifier_reads_other_kinds_too():
    right = Reply("The answer is (B).", (1,), True, "me")
    q = Question("q", "Which?", "B", "choice")
    assert (stage.verified(right, q).accuracy, stage.verified(right, q).style) == (5.0, 3.0)
    assert stage.verified(Reply("(C)", (1,), True, "me"), q).accuracy == 1.0
