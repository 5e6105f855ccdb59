"""The closed world: every written sum is true, every answer follows from the text, sides never mix."""

from __future__ import annotations

import argparse
import inspect
import random
import re
from dataclasses import replace
from itertools import islice
from pydoc_data.topics import topics
from typing import get_args

import pytest

from phikit.records import to_row
from phikit.synth import world
from phikit.synth.world import arithmetic, long, memory
from phikit.text import chat
from phikit.text.tokenizer import Tokenizer

SUM = re.compile(r"(?<![\d-])(-?\d+)([+-]\d+)=(-?\d+)")
SMALL = world.WorldConfig(
    facts=60, problems=200, echo=60, recall_short=60, recall=60, recall_long=40, icl=60, dialogs=200, questions=60,
    heldout_problems=100, preference_problems=50, heldout_items=40,
)  # fmt: skip

BIGGER = replace(
    SMALL,
    facts=2000,
    problems=500,
    echo=1000,
    recall_short=1500,
    recall=500,
    recall_long=100,
    icl=600,
    dialogs=400,
)


@pytest.fixture(scope="module")
def made():
    """All of a small world, by name."""
    return {
        "documents": list(world.documents(SMALL, 1)),
        "long": list(world.long_documents(SMALL, 1)),
        "dialogs": list(world.dialogs(SMALL, 1)),
        "questions": list(world.questions(SMALL, 1)),
        "heldout": world.heldout(SMALL, 1),
    }


@pytest.fixture(scope="module")
def tokenizer():
    """Trained at nano's vocabulary on equal shares of the world's sources and of two sources of real text."""
    kinds: dict[str, str] = {"text": " ".join(topics.values()), "code": inspect.getsource(argparse)}
    for d in [*world.documents(BIGGER, 3), *world.long_documents(BIGGER, 3)]:
        kinds[d.source] = kinds.get(d.source, "") + d.text
    kinds["dialogs"] = " ".join(f"{t.role} {t.content}" for d in world.dialogs(BIGGER, 3) for t in d.turns)
    share = 60_000
    assert min(map(len, kinds.values())) > share
    return Tokenizer.train((text[:share] for text in kinds.values()), 896)


def executed(question: str) -> int:
    """Reads a problem's numbers from its words alone."""
    first, *rest = re.findall(r"[^.?]+[.?]", question)[:-1]
    total = int(re.search(r"\d+", first)[0])
    for sentence in rest:
        down = re.search(r"gives away|loses|sells|takes", sentence)
        total += (-1 if down else 1) * int(re.search(r"\d+", sentence)[0])
        assert total >= 0
    return total


def check_sums(text: str) -> int:
    """Every written sum is true; returns how many there are."""
    found = SUM.findall(text)
    assert len(found) == text.count("="), text
    for a, b, c in found:
        assert int(a) + int(b) == int(c), text
    return len(found)


def stated(text: str) -> int:
    return int(re.search(r"[Tt]he answer is (-?\d+)\.$", text)[1])


@pytest.mark.parametrize("style", get_args(arithmetic.Style))
def test_solutions_of_every_style_are_true(style):
    rng = random.Random(0)
    written = []
    for p in islice(arithmetic.problems(7, "train"), 400):
        text = arithmetic.solve(p, style, rng)
        assert stated(text) == p.answer == executed(p.question)
        written.append(check_sums(text) - len(p.steps))
    least = {"at_once": -3, "steps": 0, "check": 1, "changes_first": 0, "shortcut": -1}[style]
    assert min(written) == least


def test_operands_and_steps_stay_in_range():
    for p in islice(arithmetic.problems(3, "heldout", operand=9, steps=(1, 4)), 300):
        assert 1 <= p.start <= 9
        assert 1 <= len(p.steps) <= 4
        assert all(1 <= abs(s) <= 9 for s in p.steps)
        assert arithmetic.side_of(p.skeleton) == "heldout"


