"""Flows that start from a passage or a page, with a scripted teacher: what they accept, and what they drop and why."""

import asyncio

import pytest
from synth_script import Script, go, passage, reasons

from phikit.records import Dialog, Document, Turn
from phikit.synth.flows.augment import augment
from phikit.synth.flows.conversation import conversation
from phikit.synth.flows.curate import curate
from phikit.synth.flows.deduction import deduction
from phikit.synth.flows.exercise import exercise
from phikit.synth.flows.long_document import long_document, said_twice
from phikit.synth.flows.middle import GAP, middle
from phikit.synth.flows.science import science
from phikit.synth.flows.web_rewrite import web_rewrite

DAM = passage(
    "The dam of the lake was built of clay in 1904. Clay softens when it is wet for long. The dam broke in the spring "
    "of 1931. The farmers built a new dam of stone."
)


def one(outcome):
    assert reasons(outcome) == [], outcome.rejected
    (row,) = outcome.accepted
    assert row.parents == (DAM.id,)
    assert row.meta["prompts"]
    assert row.meta["requests"]
    return row


def test_curate_tags_the_passages_worth_teaching_from():
    page = Document("Menu\nHome\n\n" + DAM.text + "\n\nClick here.", "text")
    tags = {
        "description": "Why the clay dam of the lake broke.",
        "facts": 4,
        "reasoning": 3,
        "complexity": "B",
    }
    tags |= {"obscurity": "D", "steps": ["wet clay softens"]}
    verdict = {"kind": "explanation", "subject": "engineering", "educational": 4}
    outcome = go(curate, page, verdict, tags)
    (row,) = outcome.accepted
    assert (row.source, row.text, row.meta["lines"]) == ("seed", DAM.text, [4, 4])
    assert row.meta["complexity"] == "B"
    assert reasons(go(curate, page, verdict | {"educational": 2})) == ["page: little to learn from"]
    assert reasons(go(curate, page, verdict, tags | {"facts": 1, "reasoning": 1})) == [
        "passage: few facts and little reasoning"
    ]
    assert reasons(go(curate, page, verdict, tags | {"description": "A recipe for bread and butter."})) == [
        "passage: the description is of something else"
    ]


CHAIN = {"premises": [1, 2], "conclusion": 3}


def test_deduction_keeps_a_chain_that_a_second_reading_confirms():
    script = ("What happened to the dam of clay?", "The dam broke in spring because wet clay softens.")
    row = one(go(deduction, DAM, CHAIN, *script))
    assert row.turns[0].content.startswith("The dam of the lake was built of clay in 1904. Clay softens")
    assert row.turns[1].content.endswith("So: The dam broke in the spring of 1931.")
    assert row.meta["premises"] == [1, 2]


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (["no json", "none either"], "no readable chain"),
        ([{"premises": [3], "conclusion": 3}], "the conclusion is its own premise"),
        ([CHAIN, "Tell me more."], "question cut"),
        ([CHAIN, "Which king ate the golden bread?"], "question not about the chain"),
        ([CHAIN, "What happened to the dam of clay?", "Nothing at all."], "the premises do not lead there"),
    ],
)
def test_deduction_drops(items, reason):
    if items[0] == "no json":
        items = [items[0], [items[0], items[1]]]  # the second try is the second sample
    assert reasons(go(deduction, DAM, *items)) == [reason]


EXERCISE = {
    "question": "Why did the dam of clay break in 1931?", "hint": "Clay softens when it is wet.",
    "answer": "The wet clay of the dam softened.",
}  # fmt: skip


def test_augment_makes_three_forms_and_obeys_its_critic():
    row = one(go(augment, DAM, EXERCISE, {"faithful": 5, "useful": 4}))
    assert "Exercise: Why did the dam" in row.turns[0].content
    talk = {
        "first_says": "The dam was built of clay in 1904.", "second_objects": "But clay softens when wet for long.",
        "first_replies": "So the dam broke in the spring of 1931.", "both_agree": "The farmers needed a dam of stone.",
    }  # fmt: skip
    assert (
        "Both agree"
        in one(go(augment, DAM, talk, {"faithful": 5, "useful": 5}, form="discussion", holds=False))
        .turns[1]
        .content
    )
    task = {
        "claim": "A dam of clay can break.",
        "evidence": [2, 2, 3],
        "therefore": "The farmers built it of stone.",
    }
    row = one(go(augment, DAM, task, {"faithful": 4, "useful": 4}, form="reasoning"))
    assert row.turns[1].content.count("Evidence: ") == 2
    assert reasons(go(augment, DAM, EXERCISE, {"faithful": 2, "useful": 5})) == ["the critic marks it low"]
    off = dict.fromkeys(EXERCISE, "Golden bread of the king and the queen.")
    assert reasons(go(augment, DAM, off)) == ["two parts say the same"]
    off |= {"hint": "Butter of the golden palace shines.", "answer": "A prince was there too."}
    assert reasons(go(augment, DAM, off)) == ["not about the passage"]


