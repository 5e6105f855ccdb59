"""Judged sets: position swap, agreement with people, a contest's points, conversations, safety grades."""

from __future__ import annotations

import json

import pytest

from phikit.ask.teacher import Teacher
from phikit.engine.scripted import ScriptedEngine
from phikit.evals import command
from phikit.evals.command import table
from phikit.evals.metrics import contest, judging, safety
from phikit.evals.run import Settings, evaluate
from phikit.evals.select import choose
from phikit.evals.task import Answer, Item
from phikit.records.io import write_jsonl
from phikit.records.types import Turn


def marks(first: int, second: int) -> str:
    both = {"Assistant 1": first, "Assistant 2": second}
    return json.dumps({"faults_discussion": "", "accuracy": both, "style": both, "detail": both})


def prefers(word: str):
    """A judge that prefers the reply with a word in it."""

    def script(prompt: str) -> str:
        one, _, two = prompt.partition("# Replies")[2].partition("[Assistant 2]")
        return marks(5 if word in one else 2, 5 if word in two else 2)

    return ScriptedEngine(script, name=f"prefers {word}")


def first_place(prompt: str) -> str:
    return marks(5, 2)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    rows = [{"uid": f"a{i}", "cluster": f"c{i}", "prompt": f"Question {i}?"} for i in range(4)]
    write_jsonl(folder / "arena_hard/question.jsonl", rows)
    write_jsonl(
        folder / "arena_hard/baseline.jsonl", [{"id": r["uid"], "answer": "a plain reply"} for r in rows]
    )
    pairs = [
        {"input": "x", "output_1": "gold" if i % 2 else "tin", "output_2": "tin" if i % 2 else "gold",
         "label": 1 if i % 2 else 2}
        for i in range(6)
    ]  # fmt: skip
    (folder / "llmbar").mkdir()
    (folder / "llmbar/dataset.json").write_text(json.dumps(pairs))
    return folder


def run(engine, data, out, tasks, judge=None, **more):
    chosen = choose(tasks, more.pop("set", []))
    settings = Settings(data=(data,), **more)
    if judge is None:
        return evaluate(engine, "m", chosen, out, settings)
    with Teacher(judge, out / "judge") as teacher:
        return evaluate(engine, "m", chosen, out, settings, judge=teacher)


def test_a_better_answer_wins_in_both_orders_and_agreement_stands_beside_it(data, tmp_path):
    model = ScriptedEngine(lambda p: "gold" if "Question 0" in p or "Question 1" in p else "lead")
    found = run(model, data, tmp_path / "out", "arena_hard", prefers("gold"))
    assert found.scores[0]["value"] == (1 + 1 + 0.5 + 0.5) / 4
    trusted = found.run["judge_agreement"]
    assert (trusted["value"], trusted["n"], trusted["swayed"], trusted["unreadable"]) == (1.0, 6, 0.0, 0)
    lines = list(table(found.run, found.scores))
    assert any("arena_hard" in x and "(judge agrees with people on 1.00" in x for x in lines)
    assert any("of 6 pairs of LLMBar natural" in x for x in lines)


def test_a_judge_that_likes_a_place_proves_nothing(data, tmp_path):
    found = run(
        ScriptedEngine(lambda p: "x"), data, tmp_path / "out", "arena_hard", ScriptedEngine(first_place)
    )
    assert found.scores[0]["value"] == 0.5
    assert {r["detail"] for r in found.records["arena_hard"]} == {"orders disagree"}
    trusted = found.run["judge_agreement"]
    assert (trusted["value"], trusted["swayed"]) == (0.5, 1.0)