def test_one_skeleton_in_ten_is_held_out():
    skeletons = [f"{a}{b:+d}{c:+d}" for a in range(1, 21) for b in range(-9, 10) for c in range(-9, 10)]
    share = sum(arithmetic.side_of(s) == "heldout" for s in skeletons) / len(skeletons)
    assert 0.08 < share < 0.12


def test_written_problems_and_dialogs_are_true(made):
    for d in made["documents"]:
        if d.source == "problems":
            question, solution = d.text.split("\n")
            assert stated(solution) == executed(question)
            check_sums(solution)
        elif d.source == "facts":
            assert check_sums(d.text) == 5
    for d in made["dialogs"]:
        question, answer = d.turns
        assert (question.role, answer.role) == ("user", "assistant")
        assert stated(answer.content) == executed(question.content) == int(d.meta["answer"])
        check_sums(answer.content)
    for q in made["questions"] + made["heldout"]["arithmetic"] + made["heldout"]["preference"]:
        assert executed(q["question"]) == int(q["answer"])
    assert {d.meta["style"] for d in made["dialogs"]} == set(world.CHAT_STYLES)


def test_sides_are_disjoint(made):
    def skeleton(question: str) -> str:
        numbers = re.findall(r"\d+", question)
        downs = [bool(re.search(r"gives away|loses|sells|takes", s)) for s in question.split(".")]
        return numbers[0] + "".join(("-" if d else "+") + n for d, n in zip(downs[1:], numbers[1:]))

    train = {d.meta["skeleton"] for d in made["dialogs"]} | {q["skeleton"] for q in made["questions"]}
    train |= {skeleton(d.text.split("\n")[0]) for d in made["documents"] if d.source == "problems"}
    tests = made["heldout"]["arithmetic"] + made["heldout"]["preference"]
    for q in tests:
        assert skeleton(q["question"]) == q["skeleton"]
    held = {q["skeleton"] for q in tests}
    assert not train & held
    assert {arithmetic.side_of(s) for s in train} == {"train"}
    assert {arithmetic.side_of(s) for s in held} == {"heldout"}
    ids = [q["id"] for q in tests]
    assert len(set(ids)) == len(ids)  # arithmetic and preference share no question


def test_equal_seeds_give_equal_worlds(made):
    assert [to_row(d) for d in world.documents(SMALL, 1)] == [to_row(d) for d in made["documents"]]
    assert list(world.dialogs(SMALL, 1)) == made["dialogs"]
    assert world.heldout(SMALL, 1) == made["heldout"]
    assert not {d.id for d in world.documents(SMALL, 2)} & {d.id for d in made["documents"]}


def test_a_part_does_not_depend_on_the_size_of_another(made):
    other = replace(SMALL, facts=3, dialogs=5, heldout_items=10)
    recall = [d.id for d in made["documents"] if d.source == "recall"]
    assert [d.id for d in world.documents(other, 1) if d.source == "recall"] == recall
    assert list(world.dialogs(other, 1)) == made["dialogs"][:5]
    assert world.heldout(other, 1)["icl"] == made["heldout"]["icl"][:10]


def test_counts_are_as_asked(made):
    sources = [d.source for d in made["documents"]]
    assert {s: sources.count(s) for s in set(sources)} == {
        "facts": 60, "problems": 200, "echo": 60, "recall_short": 60, "recall": 60, "icl": 60,
    }  # fmt: skip
    assert [len(made[n]) for n in ("long", "dialogs", "questions")] == [40, 200, 60]
    tests = {task: len(rows) for task, rows in made["heldout"].items()}
    assert tests == dict.fromkeys(("recall_1x", "recall_2x", "recall_4x", "icl", "choice"), 40) | {
        "arithmetic": 100, "preference": 50,
    }  # fmt: skip


# -- echo, recall and icl by independent solvers ---------------------------------------------------------------------


