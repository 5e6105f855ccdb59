"""Data packs in original formats, and prompts: examples, hashes, limits."""

from __future__ import annotations

import gzip
import json
import random
import tarfile

import pytest

from phikit.evals import packs
from phikit.evals.packs import NoData
from phikit.evals.prompts import TaskSource, prompts
from phikit.evals.select import choose, described
from phikit.evals.task import Choices, Generate, Item, Shots, Task
from phikit.evals.tasks import all_tasks
from phikit.records.io import RowError, write_jsonl


def arc(n: int, name: str):
    for i in range(n):
        choices = [{"text": f"{name}{i}{x}", "label": x} for x in "ABCD"]
        yield {
            "id": f"{name}{i}",
            "question": {"stem": f"Q {name}{i}?", "choices": choices},
            "answerKey": "ABCD"[i % 4],
        }


@pytest.fixture
def data(tmp_path):
    write_jsonl(tmp_path / "arc/ARC-Challenge-Train.jsonl", arc(9, "t"))
    write_jsonl(tmp_path / "arc/ARC-Challenge-Test.jsonl.gz", arc(5, "q"))
    (tmp_path / "mmlu").mkdir()
    for split, n in (("dev", 5), ("test", 3)):
        with tarfile.open(tmp_path / f"mmlu/{split}.tar.gz", "w:gz") as tar:
            for subject in ("law", "high_school_physics"):
                path = tmp_path / f"{subject}_{split}.csv"
                path.write_text(
                    "".join(f'"{subject} {split} {i}?",w,x,y,z,{"ABCD"[i % 4]}\n' for i in range(n))
                )
                tar.add(path, f"{split}/{path.name}")
    return tmp_path


def made(task: Task, folder, limit=None, seed=0, run=0):
    source = TaskSource(task, lambda p, s: packs.load(packs.PACKS[p], s, [folder]), seed=seed, run=run)
    return prompts(task, source, limit), source


def test_mmlu_is_asked_as_lm_eval_does(data):
    found, source = made(all_tasks()["mmlu"], data)
    assert len(found) == 6
    p = next(x for x in found if x.item.group == "high_school_physics")
    blocks = p.text.split("\n\n")
    assert (
        blocks[0] == "The following are multiple choice questions (with answers) about high school physics."
    )
    assert blocks[1] == "high_school_physics dev 0?\nA. w\nB. x\nC. y\nD. z\nAnswer: A"
    assert len(blocks) == 7
    assert blocks[-1] == "high_school_physics test 0?\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    assert p.examples == tuple(f"high_school_physics-{i}" for i in range(5))
    assert {f["split"] for f in source.files.values()} == {"dev", "test"}


def test_mmlu_pro_shows_its_own_number_of_choices(tmp_path):
    def row(i, n):
        choices = [f"c{k}" for k in range(n)]
        return {
            "question_id": i,
            "question": f"Q{i}? ",
            "options": choices,
            "answer_index": n - 1,
            "category": "law",
        }

    write_jsonl(tmp_path / "mmlu_pro/validation.jsonl", [row(i, 3) for i in range(5)])
    write_jsonl(tmp_path / "mmlu_pro/test.jsonl", [row(9, 10)])
    (found,), _ = made(all_tasks()["mmlu_pro"], tmp_path)
    assert found.text.startswith("Q0? \nA. c0\nB. c1\nC. c2\nAnswer: C\n\nQ1?")
    assert found.text.endswith("\nI. c8\nJ. c9\nAnswer:")
    assert (found.item.choices, found.item.gold) == (tuple("ABCDEFGHIJ"), 9)
    (chat,), _ = made(all_tasks()["mmlu_pro_chat"], tmp_path)
    assert "one of ABCDEFGHIJ." in chat.text
    assert chat.text.endswith("\nJ) c9")
    assert (chat.item.reference, chat.item.group) == ("J", "law")


def test_random_examples_are_drawn_in_document_order(data):
    """lm-eval: one Random(1234), one draw an item; a limit must not change what is drawn."""
    found, _ = made(all_tasks()["arc_challenge"], data)
    rng = random.Random(1234)
    expected = [rng.sample([f"t{i}" for i in range(9)], 1)[0] for _ in found]
    assert [p.examples[0] for p in found] == expected
    short, _ = made(all_tasks()["arc_challenge"], data, limit=3)
    assert [p.sha for p in short] == [p.sha for p in found[:3]]
    shown = int(expected[0][1:])
    assert found[0].text.startswith(
        f"Question: Q t{shown}?\nAnswer: t{shown}{'ABCD'[shown % 4]}\n\nQuestion: Q q0?"
    )


def test_an_item_is_never_its_own_example(data):
    task = choose("arc_challenge", ["arc_challenge.shots_split=test", "arc_challenge.shots=3"])[0].task
    found, _ = made(task, data)
    assert len(found) == 5
    assert all(p.item.id not in p.examples and len(p.examples) == 3 for p in found)
    fixed = Task(**{**vars(task), "shots": Shots(2, "test", "fixed")})
    rest, _ = made(fixed, data)
    assert len(rest) == 3
    assert len({p.examples for p in rest}) == 1
    assert not {p.item.id for p in rest} & set(rest[0].examples)


def test_limits_take_groups_in_turn(data):
    found, _ = made(all_tasks()["mmlu"], data, limit=2)
    assert {p.item.group for p in found} == {"law", "high_school_physics"}