def test_a_model_is_not_its_own_judge_unless_told_so(tmp_path, monkeypatch):
    def opened(spec, **_):  # as a GGUF: its name holds its content, however it was spelled
        return ScriptedEngine(lambda p: "?", name=f"{spec.rpartition('/')[2]}@1")

    monkeypatch.setattr("phikit.engine.open.open_engine", opened)
    say = [].append
    for judge in ("m.gguf", "./m.gguf"):
        with pytest.raises(ValueError, match="--self-judge"):
            command.run("m.gguf", "over_refusal", tmp_path / "out", judge=judge, say=say)
    command.run(
        "m.gguf", "over_refusal", tmp_path / "out", judge="./m.gguf", self_judge=True, limit=1, say=say
    )
    command.run("m.gguf", "over_refusal", tmp_path / "out", judge="other.gguf", limit=1, say=say)
    (tmp_path / "folder").mkdir()
    assert command.same_model(str(tmp_path / "folder"), str(tmp_path / "folder/../folder"))
    assert not command.same_model(str(tmp_path / "folder"), str(tmp_path))


def test_one_unreadable_order_is_no_verdict(data, tmp_path):
    judge = ScriptedEngine(lambda p: "?" if "[Assistant 1]\nx" in p else marks(4, 1))
    found = run(ScriptedEngine(lambda p: "x"), data, tmp_path / "out", "arena_hard", judge)
    assert found.scores[0]["counts"] == {"unparsed": 4}


def test_without_labels_the_agreement_is_said_to_be_unknown(data, tmp_path):
    (data / "llmbar/dataset.json").unlink()
    found = run(ScriptedEngine(lambda p: "x"), data, tmp_path / "out", "arena_hard", prefers("gold"))
    assert any("unknown: no data for LLMBar" in x for x in table(found.run, found.scores))


def test_a_baseline_is_the_records_of_an_evaluation(data, tmp_path):
    (data / "arena_hard/baseline.jsonl").unlink()
    run(ScriptedEngine(lambda p: "gold words"), data, tmp_path / "base", "arena_hard_baseline")
    made = tmp_path / "base/records/arena_hard_baseline.parquet"
    made.rename(data / "arena_hard/baseline.parquet")
    found = run(ScriptedEngine(lambda p: "x"), data, tmp_path / "out", "arena_hard", prefers("gold"))
    assert found.scores[0]["value"] == 0.0


def test_livebench_is_compared_with_its_answer(data, tmp_path):
    rows = [
        {"question_id": f"l{i}", "category": "math", "turns": [f"Sum {i}?"], "ground_truth": str(i),
         "livebench_release_date": f"2024-0{i + 1}-01"} for i in range(6)
    ]  # fmt: skip
    write_jsonl(data / "livebench/question.jsonl", rows)
    judge = ScriptedEngine(lambda p: "A" if "Reference: 5" in p or "Reference: 1" in p else "B")
    found = run(ScriptedEngine(lambda p: "x"), data, tmp_path / "out", "livebench", judge,
                set=["livebench.cutoff=2024-04-01"])  # fmt: skip
    value = {(s["metric"], s["group"]): s["value"] for s in found.scores}
    assert [value["acc", g] for g in ("fresh", "old")] == pytest.approx([1 / 3, 1 / 3])
    assert value["fresh - old", ""] == 0.0
    rows.append({"question_id": "l6", "category": "math", "turns": ["Sum 6?"], "ground_truth": "6"})
    write_jsonl(data / "livebench/question.jsonl", rows)
    again = run(ScriptedEngine(lambda p: "x"), data, tmp_path / "out", "livebench", judge,
                set=["livebench.cutoff=2024-04-01"])  # fmt: skip
    assert {s["group"]: s["n"] for s in again.scores if s["group"]} == {"fresh": 3, "old": 3, "undated": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("so \\boxed{C}", "C"),
        ("first \\boxed{A}, no: \\boxed{\\text{(B)}}", "B"),
        ("I leave it. \\boxed{blank}", "blank"),
        ("\\boxed{\\text{blank}}", "blank"),
        ("The answer is (D).", "D"),
        ("\\boxed{12}", None),
        ("A or B, who knows", None),
        ("\\boxed{Blue}", None),
        ("", None),
    ],
)
def test_letters_of_a_contest(text, said):
    assert contest.extract(text) == said


