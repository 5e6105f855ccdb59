"""Long-context prompts: their length, where the answer lies, what a run changes; nDCG and label grades."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from phikit.engine.scripted import ScriptedEngine
from phikit.evals import packs
from phikit.evals.metrics import long as metrics
from phikit.evals.prompts import TaskSource
from phikit.evals.run import Settings, evaluate
from phikit.evals.select import choose
from phikit.evals.task import Answer, Item
from phikit.evals.tasks import all_tasks

WORDS = ["time", "house", "river", "field", "stone", "light", "water", "cloud", "green", "small", "great", "north",
         "early", "quiet"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)

    def said(n):
        return " ".join(rng.choice(WORDS) for _ in range(n)) + "."

    rows = [
        {"_id": f"q{i}", "question": f"What is thing {i}?", "answer": f"answer{i}",
         "supporting_facts": [[f"T{i}a", 0], [f"T{i}b", 0]],
         "context": [[f"T{i}{x}", [said(20) + f" answer{i}." if x == "a" else said(20)]] for x in "abcd"]}
        for i in range(130)
    ]  # fmt: skip
    write(folder / "hotpotqa/hotpotqa.jsonl", rows)
    drop = [
        {"context": f"Passage: {said(60)} number{i}\nQuestion: which number {i}?", "completion": f"number{i}",
         "ref_text": f"number{i}"} for i in range(30)
    ]  # fmt: skip
    write(folder / "drop/drop_v0_dev.jsonl", drop)
    lines = "\n".join(f"K{i % 6}:f{i % 9} {said(6)}" for i in range(300))
    for name in ("train_5500.label", "TREC_10.label"):
        (folder / "trec").mkdir(exist_ok=True)
        (folder / "trec" / name).write_text(lines, encoding="latin-1")
    return folder


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def made(name, data, length, run=0, seed=0):
    task = choose(name, [f"{name}.length={length}"])[0].task
    load = lambda pack, split: packs.load(packs.PACKS[pack], split, [data])
    return list(task.items(TaskSource(task, load, seed=seed, run=run, count=lambda t: len(t.split()))))


BUILT = ["helmet_recall", "helmet_rag", "helmet_rerank", "helmet_icl_trec_coarse", "helmet_qa", "helmet_summ"]


@pytest.mark.parametrize("name", BUILT)
def test_prompts_fill_the_length_and_are_pure(name, data):
    items, length = made(name, data, 700), 700
    task = all_tasks()[name]
    room = length - task.output.max_tokens - (64 if task.output.chat else 0)
    sizes = [len(i.prompt.split()) for i in items]
    largest_part = 90
    assert room - largest_part < min(sizes) <= max(sizes) <= room
    assert len({i.id for i in items}) == len(items)
    assert items == made(name, data, length)
    assert [i.prompt for i in items] != [i.prompt for i in made(name, data, length, run=1)]
    assert [i.prompt for i in items] != [i.prompt for i in made(name, data, length, seed=1)]


def test_a_length_without_room_is_an_error(data):
    with pytest.raises(ValueError, match=r"no room"):
        made("helmet_recall", data, 90)
    with pytest.raises(ValueError, match="raise it with --set"):
        made("helmet_rag", data, 60)


def test_the_key_is_where_its_depth_says(data):
    items = made("helmet_recall", data, 400)
    for i in items:
        whole = json.loads(i.prompt[i.prompt.index("{") : i.prompt.rindex("}") + 1])
        key = i.prompt.rpartition("Key: ")[2].partition("\n")[0]
        assert whole[key] == i.reference["answers"][0]
        place = list(whole).index(key) / len(whole)
        assert abs(place - i.reference["depth"]) <= 1 / len(whole) + 1e-9
        assert sum(whole[k] in i.prompt.rpartition("}")[2] for k in whole) == 2  # the two examples
    depths = sorted(i.reference["depth"] for i in items)
    assert all(abs(d - (k + 0.5) / 100) <= 0.51 / 100 for k, d in enumerate(depths))
    assert {i.group for i in items} == {"depth 0-25 %", "depth 25-50 %", "depth 50-75 %", "depth 75-100 %"}


def test_needed_documents_are_there_once(data):
    for i in made("helmet_rag", data, 1500):
        number = i.id[1:]
        for title in (f"T{number}a", f"T{number}b"):
            assert i.prompt.count(f"Document ({title}):") == 1
        listed = [d for d in i.prompt.split("\n\n") if d.startswith("Document (")][4:]  # after two examples
        place = min(k for k, d in enumerate(listed) if f"(T{number}a)" in d)
        assert place >= int(i.reference["depth"] * len(listed)) - 1


def test_ranked_documents_have_their_labels(data):
    for i in made("helmet_rerank", data, 1500):
        labels, number = i.reference["labels"], i.id[1:]
        relevant = {name for name, v in labels.items() if v}
        assert len(relevant) == 2
        for name in labels:
            at = i.prompt.index(f"[ID: {name}]")
            title = i.prompt[at:].partition("(")[2].partition(")")[0]
            assert (title in (f"T{number}a", f"T{number}b")) == (name in relevant)


def test_label_examples_are_true_and_balanced(data):
    items = made("helmet_icl_trec_coarse", data, 1500)
    head = items[0].prompt.partition("\n\n")[2].rpartition("\n\n")[0]
    pairs = [b.split("\nlabel: ") for b in head.split("\n\n")]
    rows = {r["text"]: r["coarse"] for r in packs.load(packs.PACKS["trec"], "train", [data]).rows}
    meaning = {}
    for text, number in pairs:
        assert meaning.setdefault(number, rows[text]) == rows[text]
    counts = [sum(n == number for _, n in pairs) for number in meaning]
    assert len(meaning) == 6
    assert max(counts) - min(counts) <= 1
    for i in items:
        text = i.prompt.rpartition("\n\n")[2].partition("\nlabel:")[0]
        assert meaning[str(i.reference["label"])] == rows[text]
    prefix = items[0].prompt.rpartition("\n\n")[0]
    assert all(i.prompt.startswith(prefix) for i in items)


def test_a_reader_of_the_prompt_solves_recall_and_five_runs_have_an_interval(data, tmp_path):
    def finds(prompt):
        key = prompt.rpartition("Key: ")[2].partition("\n")[0]
        return " " + json.loads(prompt[prompt.index("{") : prompt.rindex("}") + 1])[key]

    chosen = choose("helmet_recall", ["helmet.length=2000"])
    found = evaluate(ScriptedEngine(finds), "m", chosen, tmp_path, Settings(limit=8, data=(data,)))
    whole = found.scores[0]
    assert (whole["value"], whole["n"], whole["runs"], whole["method"]) == (1.0, 40, 5, "two-way")
    assert {s["group"] for s in found.scores} == {"", *(f"depth {a}-{a + 25} %" for a in (0, 25, 50, 75))}
    assert len({r["prompt_sha"] for r in found.records["helmet_recall"]}) == 40
    assert found.run["tasks"][0]["prompt_tokens"]["most"] <= 1900


@pytest.mark.parametrize(
    ("text", "value", "outcome"),
    [
        ("11 > 33 > 22", 1.0, "right"),
        ("[11], [22], [33]", (1 + 1 / 2) / (1 + 1 / math.log2(3)), "wrong"),
        ("99 > 11 > 11 > 33", 1.0, "right"),  # an id that was not shown, one twice
        ("22", 0.0, "wrong"),
        ("none of them", 0.0, "unparsed"),
        ("111 > 33", (1 / 1) / (1 + 1 / math.log2(3)), "wrong"),  # 111 is not 11
    ],
)
def test_rankings(text, value, outcome):
    item = Item("a", "", reference={"labels": {"11": 1.0, "22": 0.0, "33": 1.0}})
    found = metrics.ranked(item, Answer(text))
    assert found.scores["ndcg@10"] == pytest.approx(value)
    assert found.outcome == outcome


def test_ndcg_without_relevant_documents_is_zero():
    assert metrics.ndcg(["1"], {"1": 0.0}, 10) == 0.0
    assert metrics.ndcg([], {"1": 1.0}, 10) == 0.0


@pytest.mark.parametrize(
    ("text", "outcome"),
    [(" 7\nx", "right"), ("label: 7", "right"), ("17", "wrong"), ("x\n7", "unparsed"), ("", "unparsed")],
)
def test_labels(text, outcome):
    assert metrics.label(Item("a", "", reference={"label": 7}), Answer(text)).outcome == outcome


def test_sub_em_is_a_normalized_part():
    item = Item("a", "", reference={"answers": ["The Beatles", "4"]})
    assert metrics.sub_em(item, Answer("it was the beatles!")).outcome == "right"
    assert metrics.sub_em(item, Answer("the Rolling Stones")).outcome == "wrong"
    assert metrics.sub_em(item, Answer("...")).outcome == "unparsed"
