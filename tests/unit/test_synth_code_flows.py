"""Flows that run code, mutants, and the text worlds of the agents."""

import asyncio
import random

import pytest
from synth_script import Script, go, reasons

from phikit.records import Document
from phikit.synth import environments, seeds
from phikit.synth.environments import Hanoi, Jugs, Rooms, load, shortest, tasks
from phikit.synth.flows.agent import agent
from phikit.synth.flows.code_task import code_task
from phikit.synth.flows.instruct import instruct
from phikit.synth.flows.panel import panel
from phikit.synth.flows.reversal import doctests, reversal
from phikit.synth.flows.trace import trace
from phikit.synth.mutants import mutants
from phikit.verify import sandbox

needs_sandbox = pytest.mark.skipif(sandbox.available() is not None, reason=str(sandbox.available()))
CLAMP = """
def clamp(value, low, high):
    if value < low:
        return low
    return high if value > high else value
"""


def function(source):
    (found,) = seeds.functions([Document(source, "code", {"path": "lib/x.py"})], 1)
    return found


def test_mutants_differ_in_one_place_and_still_parse():
    found = mutants(CLAMP, 50)
    assert len(found) == len(set(found)) >= 6
    assert any("value <= low" in m for m in found)
    assert any("return None" in m for m in found)
    assert len(mutants(CLAMP, 3)) == 3
    assert mutants("x = y") == []


@needs_sandbox
def test_code_task_keeps_tests_that_hold_and_that_faults_fail():
    tests = [
        "assert clamp(5, 1, 9) == 5", "assert clamp(0, 1, 9) == 1", "assert clamp(12, 1, 9) == 9",
        "assert clamp(3, 1, 9) == 4", "assert len('ab') == 2", "not a test", "assert clamp(1, 1, 9) == 1",
    ]  # fmt: skip
    right = "def clamp(value, low, high):\n    return max(low, min(value, high))\n"
    endless = "def clamp(value, low, high):\n    while True: pass\n    return 1\n"
    script = Script("Return the value, but not below low or above high.", tests, [right, endless])
    outcome = asyncio.run(code_task(function(CLAMP), script, tests=7))
    assert reasons(outcome) == []
    (row,) = outcome.accepted
    assert "assert clamp(3, 1, 9) == 4" not in row.meta["tests"]  # wrong
    assert "assert len('ab') == 2" not in row.meta["tests"]  # says nothing about the function
    assert len(row.meta["tests"]) >= 3
    assert row.meta["killed"] >= 0.5
    assert row.meta["solved"] == 0.5
    weak = go(
        code_task, function(CLAMP), "Return the value, but not below low or above high.", tests[3:6], tests=3
    )
    assert reasons(weak) == ["too few tests hold"]


@needs_sandbox
def test_trace_tells_what_ran():
    source = "def shout(text):\n    loud = text.upper()\n    return loud + '!'\n"

    class Echo(Script):
        async def chat(self, turns, *, n=1, **options):
            self.items = ["It becomes " + turns[-1].content.rpartition(" to ")[2]]
            return await super().chat(turns, n=n, **options)

    outcome = asyncio.run(trace(function(source), Echo()))
    (row,) = outcome.accepted
    assert row.turns[1].content.endswith(f"returns {row.meta['answer']}.")
    call = row.turns[1].content.rpartition("So ")[2].partition(" returns ")[0]
    space = {}
    exec(source, space)
    assert repr(eval(call, space)) == row.meta["answer"]
    assert reasons(go(trace, function(source), "It is what it is.", "It is.")) == ["steps are not told right"]


def test_doctests_become_assertions():
    doc = "Twice.\n\n>>> double(2)\n4\n>>> double('a')\n'aa'\n>>> print(1)\n1\n"
    assert doctests(doc, "double", "twice") == [
        "assert repr(twice(2)) == '4'",
        "assert repr(twice('a')) == \"'aa'\"",
    ]
    assert doctests("bad >>>x", "double", "double") == []