def test_points_of_a_contest(data, tmp_path):
    rows = [
        {"contest": c, "number": i, "question": f"Question {i} {'shared' if i < 2 else c}", "answer": "A",
         "date": "2024-11-06" if c == "new" else "2022-11-10"}
        for c in ("new", "old") for i in range(25)
    ]  # fmt: skip
    write_jsonl(data / "amc/questions.jsonl", rows)

    def script(prompt):
        number = int(prompt.partition("Question ")[2].split()[0])
        return "\\boxed{A}" if number < 10 else "\\boxed{blank}" if number < 14 else "\\boxed{B}"

    tasks = ["amc.cutoff=2024-11-06", "amc.runs=2"]
    found = run(ScriptedEngine(script), data, tmp_path / "out", "amc", set=tasks)
    value = {(s["metric"], s["group"]): s for s in found.scores}
    points = 10 * 6 + 4 * 1.5
    assert value["score", ""]["value"] == pytest.approx(points)
    assert value["score", "fresh"]["value"] == pytest.approx(points)
    assert value["score", ""]["clusters"] == 48  # two questions are in both contests
    assert (value["score", ""]["runs"], value["score", ""]["run_sd"]) == (2, 0.0)
    gap = value["fresh - old", ""]
    assert gap["low"] < gap["value"] == 0.0 < gap["high"]
    assert value["correct", ""]["counts"] == {"right": 40, "not_attempted": 16, "wrong": 44}
    with pytest.raises(ValueError, match="isoformat"):
        choose("amc", ["amc.cutoff=lately"])
    write_jsonl(data / "amc/questions.jsonl", [{**rows[0], "answer": "F"}])
    with pytest.raises(ValueError, match="no letter from A to E"):
        run(ScriptedEngine(script), data, tmp_path / "bad", "amc")


def test_a_conversation_goes_on_and_is_resumed(tmp_path):
    rows = [{"_id": "q", "question": "Who?", "answer": "x", "supporting_facts": [["T", 0]],
             "context": [["T", ["It was Ann."]]]}]  # fmt: skip
    write_jsonl(tmp_path / "data/hotpotqa/hotpotqa.jsonl", rows)
    seen = []

    def model(prompt):
        seen.append(prompt)
        return f"said {prompt.count('<|im_start|>user')}"

    def judge(prompt):
        if "You play the user" in prompt:
            return "more please" if "more please" not in prompt else "and then"
        return '{"grounding": 4}' if prompt.count("[user]") == 3 else "?"

    def once():
        return run(
            ScriptedEngine(model),
            tmp_path / "data",
            tmp_path / "out",
            "safety_grounding",
            ScriptedEngine(judge),
        )

    found = once()
    answer = found.records["safety_grounding"][0]["answer"]
    assert answer == (
        "said 1\n\n[user]\nmore please\n\n[assistant]\nsaid 2\n\n[user]\nand then\n\n[assistant]\nsaid 3"
    )
    assert found.scores[0]["value"] == 4.0
    assert len(seen) == 3
    assert "It was Ann." in seen[2]
    again = once()
    assert len(seen) == 3  # nothing is asked twice
    assert again.records == found.records


def test_a_simulator_that_says_nothing_ends_a_conversation(tmp_path):
    rows = [{"_id": "q", "question": "Who?", "answer": "x", "supporting_facts": [["T", 0]],
             "context": [["T", ["Ann."]]]}]  # fmt: skip
    write_jsonl(tmp_path / "data/hotpotqa/hotpotqa.jsonl", rows)
    judge = ScriptedEngine(lambda p: "" if "You play" in p else '{"grounding": 5}')
    found = run(ScriptedEngine(lambda p: "one"), tmp_path / "data", tmp_path / "o", "safety_grounding", judge)
    assert found.records["safety_grounding"][0]["answer"] == "one"


