"""The bridges: an engine for lm-eval's requests, an evaluation as Inspect logs."""

from __future__ import annotations

import json
import math

import pytest

from phikit.engine.base import ScoreRequest
from phikit.engine.scripted import ScriptedEngine
from phikit.evals.inspect_bridge import write_logs
from phikit.evals.lm_eval_bridge import generation, rolling
from phikit.evals.run import Settings, evaluate
from phikit.evals.select import choose
from phikit.records.io import write_jsonl


def test_lm_evals_settings_become_a_request():
    engine = ScriptedEngine(lambda p: "x")
    settings = {"until": ["Q:", "</s>"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 9}
    r = generation(engine, "Q: 1\nA:", settings, 7)
    assert (r.prompt, r.max_tokens, r.temperature) == (tuple(b"Q: 1\nA:"), 9, 0.0)
    assert (r.stop, r.stop_ids) == (("Q:", "</s>"), engine.stop_ids)
    assert generation(engine, "x", {"until": "\n", "temperature": 0.7}, 7).temperature == 0.7
    assert generation(engine, "x", {}, 7).temperature == 0.0
    with pytest.raises(ValueError, match="num_beams"):
        generation(engine, "x", {"num_beams": 3}, 7)


def test_rolling_scores_every_token_once():
    engine = ScriptedEngine(lambda p: "", context=8)
    asked: list[ScoreRequest] = []
    score = engine.score
    engine.score = lambda r: (asked.extend(r), score(r))[1]
    whole, empty = rolling(engine, ["abcdefghijklmnopqrst", ""])
    assert b"".join(bytes(r.continuation) for r in asked) == b"abcdefghijklmnopqrst"
    assert asked[0].context == (engine.stop_ids[-1],)
    assert all(len(r.context) + len(r.continuation) <= 8 for r in asked)
    assert math.isfinite(whole)
    assert whole < 0
    assert empty == 0


def test_inspect_logs_hold_every_answer(tmp_path):
    write_jsonl(
        tmp_path / "q.jsonl", [{"question": "2+2?", "answer": "4"}, {"question": "3+3?", "answer": "6"}]
    )
    rows = [{"question": "Which?", "choices": ["one", "two"], "answer": "two"} for _ in range(2)]
    write_jsonl(tmp_path / "c.jsonl", rows)
    chosen = choose(f"{tmp_path / 'q.jsonl'},{tmp_path / 'c.jsonl'}")
    engine = ScriptedEngine(lambda p: "4" if "2+2" in p else " two")
    evaluate(engine, "m", chosen, tmp_path / "out", Settings())
    q, c = (json.loads(p.read_text()) for p in write_logs(tmp_path / "out", tmp_path / "logs"))
    assert (q["version"], q["status"], q["eval"]["model"]) == (2, "success", "phikit/m")
    metric = q["results"]["scores"][0]["metrics"]["mean"]
    assert (metric["value"], metric["metadata"]["method"]) == (0.5, "wilson")
    assert [s["scores"]["exact"]["value"] for s in q["samples"]] == [1.0, 0.0]
    assert q["samples"][0]["messages"][1]["content"] == "4"
    assert (c["samples"][0]["choices"], c["samples"][0]["target"]) == (["one", "two"], "two")
    with pytest.raises(ValueError, match="no finished evaluation"):
        write_logs(tmp_path, tmp_path / "logs")