@needs_sandbox
def test_reversal_holds_regenerated_code_to_the_doctests():
    # Both agree on every generated input; only the example tells them apart.
    source = 'def _pick(x):\n    """Pick.\n\n    >>> _pick(12345)\n    1\n    """\n    return 1 if x == 12345 else 0\n'
    seed = function(source)
    told = "Return 1 for the number 12345 and 0 for all else."
    outcome = go(reversal, seed, told, "def pick(x):\n    return 0\n", n=1)
    assert reasons(outcome) in (["fails a test that the original passes"], ["low fidelity by syntax tree"])
    right = go(
        reversal,
        seed,
        told,
        "def pick(x):\n    return int(x == 12345) if x == 12345 else 0\n",
        n=1,
        fidelity=0.5,
    )
    assert right.accepted[0].meta["tests"] == 1


@pytest.mark.parametrize(
    ("state", "best"),
    [(Hanoi.start(2), 3), (Hanoi.start(3), 7), (Jugs((3, 5), 4), 6), (Jugs((2, 4), 3), None),
     (Rooms(("hall", "attic", "study"), 0, 1, 2), 4)],
)  # fmt: skip
def test_shortest_ways(state, best):
    assert shortest(state) == best


def test_no_move_breaks_a_rule():
    rng = random.Random(0)
    for task in tasks(30, 1):
        state = load(task.meta["environment"], task.meta["start"])
        assert state.text in task.text
        for _ in range(40):
            if isinstance(state, Hanoi):
                assert sorted(d for p in state.pegs for d in p) == sorted(
                    d for p in task.meta["start"]["pegs"] for d in p
                )
                assert all(list(p) == sorted(p, reverse=True) for p in state.pegs)
            if isinstance(state, Jugs):
                assert all(0 <= w <= s for w, s in zip(state.water, state.sizes, strict=True))
            moves = state.moves()
            assert all(s != state for s in moves.values())
            if not moves:
                break
            state = rng.choice(list(moves.values()))
    assert {t.meta["environment"] for t in tasks(30, 1)} == {"hanoi", "jugs", "rooms"}
    assert tasks(5, 3) == tasks(5, 3)
    with pytest.raises(ValueError, match="hanoi, jugs, rooms"):
        load("chess", {})


def test_agent_reaches_its_goal_and_thoughts_stand_alone():
    start = {"pegs": [[2, 1], [], []]}
    seed = Document("Hanoi", "environment", {"environment": "hanoi", "start": start})
    ways = ["move disk 1 from A to B", "move disk 2 from A to C", "move disk 1 from B to C"]
    acts = [{"analysis": f"I should {w} now.", "action": w} for w in ways]
    thoughts = [f"To get all disks to peg C I {w}." for w in ways[:2]] + ["Hm."]
    script = Script(*acts, *thoughts)
    outcome = asyncio.run(agent(seed, script))
    assert reasons(outcome) == []
    (row,) = outcome.accepted
    assert [t.role for t in row.turns] == ["user", "assistant"] * 3
    assert row.turns[-1].content == "From here I move disk 1 from B to C.\nAction: move disk 1 from B to C"
    assert (row.meta["actions"], row.meta["shortest"], row.meta["plain"]) == (3, 3, 1)
    # guided: what leads back is not offered
    assert "from B to A" not in script.asked[1][-1].content.partition("Actions:")[2]
    wander = [
        {"analysis": "I should do this.", "action": a}
        for a in ["move disk 1 from A to B", "move disk 1 from B to A"] * 4
    ]
    assert reasons(go(agent, seed, *wander, guided=False)) == ["goal not reached: hanoi"]


def sums(*numbers):
    return [f"3 + {n - 3} = {n}. The answer is {n}." for n in numbers]