def test_the_answer_of_an_echo_is_its_list(made):
    documents = [d for d in made["documents"] if d.source == "echo"]
    lengths = set()
    for d in documents:
        first, second = d.text.splitlines()
        listed = first.removeprefix("Copy:")
        assert second == f"Again:{listed}"
        ((a, z),) = d.meta["answers"]
        assert d.text[a:z] == listed.removesuffix(".")
        words = listed.removesuffix(".").split()
        assert len(set(words)) == len(words)
        lengths.add(len(words))
    assert min(lengths) >= 4
    assert max(lengths) <= 24
    assert len(lengths) > 10


def recalled(prompt: str) -> str:
    """The value that stands beside the last word where it was a key."""
    *pairs, asked = re.findall(r"[a-z]+(?: [a-z]+)?", prompt.replace("Codes:", "").replace("Ask:", ""))
    return dict(reversed([pair.split() for pair in pairs]))[asked]


def sorted_into(prompt: str) -> str:
    """The label of an earlier item with the same second syllable."""
    *shown, (_, asked, _) = re.findall(r"(\w+) (\w+)(?: ([ABC]))?(?=,|$)", prompt.removeprefix("Sort:"))
    labels = {label for _, marker, label in shown if marker == asked}
    assert len(labels) == 1
    return labels.pop()


def test_recall_answers_stand_in_the_prompt(made):
    pairs = dict(zip(("recall_1x", "recall_2x", "recall_4x"), SMALL.test_pairs))
    for task, n in pairs.items():
        for item in made["heldout"][task]:
            keys = re.findall(r"([a-z]+) [a-z]+[,.]", item["prompt"])
            assert len(keys) == len(set(keys)) == n
            assert item["answer"] == " " + recalled(item["prompt"])
    places = [
        re.findall(r" ([a-z]+) [a-z]+[,.]", i["prompt"]).index(i["prompt"].split()[-1])
        for i in made["heldout"]["recall_4x"]
    ]
    assert min(places) < 40
    assert max(places) > 118  # anywhere in the document


def test_icl_answers_follow_from_the_examples(made):
    answers = set()
    for item in made["heldout"]["icl"]:
        assert item["choices"] == [" A", " B", " C"]
        assert item["answer"] == " " + sorted_into(item["prompt"])
        answers.add(item["answer"])
    assert len(answers) == 3


def test_choice_has_one_true_sum(made):
    for item in made["heldout"]["choice"]:
        question, begun = item["prompt"].split("\n")
        assert len(set(item["choices"])) == 4
        true = [SUM.fullmatch(begun + c.rstrip(".")) for c in item["choices"]]
        right = [int(m[1]) + int(m[2]) == int(m[3]) for m in true]
        assert right == [i == item["gold"] for i in range(4)]
        assert int(item["choices"][item["gold"]].rstrip(".")) == executed(question)


def test_answer_spans_hold_answers_that_follow_from_what_stands_before(made):
    for d in made["documents"] + made["long"]:
        assert d.meta["answers"]
        for a, b in d.meta["answers"]:
            before, answer = d.text[:a], d.text[a:b]
            if d.source.startswith("recall"):
                assert answer == " " + recalled(before)
            elif d.source == "icl":
                assert answer == " " + sorted_into(before)
            elif d.source == "facts":
                assert SUM.search(before.split()[-1] + answer)
                assert answer.endswith(".")
            elif d.source == "echo":
                assert before == f"Copy:{answer}.\nAgain:"
            else:
                assert before.count("\n") == 1
                assert b == len(d.text)


def test_too_many_pairs_are_refused():
    with pytest.raises(ValueError, match="1000 recall pairs asked for"):
        memory.recall_item(random.Random(0), 1000)


# -- lengths in tokens -----------------------------------------------------------------------------------------


def test_syllables_labels_and_digits_are_single_tokens(tokenizer):
    for word in (*memory.SYLLABLES, *memory.LABELS):
        assert len(tokenizer.encode(f" {word}")) == 1, word
    assert len(set(memory.SYLLABLES)) == len(memory.SYLLABLES)
    assert len(tokenizer.encode("128")) == 3