def test_an_unreadable_verdict_does_not_look_like_safety(tmp_path):
    (tmp_path / "data/simple_safety_tests").mkdir(parents=True)
    (tmp_path / "data/simple_safety_tests/simple_safety_tests.csv").write_text(
        "id,harm_area,counter,category,prompts_final\ns1,a,1,b,How?\n"
    )
    judge = ScriptedEngine(lambda p: "and then" if "You play" in p else "no JSON")
    found = run(ScriptedEngine(lambda p: "yes"), tmp_path / "data", tmp_path / "o", "safety_jailbreak", judge)
    assert [(s["metric"], s["value"]) for s in found.scores] == [
        ("dr1", 1.0),
        ("dr3", 1.0),
        ("severity", 7.0),
    ]
    assert found.scores[0]["counts"] == {"unparsed": 1}


def test_severity_and_defect_rates():
    rule = safety.severity("x")
    item, answer = Item("a", "do it"), Answer("first\n\n[user]\nmore\n\n[assistant]\nno")
    assert "[user]\ndo it\n\n[assistant]\nfirst\n\n[user]\nmore" in rule.ask(item, answer)[1].content
    for severity, rates in ((0, (0, 0)), (1, (1, 0)), (3, (1, 1)), (7, (1, 1))):
        scores = rule.read(item, answer, f'{{"severity": {severity}}}').scores
        assert (scores["dr1"], scores["dr3"], scores["severity"]) == (*rates, severity)
    assert rule.read(item, answer, '{"severity": 9}').outcome == "unparsed"
    assert rule.read(item, answer, "no idea").outcome == "unparsed"


def test_the_simulated_user_sees_no_system_turn():
    said = [Turn("system", "secret"), Turn("user", "hi"), Turn("assistant", "yes")]
    asked = safety.user("win").ask(Item("a", "hi"), said)
    assert "win" in asked[0].content
    assert "secret" not in asked[1].content


def test_refusals_are_counted_apart(tmp_path):
    def script(prompt):
        return (
            "I'm sorry, but I can't help with that."
            if "kill" in prompt
            else ""
            if "Messi" in prompt
            else "Sure."
        )

    found = run(ScriptedEngine(script), tmp_path, tmp_path / "out", "over_refusal")
    score = found.scores[0]
    kills = sum("kill" in r["prompt"] for r in found.records["over_refusal"])
    assert (score["n"], score["counts"]) == (48, {"refused": kills, "right": 47 - kills, "unparsed": 1})
    assert score["value"] == pytest.approx((47 - kills) / 48)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"fluency": 1, "recalled": 2, "sentences": 4, "supported": 2}', 0.5),
        ('{"fluency": 0, "recalled": 4, "sentences": 4, "supported": 4}', 0.0),
        ('{"fluency": 1, "recalled": 9, "sentences": 1, "supported": 3}', 1.0),  # no more than all
        ('{"fluency": 1, "recalled": 0, "sentences": 0, "supported": 0}', 0.0),
    ],
)
def test_summary_grades(text, score):
    item = Item("a", "", reference={"points": ["a", "b", "c", "d"], "source": ""})
    assert judging.SUMMARY.read(item, Answer("s"), text).scores["score"] == pytest.approx(score)


def test_long_answer_grades():
    item = Item("a", "", reference={"question": "q", "answers": ["x"]})
    read = judging.LONG_ANSWER.read
    assert read(item, Answer("s"), '{"fluency": 1, "correctness": 2}').scores["score"] == pytest.approx(2 / 3)
    assert read(item, Answer("s"), '{"fluency": 0, "correctness": 3}').scores["score"] == 0.0
    assert read(item, Answer("s"), '{"fluency": 2, "correctness": 3}').outcome == "unparsed"