def test_permutations_differ_by_run_and_not_by_call(tmp_path):
    folder = tmp_path / "gpqa"
    folder.mkdir()
    head = "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
    (folder / "gpqa_diamond.csv").write_text(
        head + "".join(f"r{i},Why {i}?,right,w1,w2,w3\n" for i in range(20))
    )
    task = all_tasks()["gpqa"]
    one, again, other = (made(task, tmp_path, run=r)[0] for r in (0, 0, 1))
    assert [p.sha for p in one] == [p.sha for p in again] != [p.sha for p in other]
    for p in one:
        assert f"{p.item.reference}) right" in p.text
    assert {p.item.reference for p in one} == set("ABCD")


def test_missing_data_say_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(NoData, match=r"ARC-Challenge-Test.jsonl.*allenai.org.*--data"):
        made(all_tasks()["arc_challenge"], tmp_path)
    monkeypatch.setenv(packs.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ValueError, match="no such folder"):
        packs.roots()


def test_known_files_are_recognized(data):
    _, source = made(all_tasks()["arc_challenge"], data)
    assert {f["known"] for f in source.files.values()} == {""}
    plain = (data / "arc/ARC-Challenge-Test.jsonl.gz").read_bytes()
    (data / "arc/ARC-Challenge-Test.jsonl").write_bytes(gzip.decompress(plain))
    _, again = made(all_tasks()["arc_challenge"], data)
    assert set(source.files) == set(again.files)  # hashed by content, compressed or not


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "arc/ARC-Challenge-Test.jsonl",
            '{"id": "x", "question": {"stem": "?", "choices": []}, "answerKey": "A"}',
            "row 1",
        ),
        ("mmlu/test.tar.gz", "not a tar", "not a tar"),
        ("mgsm/mgsm_de.tsv", "no tab here\n", "row 1"),
        ("gsm8k/test.jsonl", '{"question": "?"}', "'answer'"),
        (
            "mmlu_pro/test.jsonl",
            '{"question": "?", "options": ["a", "b"], "answer_index": 2}',
            "answer 2 of 2",
        ),
        ("mbpp_plus/MbppPlus.jsonl", '{"task_id": 2, "prompt": "?", "plus_input": []}', "'test'"),
    ],
)
def test_bad_files_name_the_row(tmp_path, name, text, said):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(text)
    pack = packs.PACKS[name.split("/")[0]]
    with pytest.raises(RowError, match=said):
        packs.load(pack, "test", [tmp_path])


def test_bad_declarations(data):
    def item(row):
        return Item(row["id"], "?")

    output = Generate(lambda i, a: None)  # type: ignore[arg-type, return-value]
    common = {"name": "x", "title": "x", "suite": "s", "pack": "arc", "metrics": ("acc",)}
    with pytest.raises(ValueError, match="not both"):
        Task(**common, output=output)
    with pytest.raises(ValueError, match="temperature 0"):
        Task(**common, output=Generate(output.grade, runs=3), item=item)
    with pytest.raises(ValueError, match="two choices"):
        made(
            Task(**common, output=Choices(), item=lambda r: Item(r["id"], "?", ("a", "a"), 0), split="train"),
            data,
        )


def test_settings_are_checked():
    with pytest.raises(ValueError, match="no task or suite is named 'mmul'"):
        choose("mmul")
    with pytest.raises(ValueError, match="not among those that run"):
        choose("gsm8k", ["mmlu.shots=1"])
    with pytest.raises(ValueError, match="key of shots"):
        choose("gsm8k", ["gsm8k.shot=1"])
    with pytest.raises(ValueError, match="generates nothing"):
        choose("mmlu", ["mmlu.max_tokens=3"])
    for runs, metrics in ((5, ["pass", "pass@5"]), (1, ["pass"])):  # pass@5 is of five answers
        (chosen,) = choose("humaneval_chat", [f"humaneval_chat.runs={runs}"])
        assert described(chosen.task)["metrics"] == metrics
    found = choose("base,gsm8k", ["gsm8k.shots=2", "gsm8k.limit=7"])
    assert [c.task.name for c in found].count("gsm8k") == 1
    gsm8k = next(c for c in found if c.task.name == "gsm8k")
    assert (gsm8k.task.shots.n, gsm8k.limit, gsm8k.named) == (2, 7, True)
    assert not next(c for c in found if c.task.name == "mmlu").named


def test_data_without_an_item_are_an_error(tmp_path):
    (tmp_path / "xstest").mkdir()
    (tmp_path / "xstest/xstest_prompts.csv").write_text("id,prompt,type\n1,How?,contrast_homonyms\n")
    with pytest.raises(ValueError, match="task xstest: its data hold no item"):
        made(all_tasks()["xstest"], tmp_path)


def test_every_pack_of_a_task_exists():
    for task in all_tasks().values():
        if not task.pack:  # makes its own data
            continue
        assert task.pack in packs.PACKS, task.name
        assert all(s in packs.PACKS[task.pack].files for s in task.split.split("|"))


def test_math_answers_are_read_from_the_box(tmp_path):
    path = tmp_path / "math/test/algebra/1.json"
    path.parent.mkdir(parents=True)
    path.write_text(
        json.dumps(
            {"problem": "p", "solution": r"so $\boxed{\frac{1}{2}}$.", "type": "Algebra", "level": "1"}
        )
    )
    rows = packs.load(packs.PACKS["math"], "test", [tmp_path]).rows
    assert rows[0]["answer"] == r"\frac{1}{2}"