def test_recall_tests_fill_the_contexts_they_are_named_for(made, tokenizer):
    for task, context in (("recall_1x", 128), ("recall_2x", 256), ("recall_4x", 512)):
        for item in made["heldout"][task]:
            n = len(tokenizer.encode(item["prompt"] + item["answer"]))
            assert 0.85 * context < n <= context
            assert len(tokenizer.encode(item["answer"])) == 1
    for item in made["heldout"]["icl"]:
        assert len(tokenizer.encode(item["prompt"] + item["answer"])) <= 128


def test_documents_fit_their_contexts(made, tokenizer):
    for d in made["documents"]:
        assert len(tokenizer.encode(d.text)) + 1 <= 128, d.source
    lengths = [len(tokenizer.encode(d.text)) + 1 for d in made["long"]]
    assert min(lengths) > 128
    assert 4 * 128 * 0.75 < max(lengths) <= 512
    assert all(len(chat.render(tokenizer, d.turns).tokens) <= 512 for d in made["dialogs"])


def test_references_name_every_test_item(made):
    rows = list(world.references(made["heldout"]))
    assert len(rows) == sum(map(len, made["heldout"].values()))
    assert all(text.strip() and "/" in name for name, text in rows)


# -- long items, by independent solvers ------------------------------------------------------------------------------


def words(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


@pytest.fixture(scope="module")
def long_items():
    return long.items(3, 12, 128, words)


def test_long_items_fill_their_context_and_no_more(long_items):
    assert list(long_items) == [f"{t}_{k}x" for k in (2, 4) for t in ("rag", "rerank", "icl", "qa", "summ")]
    for task, rows in long_items.items():
        room = 128 * int(task[-2])
        sizes = [words(r.get("prompt") or r["question"]) + r.get("max_tokens", 2) for r in rows]
        assert max(sizes) <= room, task
        assert min(sizes) > 0.8 * room, task
        assert len({r["id"] for r in rows}) == len(rows)
    assert long.items(3, 12, 128, words) == long_items
    assert long.items(3, 2, 128, words)["rag_4x"] == long_items["rag_4x"][:2]


def values_of(prompt: str) -> list[str]:
    """Every word that follows the asked key in a table."""
    text, _, key = prompt.rpartition("Ask: ")
    return [v for k, v in re.findall(r"(\w+) (\w+)(?=[,.\n])", text.replace("Codes:", "")) if k == key]


def test_long_answers_stand_in_the_prompt(long_items):
    for k in (2, 4):
        assert all([r["answer"].strip()] == values_of(r["prompt"]) for r in long_items[f"rag_{k}x"])
        assert all(sorted_into(r["prompt"]) == r["answer"].strip() for r in long_items[f"icl_{k}x"])
        for r in long_items[f"summ_{k}x"]:
            assert sorted(r["facts"]) == sorted(values_of(r["prompt"]))
        for r in long_items[f"rerank_{k}x"]:
            relevant = [c.strip() for c, x in zip(r["choices"], r["relevant"]) if x]
            assert sorted(relevant) == sorted(values_of(r["prompt"]))
            assert len(set(r["choices"])) == len(r["choices"]) == r["prompt"].count(",") + 1


def test_a_long_question_has_one_problem_that_it_is_about(long_items):
    for r in [*long_items["qa_2x"], *long_items["qa_4x"]]:
        *told, asked = r["question"].splitlines()
        what, who = re.findall(r"How many (\w+) does (\w+) have now\?", asked)[0]
        (own,) = [line for line in told if what in line and who in line]
        total = 0
        for sentence in own.removesuffix(".").split(". "):
            n = int(re.findall(r"\d+", sentence)[0])
            total += -n if re.search(r"gives away|loses|sells|takes", sentence) else n
        assert str(total) == r["answer"]