def test_a_small_teacher_discusses_line_by_line():
    lines = [
        "The dam was built of clay in 1904.", "But clay softens when wet for long.",
        "So the dam broke in the spring of 1931.", "The farmers needed a dam of stone.",
    ]  # fmt: skip
    looped = "The dam of clay and the dam of clay and the dam of clay."
    drafts = [[looped, x, looped] for x in lines]
    drafts[2] = [lines[0], lines[2], looped]  # what was said before is passed over
    script = Script(*drafts, {"faithful": 5, "useful": 5})
    outcome = asyncio.run(augment(DAM, script, form="discussion"))
    told = one(outcome).turns[1].content
    assert all(x in told for x in lines)
    assert "Said so far: " + " ".join(lines[:3]) in script.asked[3][-1].content
    assert [o.get("presence_penalty") for o in script.options] == [0.6] * 4 + [None]
    assert all("grammar" in o for o in script.options[:4])
    assert reasons(go(augment, DAM, drafts[0], [lines[0]] * 3, form="discussion")) == [
        "no line that second objects", "no readable draft",
    ]  # fmt: skip


def test_a_small_teacher_writes_question_and_solution_of_an_exercise_one_by_one():
    asked, solved = "Why did the dam of clay break in the spring?", "Clay softens when it is wet."
    again = "Why did the farmers build it of stone?"
    best = MARKS | {"reasoning": 5, "accuracy": 5}
    script = Script(asked, solved, MARKS, again, "The dam of clay broke in 1931.", best, again, solved)
    outcome = asyncio.run(exercise(DAM, script, lowest=5))
    (row,) = outcome.accepted
    assert reasons(outcome) == [
        "revision: unreadable, unchanged or off the passage"
    ]  # the third is the second again
    assert row.turns == (
        Turn("user", f"{DAM.text}\n\nExercise: {again}"),
        Turn("assistant", "The dam of clay broke in 1931."),
    )
    assert script.roles[:3] == ["writer", "solver", "critic"]
    assert "Advice: " + MARKS["advice"] in script.asked[3][-1].content
    assert reasons(go(exercise, DAM, asked, "The dam of clay did break.", lowest=5)) == [
        "revision 0: the solution repeats the question"
    ]


def test_what_is_cut_or_copied_is_not_used():
    filled = EXERCISE | {"hint": "Clay softens " * 40}
    filled["hint"] = filled["hint"][:210]
    assert reasons(go(augment, DAM, filled)) == ["no readable draft"]
    copied = EXERCISE | {"question": "Who dug the dam of clay?", "hint": "Look for the farmers and the year."}
    copied["answer"] = "Farmers from Orley dug the clay in 1904."
    copied["hint"] = "Farmers from Orley dug it in 1904 of clay."  # the prompt's own example
    assert reasons(go(augment, DAM, copied, {"faithful": 5, "useful": 5})) == ["copies the prompt's example"]
    long = {"mark": 1, "fault": "x" * 120}
    from phikit.synth.flows.base import _filled
    from phikit.synth.flows.shapes import mark, note, shape, text

    assert not _filled(long, shape(fault=note(120), mark=mark()))
    assert _filled(long, shape(fault=text(120), mark=mark()))


def test_roles_are_named():
    import asyncio

    script = Script(EXERCISE, {"faithful": 5, "useful": 5})
    asyncio.run(augment(DAM, script))
    assert script.roles == ["writer", "critic"]


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("In 1904 people made the dam of the lake from clay, and long wet clay becomes soft.", None),
        ("In 1984 people made the dam of the lake from clay, and wet clay becomes soft.", "invented number"),
        ("In 1904 people like Herbert made the dam of the lake from clay, wet and soft.", "invented name"),
        ("Some people did some things with water a long time ago there.", "loses the content"),
        ("The dam of the lake was built of clay in 1904. Clay softens when it is wet for long.", "copied"),
        ("Clay.", "too short"),
    ],
)
def test_web_rewrite_measures_each_step(written, reason):
    half = passage(" ".join(DAM.text.split(". ")[:2]).replace("1904 Clay", "1904. Clay") + ".")
    outcome = go(web_rewrite, half, written)
    if reason is None:
        assert outcome.accepted[0].text == written
        assert outcome.accepted[0].source == "web_rewrites"
    else:
        assert reasons(outcome) == [f"step: {reason}", "too few steps pass"]


