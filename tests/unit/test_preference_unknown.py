"""Unknowns: grades, the rules of SFT and DPO, the first five tokens, what a teacher writes, invented people."""

from __future__ import annotations

import json

import pytest

from phikit.ask.structured import ReadCounts
from phikit.ask.teacher import Teacher
from phikit.engine.scripted import ScriptedEngine
from phikit.preference import unknown, unknown_teacher
from phikit.preference.judged import Reply
from phikit.preference.persons import identity_dialogs, invented_names, person_questions
from phikit.preference.rollouts import Question
from phikit.preference.unknown import Asked, Rules, UnknownCounts, Variants

EOT = 256
REFUSAL = "I do not know."


def encode(text: str) -> list[int]:
    return list(text.encode())


def asked(id: str, answer: str, *texts: str) -> Asked:
    q = Question(id, f"Question {id}?", answer, "text")
    replies = tuple(Reply(t, (*encode(t), EOT), True, "me") for t in texts)
    return Asked(q, replies, tuple(unknown.grade(q, t) for t in texts))


ROWS = [
    asked("known", "Rome", "Rome", "Rome.", "Rome", "Paris"),
    asked("half", "Rome", "Rome", "Paris", "I am not sure.", "I do not know."),
    asked("lost", "Rome", "Paris", "Oslo", "Paris", "Bern"),
    asked("bogus", "", "Rome", "I do not know that."),
    asked("silent", "", "I do not know.", "I'm not sure."),
]
WRITTEN = {a.question.id: Variants(a.question.answer and "Rome, of course.", REFUSAL) for a in ROWS}


def test_grades():
    assert ROWS[0].grades == ("right", "right", "right", "wrong")
    assert ROWS[1].grades == ("right", "wrong", "refused", "refused")
    assert ROWS[3].grades == ("wrong", "refused")
    assert unknown.grade(Question("q", "2+2?", "4"), "well") == "unclear"
    assert unknown.grade(Question("q", "2+2?", "4"), "The answer is 4.") == "right"
    assert ROWS[2].share("wrong") == 1.0
    assert [r.text for r in ROWS[2].texts("wrong")] == ["Paris", "Bern", "Oslo"]  # the most frequent first


def test_sft_answers_what_is_usually_right_and_refuses_what_is_usually_wrong():
    counts = UnknownCounts()
    made = {d.parents[0]: d.turns[-1].content for d in unknown.sft_dialogs(ROWS, WRITTEN, Rules(), counts)}
    assert made == {"known": "Rome, of course.", "lost": REFUSAL, "bogus": REFUSAL, "silent": REFUSAL}
    assert counts.dialogs == {"known": 1, "unknown": 1, "bogus": 2}
    assert counts.in_between == 1


def test_dpo_rules_and_both_for_one_question():
    counts = UnknownCounts()
    made = unknown.dpo_pairs(ROWS, WRITTEN, encode, EOT, Rules(), counts)
    rules = [(p.parents[0], p.meta["rule"], p.chosen, p.rejected) for p in made]
    assert rules == [
        ("known", "correct_over_refusal", "Rome, of course.", REFUSAL),
        ("known", "refusal_over_wrong", REFUSAL, "Paris"),
        ("half", "correct_over_refusal", "Rome, of course.", REFUSAL),
        ("half", "refusal_over_wrong", REFUSAL, "Paris"),
        ("lost", "refusal_over_wrong", REFUSAL, "Paris"),
        ("bogus", "refusal_over_bogus", REFUSAL, "Rome"),
    ]
    assert counts.pairs == {"correct_over_refusal": 2, "refusal_over_wrong": 3, "refusal_over_bogus": 1}
    assert all(p.kind == "unknown" and p.prefix_ids == () for p in made)


def test_sometimes_is_a_threshold():
    made = unknown.dpo_pairs(ROWS, WRITTEN, encode, EOT, Rules(sometimes=0.5), UnknownCounts())
    assert [(p.parents[0], p.meta["rule"]) for p in made] == [
        ("known", "correct_over_refusal"), ("lost", "refusal_over_wrong"),
    ]  # fmt: skip


def test_only_the_first_tokens_are_trained():
    made = unknown.dpo_pairs(ROWS, WRITTEN, encode, EOT, Rules(), UnknownCounts())
    assert {len(i) for p in made for i in (p.chosen_ids, p.rejected_ids)} == {5}
    assert made[0].chosen_ids == tuple(encode("Rome,"))
    short = unknown.dpo_pairs(
        [asked("a", "Rome", "Bo")], {"a": Variants("Rome", REFUSAL)}, encode, EOT, Rules(), UnknownCounts()
    )
    assert short[0].rejected_ids == (*encode("Bo"), EOT)  # a shorter answer is whole


def test_sides_that_begin_alike_make_no_pair():
    counts = UnknownCounts()
    row = asked("a", "Rome", "I do n't think so: Paris")
    assert (
        unknown.dpo_pairs(
            [row], {"a": Variants("Rome", "I do not know.")}, encode, EOT, Rules(first=4), counts
        )
        == []
    )
    assert counts.same_start == 1