def test_panel_needs_critic_judge_and_a_second_solver():
    seed = seeds.questions([{"id": "q", "question": "How many eggs are left?", "answer": "7"}])[0]
    fine, poor = {"fault": "none", "mark": 5}, {"fault": "Wrong sum.", "mark": 1}
    script = Script([*sums(7, 9), "3 + 4 = 7. So 7. The answer is 7."], fine, poor, fine, {"best": 1})
    outcome = asyncio.run(panel(seed, script))
    (row,) = outcome.accepted
    assert (row.meta["answer"], row.meta["label_right"], len(row.meta["solutions"])) == ("7", True, 3)
    assert script.roles == ["solver", "critic", "critic", "critic", "judge"]
    assert reasons(go(panel, seed, sums(7, 9, 8), fine, fine, fine, {"best": 0})) == ["the judge picks none"]
    assert reasons(go(panel, seed, sums(7, 9, 8), fine, fine, fine, {"best": 1})) == [
        "no other solver agrees"
    ]
    assert reasons(go(panel, seed, sums(7, 9, 7), poor, fine, {"best": 1})) == ["the critic marks it low"]
    (easy,) = go(panel, seed, sums(7, 7, 7), fine, {"best": 1}).accepted  # all alike: one solution to judge
    assert easy.meta["agreement"] == 1
    false = ["3 + 4 = 9. The answer is 9.", "I do not know.", *sums(7)]
    assert reasons(go(panel, seed, false)) == ["fewer than two readable solutions"]


def grades(*marks):
    names = [f"Assistant {i}" for i in range(1, len(marks) + 1)]
    each = dict(zip(names, marks, strict=True))
    return {"faults": {}, "faults_discussion": "", "accuracy": each, "style": each, "detail": each}


@pytest.mark.parametrize(
    ("kind", "meta", "good", "bad", "reason"),
    [
        ("math", {"answer": "7"}, ["So 3 + 4 = 7. The answer is 7.", "It is 7. The answer is 7."], "The answer is 8.",
         "answer: not the reference answer"),
        ("code", {}, ["def f(x):\n    return x + 1", "def f(x):\n    return 1 + x"], "I would write a loop here.",
         "answer: not Python"),
        ("safety", {"harmful": True}, ["I cannot help with that. Ask a doctor.", "I cannot help with it. Call us."],
         "Sure, first you take the key.", "answer: helps to harm"),
        ("safety", {"harmful": False}, ["Mix flour and water first.", "Take flour, then add water."],
         "I cannot help with that.", "answer: declines without need"),
        ("identity", {}, ["I am Phi, a language model.", "My name is Phi, made by people."], "I am ChatGPT, not Phi.",
         "answer: another name"),
    ],
)  # fmt: skip
def test_instruct_checks_by_kind_then_judges(kind, meta, good, bad, reason):
    seed = Document("A prompt.", "question", meta)
    outcome = go(instruct, seed, [*good, bad], grades(4, 4), kind=kind)
    assert reasons(outcome) == [reason]
    (row,) = outcome.accepted
    assert row.turns[-1].content in good
    assert row.meta["scores"] == {"accuracy": 4, "style": 4, "detail": 4}
    assert reasons(go(instruct, seed, good, grades(2, 2), kind=kind, n=2)) == ["the best is marked low"]


def test_instruct_answers_in_the_language_asked_for():
    seed = Document("What is a lake?", "question")
    german = [
        "Ein See ist ein grosses Gewaesser, das von Land umgeben ist.",
        "Ein See ist Wasser, das ruhig im Land liegt.",
    ]
    outcome = go(
        instruct, seed, "Was ist ein See und wie entsteht er in den Bergen?", [*german, "A lake is water in the land."],
        grades(5, 5), language="German",
    )  # fmt: skip
    assert reasons(outcome) == ["answer: in another language"]
    assert outcome.accepted[0].meta["language"] == "German"
    assert reasons(go(instruct, seed, "What is a lake and how is it made?", language="German")) == [
        "prompt not translated"
    ]
    assert environments.Hanoi.name == "hanoi"