def test_conversation_goes_on_while_it_is_marked_well_and_is_steered():
    import asyncio

    script = Script(
        "What was the dam built of?", "It was built of clay in 1904.", {"mark": 4, "next": "deeper"},
        "Why did the dam break?", "The clay softens when it is wet.", {"mark": 4, "next": "end"},
    )  # fmt: skip
    outcome = asyncio.run(conversation(DAM, script))
    row = one(outcome)
    assert [t.role for t in row.turns] == ["user", "assistant"] * 2
    assert "Ask why or how." in script.asked[3][-1].content
    assert "What was the dam built of?" in script.asked[3][-1].content
    assert row.meta["moves"] == ["open", "deeper", "end"]
    assert script.roles == ["writer", "solver", "judge"] * 2
    low = go(
        conversation, DAM, "What was the dam built of?", "It was built of clay.", {"mark": 2, "next": "end"}
    )
    assert reasons(low) == ["turn 1: marked low", "too few exchanges"]


MARKS = {"reasoning": 2, "accuracy": 3, "clarity": 3, "requirement": 2, "advice": "Ask for the reason."}
DRAFT = {
    "plan": "Ask about the dam.", "exercise": "What was the dam of the lake built of?",
    "solution": "It was built of clay.",
}  # fmt: skip


def test_exercise_is_revised_until_it_stops_improving():
    better = DRAFT | {
        "exercise": "Why did the dam of clay break in the spring of 1931?",
        "solution": "Wet clay softens.",
    }
    worse = DRAFT | {"exercise": "Was the dam of the lake built well by the farmers?"}
    outcome = go(
        exercise,
        DAM,
        DRAFT,
        MARKS,
        better,
        MARKS | {"reasoning": 5, "accuracy": 5},
        worse,
        MARKS,
        lowest=13,
        holds=False,
    )
    (row,) = outcome.accepted
    assert len(row.meta["revisions"]) == 2
    assert row.turns[0].content.endswith(better["exercise"])
    assert reasons(outcome) == ["revision: no better"]
    low = dict.fromkeys(("reasoning", "accuracy", "clarity", "requirement"), 1) | {"advice": "Start again."}
    assert reasons(go(exercise, DAM, DRAFT, low, DRAFT, holds=False))[-1] == "best version below the bar"


def test_science_answers_stand_in_their_sentence():
    draft = {
        "sentence": 2,
        "question": "What happens to the dam when clay is wet for long?",
        "answer": "The clay softens.",
    }
    row = one(go(science, DAM, draft, {"relevance": 4, "difficulty": "medium"}))
    assert row.meta["difficulty"] == "medium"
    assert reasons(go(science, DAM, draft | {"answer": "It turns to gold."})) == [
        "answer not in its sentence"
    ]
    assert reasons(go(science, DAM, draft, {"relevance": 1, "difficulty": "easy"})) == ["not relevant"]
    assert reasons(go(science, DAM, draft | {"question": "Tell of the dam of clay."})) == [
        "no question, or it repeats itself"
    ]


def test_middle_compares_the_guess_with_what_stood_there():
    good = {
        "background": "Clay becomes soft in water.", "reasoning": "The dam was replaced, so it must have broken.",
        "guess": "Clay softens when it is wet.",
    }  # fmt: skip
    bad = good | {"guess": "The farmers sang a song."}
    row = one(go(middle, DAM, bad, good, bad, {"grade": 4, "hint": "Think of the season."}))
    assert GAP in row.turns[0].content
    assert "Clay softens" not in row.turns[0].content
    assert row.turns[1].content.endswith("Missing: Clay softens when it is wet for long.")
    assert row.meta["f1"] > 0.7
    assert reasons(go(middle, DAM, bad, bad, bad)) == ["the guess is far from the truth"]


def test_long_documents_are_written_section_after_section():
    plan = {"title": "The Dam of the Lake", "headings": ["Clay", "Water", "Spring", "Stone"]}
    sections = [
        f"The dam number {i} of town {i} held {i * 3} litres, and farmer {i} built it with {i + 2} men."
        for i in range(9)
    ]
    outcome = go(long_document, DAM, plan, *sections, tokens=120, words=16, sections=9)
    assert reasons(outcome) == [], outcome.rejected
    (row,) = outcome.accepted
    assert row.meta["tokens"] >= 120
    assert row.source == "synthetic_long"
    assert row.text.startswith("# The Dam of the Lake\n\n## Clay\n\n")
    assert "## Clay, part 2" in row.text
    short = go(long_document, DAM, plan, *sections, tokens=4096, words=16, sections=6)
    assert reasons(short) == ["too short"]
    assert said_twice("a b c d e f g h i " * 4) > 0.9
    assert said_twice(" ".join(map(str, range(100)))) == 0


def test_every_passage_flow_refuses_text_without_sentences():
    for flow in (deduction, middle):
        (reason,) = reasons(go(flow, passage("One sentence only, of the year 1904.")))
        assert "sentences" in reason
    assert isinstance(DAM, Document)
    assert not isinstance(DAM, Dialog)