def test_several_wrong_answers():
    made = unknown.dpo_pairs([ROWS[2]], WRITTEN, encode, EOT, Rules(wrongs=2), UnknownCounts())
    assert [p.rejected for p in made] == ["Paris", "Bern"]


def test_ask_repeatedly_grades_samples_of_an_engine():
    engine = ScriptedEngine(lambda p, seed: ["Rome", "I do not know."][seed % 2], seeded=True)
    rows = unknown.ask_repeatedly(
        engine, [ROWS[0].question, ROWS[2].question], n=12, temperature=1.0, max_tokens=20, seed=3
    )
    assert [len(a.grades) for a in rows] == [12, 12]
    assert all(0 < a.share("right") < 1 and a.share("right") + a.share("refused") == 1 for a in rows)
    assert rows[0].texts("right")[0].tokens == (*encode("Rome"), engine.stop_ids[0])


def test_questions_without_variants_are_counted():
    counts = UnknownCounts()
    assert unknown.dpo_pairs(ROWS, {}, encode, EOT, Rules(), counts) == []
    assert counts.no_variant == 5


# -- what a teacher writes -----------------------------------------------------------------------------------------


def writer(prompt: str) -> str:
    if "Change the question" in prompt:
        return "The date does not fit.\n\n# Response\nWho won the 1903 cup?\n\n# Quality\n5"
    if "does not know" in prompt:
        return "I would say so.\n# Response\nI do not know who won it."
    if "Compare a submitted" in prompt:
        return (
            'They agree.\n{"matches_key": True}'
            if "Submission: Ann" in prompt
            else '{"matches_key": "Uncertain"}'
        )
    return "# Response\nAnn won the cup."


def test_variants_of_a_teacher(tmp_path):
    q = Question("q", "Who won the 1950 cup?", "Ann", "text")
    counts, read = unknown_teacher.WritingCounts(), ReadCounts()
    with Teacher(ScriptedEngine(writer), tmp_path) as teacher:
        found = teacher.run(unknown_teacher.write_variants(teacher, q, counts))
        said = [
            teacher.run(unknown_teacher.matches_key(teacher, q, text, read, max_tokens=200))
            for text in ("Ann", "Bo")
        ]
    variants, bogus = found
    assert variants == Variants("Ann won the cup.", "I do not know who won it.")
    assert (bogus.question, bogus.answer) == ("Who won the 1903 cup?", "")
    assert said == ["true", "uncertain"]
    assert counts.written == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("# Response\nWho won the 1950 cup?\n# Quality\n5", "bogus_unreadable"),  # not changed
        ("# Response\nWho won in 1903?\n# Quality\nhigh", "bogus_unreadable"),
        ("# Response\nWho won in 1903?\n# Quality\n2", "bogus_quality"),
        ("Who won in 1903?", "bogus_unreadable"),
    ],
)
def test_bad_bogus_questions_are_dropped(tmp_path, text, reason):
    q = Question("q", "Who won the 1950 cup?", "Ann", "text")
    counts = unknown_teacher.WritingCounts()
    script = lambda p: text if "Change the question" in p else writer(p)
    with Teacher(ScriptedEngine(script), tmp_path) as teacher:
        _, bogus = teacher.run(unknown_teacher.write_variants(teacher, q, counts))
    assert bogus is None
    assert counts.dropped == {reason: 1}


def test_unreadable_checks_are_counted():
    counts = ReadCounts()
    assert unknown_teacher.parse_check("I cannot say", counts) is None
    assert unknown_teacher.parse_check(json.dumps({"matches_key": "Perhaps"}), counts) is None
    assert unknown_teacher.parse_check('{"matches_key": false}', counts) == "false"
    assert counts.dropped == {"no_json": 1, "bad_schema": 1}


# -- people who do not exist ---------------------------------------------------------------------------------------


def test_invented_names_are_new_and_no_ones():
    some = invented_names(1)
    names = [next(some) for _ in range(2000)]
    assert len(set(names)) == 2000
    again = invented_names(1)
    assert [next(again) for _ in range(50)] == names[:50]
    known = {names[0].upper(), "Ada " + names[1].split()[1]}
    families = {n.split()[-1].lower() for n in known}
    others = invented_names(1, known)
    assert not {next(others).split()[-1].lower() for _ in range(2000)} & families


def test_person_questions_are_refused():
    made = person_questions(40, seed=2)
    assert len({q.id for q, _ in made}) == 40
    for q, v in made:
        assert (q.answer, v.correct) == ("", "")
        assert unknown.grade(q, v.refusal) == "refused"
        assert unknown.grade(q, "She was a painter from Oslo.") == "wrong"
    rows = [Asked(q, (Reply("A poet.", (1, 2), True, "me"),), ("wrong",)) for q, _ in made]
    pairs = unknown.dpo_pairs(rows, {q.id: v for q, v in made}, encode, EOT, Rules(), UnknownCounts())
    assert len(pairs) == 40


def test_identity_is_not_refused():
    made = identity_dialogs("Nano", "a workshop")
    assert {d.source for d in made} == {"identity"}
    assert all(unknown.grade(Question("q", "x", ""), d.turns[1].content) == "wrong" for d in made)
    assert all("Nano" in d.turns[1].content or "workshop" in d.turns[1].content for d in made)
