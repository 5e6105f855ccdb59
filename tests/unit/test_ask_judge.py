import json

import pytest

from phikit.ask.judge import Grade, judge, judge_schema, judge_turns, parse_judgement
from phikit.ask.structured import ReadCounts
from phikit.ask.teacher import Teacher, open_teacher
from phikit.engine.scripted import ScriptedEngine
from phikit.records.types import turns
from phikit.store.teacher import smollm2_path

TALK = turns(("user", "What is 2 + 2?"))


def judgement(*marks):
    names = [f"Assistant {i}" for i in range(1, len(marks) + 1)]
    value = {"faults": {n: ["wrong sum [logical]"] if m < 3 else "none" for n, m in zip(names, marks)}}
    value["faults_discussion"] = "they differ"
    for name in ("accuracy", "style", "detail"):
        value[name] = dict(zip(names, marks))
    return json.dumps(value)


def test_parse_gives_grades_in_order_and_overall_is_the_mean():
    counts = ReadCounts()
    grades, discussion = parse_judgement(judgement(2, 5), 2, counts)
    assert grades == (Grade(2, 2, 2, ("wrong sum [logical]",)), Grade(5, 5, 5))
    assert Grade(5, 4, 2).overall == pytest.approx(11 / 3)
    assert discussion == "they differ"
    assert parse_judgement(judgement(2), 2, counts) is None
    assert parse_judgement(judgement(2, 6), 2, counts) is None
    assert counts.dropped == {"bad_schema": 2}


def test_the_prompt_labels_every_reply_and_asks_for_faults_first():
    system, user = judge_turns(TALK, ["four", "five"])
    assert "[Assistant 1]\nfour" in user.content
    assert "[Assistant 2]\nfive" in user.content
    assert system.content.index("faults:") < system.content.index("accuracy, style")
    assert list(judge_schema(2)["properties"]) == [
        "faults",
        "faults_discussion",
        "accuracy",
        "style",
        "detail",
    ]


def test_grades_follow_the_answers_whatever_the_labels(tmp_path):
    def reads(prompt):  # marks the reply "4" with 5 wherever it stands
        return judgement(*(5 if f"[Assistant {i}]\n4" in prompt else 1 for i in (1, 2, 3)))

    engine = ScriptedEngine(reads)
    counts = ReadCounts()
    with Teacher(engine, tmp_path) as teacher:
        for seed in range(6):
            found = teacher.run(
                judge(teacher, TALK, ["7", "4", "9"], counts=counts, seed=seed, max_tokens=2000)
            )
            assert [g.accuracy for g in found.grades] == [1, 5, 1]
    assert len({p.index("]\n4") - p.index("]\n7") for p in engine.prompts}) > 1  # the order did change
    assert counts.good == 6


def test_unreadable_judges_and_too_few_answers(tmp_path):
    counts = ReadCounts()
    with Teacher(ScriptedEngine(lambda p: "I like both"), tmp_path) as teacher:
        assert teacher.run(judge(teacher, TALK, ["a", "b"], counts=counts)) is None
        assert counts.dropped == {"no_json": 1}
        with pytest.raises(ValueError, match="at least two"):
            teacher.run(judge(teacher, TALK, ["a"], counts=counts))


def test_the_real_teacher_bound_by_the_schema_gives_readable_judgements(tmp_path):
    try:
        smollm2_path()
    except FileNotFoundError as e:
        pytest.skip(str(e))
    counts = ReadCounts()
    with open_teacher("smollm2", log=tmp_path, parallel=2, context=1024, threads=2) as teacher:
        found = teacher.run(judge(teacher, TALK, ["4", "5 apples"], counts=counts, max_tokens=600))
    assert found is not None, counts
    assert all(1 <= g.accuracy <= 5 for g in found.grades)
