"""Prompts with constraints that a program can check, and what is made of replies to them."""

from __future__ import annotations

import itertools

import pytest

from phikit.preference.instructions import (
    MAKERS,
    Constraint,
    Instruction,
    dialogs,
    instruction_pairs,
    instructions,
)
from phikit.preference.judged import PairCounts, Reply
from phikit.verify.constraints import KINDS

TASKS = ["Describe a tree.", "Write to a friend.", "Explain rain."]
LOWER = Constraint("change_case:english_lowercase", {}, "Use lower case.")
SHORT = Constraint(
    "length_constraints:number_words", {"num_words": 5, "relation": "less than"}, "Use fewer than 5 words."
)
I = Instruction("Describe a tree.", (LOWER, SHORT))


def reply(text: str, stopped: bool = True) -> Reply:
    return Reply(text, tuple(text.encode()), stopped, "me")


def test_prompts_differ_state_their_constraints_and_cover_all_kinds():
    some = list(itertools.islice(instructions(TASKS, 1), 800))
    assert len({i.prompt for i in some}) == 800
    assert all(1 <= len(i.constraints) <= 3 for i in some)
    assert all(c.words in i.prompt for i in some for c in i.constraints)
    kinds = {c.kind for i in some for c in i.constraints}
    assert len(kinds) == len(MAKERS) == 17
    assert kinds <= set(KINDS)
    again = itertools.islice(instructions(TASKS, 1), 800)
    assert [i.prompt for i in again] == [i.prompt for i in some]


def test_constraints_do_not_contradict_each_other():
    for i in itertools.islice(instructions(TASKS, 2), 2000):
        kinds = [c.kind for c in i.constraints]
        assert len(set(kinds)) == len(kinds)
        assert not {"change_case:english_lowercase", "change_case:english_capital"} <= set(kinds)
        if "detectable_format:json_format" in kinds:
            assert len(kinds) == 1


def test_every_maker_can_be_kept_and_broken():
    texts = [
        "a b c", "ONE MORE", '"quoted"', "Certainly. One. Two. Three.", "In short: x", "Here it is: x", "My reply: x",
        "x Is there anything else?", "x That is all.", "x Done.", "x Thank you for asking.", '{"a": 1}',
        "* a\n* b", "* a\n* b\n* c", "* a\n* b\n* c\n* d", "* a\n* b\n* c\n* d\n* e", "a\n***\nb", "a\n***\nb\n***\nc",
        "a\n***\nb\n***\nc\n***\nd", "<<t>> x", "*a* *b* *c*", "[a] [b] [c]", "x\nP.S. y", "one, two",
        "however example together reason always finally", "very also because really important many can good",
        "Now. " * 4, "Now. " * 3, "Now. " * 5, "word " * 150, "A b. C d. E f. G h. I j.", "A b. C d.", "x y z. a b.",
    ]  # fmt: skip
    for i in itertools.islice(instructions(TASKS, 3), 400):
        for c in i.constraints:
            found = {c.kept(t) for t in texts}
            assert found == {True, False}, c


def test_dialogs_and_pairs():
    replies = {
        I.question.id: [
            reply("An oak."),
            reply("an oak", stopped=False),
            reply("an oak."),
            reply("Long " * 9),
        ]
    }
    (dialog,) = dialogs([I], replies)
    assert [t.content for t in dialog.turns] == [I.prompt, "an oak."]
    counts = PairCounts()
    made = instruction_pairs([I], replies, most=5, counts=counts)
    assert {(p.chosen, p.rejected) for p in made} == {("an oak.", "An oak."), ("an oak.", "Long " * 9)}
    broken = {p.rejected: p.meta["broken"] for p in made}
    assert broken["An oak."] == ["change_case:english_lowercase"]
    assert len(broken["Long " * 9]) == 2
    assert counts.cut_chosen == 2
    assert {p.meta["by"] for p in made} == {"constraints"}


def test_no_reply_that_keeps_all_no_pair():
    replies = {I.question.id: [reply("An oak."), reply("Long " * 9)]}
    assert list(dialogs([I], replies)) == []
    assert instruction_pairs([I], replies, most=5, counts=PairCounts()) == []


def test_tasks_are_needed():
    with pytest.raises(ValueError, match="at least one task"):
        next(instructions([], 1))
