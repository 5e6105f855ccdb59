"""Plans: barriers, identity by content, atomic outputs, typed failures, and `phikit run-task`."""

from __future__ import annotations

import errno
import json
import sys

import pytest

from phikit.jobs import command, on_ray, progress, run, task
from phikit.jobs import plan as plans
from phikit.jobs.plan import PLAN, Shard, Step, compile, load
from phikit.jobs.pool import run_shards
from phikit.jobs.run import Planned, ShardError, run_plan
from phikit.records.io import read_json, read_jsonl, write_jsonl, write_text

SOURCE = """
from pathlib import Path
from phikit.jobs.task import Retryable, Truncated
from phikit.records.io import read_jsonl, write_jsonl

def half(options, reads, writes):
    rows = list(read_jsonl(reads[0]))
    with (reads[0].parent / "journal").open("a") as f:
        f.write(reads[0].name + " ")
    todo = reads[0].parent / options.get("fail", "no")  # a character for each try that fails
    kept = [r for r in rows if r["n"] % 2 == 0]
    write_jsonl(writes[0], kept)
    if todo.exists():
        todo.write_text(todo.read_text()[1:]) if len(todo.read_text()) > 1 else todo.unlink()
        raise {"busy": Retryable("busy"), "bug": KeyError("n"), "cut": Truncated("cut after 2", {"rows": 2}),
               "full": OSError(28, "no space")}[options["fail"]]
    odd = len(rows) - len(kept)
    return {"in": len(rows), "out": len(kept), "dropped": {"odd": odd} if odd else {}}

def total(options, reads, writes):
    n = sum(r["n"] for p in reads for r in read_jsonl(p))
    write_jsonl(writes[0], [{"total": n}])
    return {"total": n}

def idle(options, reads, writes):
    return {}
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")
    monkeypatch.setattr(run, "PAUSE", 0.0)


@pytest.fixture
def steps(tmp_path, monkeypatch, request):
    """A package with the functions above, of its own for each test."""
    name = "jobs_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    (tmp_path / name).mkdir()
    write_text(tmp_path / name / "__init__.py", "")
    write_text(tmp_path / name / "steps.py", SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return __import__(f"{name}.steps", fromlist=["half"])


def make(folder, steps, numbers=((0, 1, 2), (3, 4), (5, 6)), fail="", rate=1):
    for i, ns in enumerate(numbers):
        write_jsonl(folder / "in" / f"{i}.jsonl", ({"n": n} for n in ns))
    halves = [f"half/{i}.jsonl" for i in range(len(numbers))]
    options = [{"rate": rate, **({"fail": fail} if i == 1 and fail else {})} for i in range(len(numbers))]
    shards = [Shard(o, (f"in/{i}.jsonl",), (halves[i],)) for i, o in enumerate(options)]
    total = Shard({}, tuple(halves), ("total.jsonl",))
    return compile(folder, [Step("half", steps.half, shards), Step("total", steps.total, [total], "group")])


def journal(folder) -> list[str]:
    path = folder / "in" / "journal"
    return path.read_text().split() if path.exists() else []


def test_a_plan_runs_in_order_and_what_is_done_is_not_run_again(tmp_path, steps):
    plan = make(tmp_path / "w", steps)
    results = run_plan(plan, label="x")
    assert results[-1] == {"total": 0 + 2 + 4 + 6}
    assert list(read_jsonl(tmp_path / "w" / "total.jsonl")) == [{"total": 12}]
    assert [t.needs for t in plan.tasks] == [(), (), (), (0, 1, 2)]
    assert plan.waves() == [range(3), range(3, 4)]
    assert load(tmp_path / "w" / PLAN) == plan
    assert run_plan(make(tmp_path / "w", steps), label="x") == results
    assert len(journal(tmp_path / "w")) == 3


def test_what_follows_a_barrier_waits_for_it_and_what_reads_a_map_waits_for_its_tasks(tmp_path, steps):
    write_jsonl(tmp_path / "a", [{"n": 2}])
    write_jsonl(tmp_path / "b", [{"n": 4}])
    plan = compile(tmp_path, [
        Step("one", steps.half, [Shard({}, ("a",), ("a1",)), Shard({}, ("b",), ("b1",))]),
        Step("two", steps.half, [Shard({}, ("a1",), ("a2",)), Shard({}, ("b1",), ("b2",))]),
        Step("all", steps.total, [Shard({}, ("a2",), ("sum",))], "train"),
        Step("late", steps.half, [Shard({}, ("b1",), ("b3",)), Shard({}, ("a",), ("a3",))]),
        Step("mix", steps.total, [Shard({}, ("a3",), ("end",))], "mix"),
    ])  # fmt: skip
    assert [t.needs for t in plan.tasks] == [(), (), (0,), (1,), (0, 1, 2, 3), (1, 4), (4,), (4, 5, 6)]
    assert [(w.start, w.stop) for w in plan.waves()] == [(0, 2), (2, 4), (4, 5), (5, 7), (7, 8)]


def test_a_task_is_known_by_its_input_options_and_code(tmp_path, steps):
    first = make(tmp_path / "w", steps)
    run_plan(first, label="x")
    changed = make(tmp_path / "w", steps, numbers=((0, 1, 2), (3, 8), (5, 6)))
    same = [a.key == b.key for a, b in zip(first.tasks, changed.tasks)]
    assert same == [True, False, True, False]  # the barrier reads the changed shard
    assert run_plan(changed, label="x")[-1] == {"total": 16}
    assert journal(tmp_path / "w")[3:] == ["1.jsonl"]
    keys = [t.key for t in make(tmp_path / "w", steps, rate=2).tasks]
    assert not set(keys) & {t.key for t in make(tmp_path / "w", steps).tasks}
    assert [t.key for t in make(tmp_path / "elsewhere", steps, rate=2).tasks] == keys
    path = tmp_path / steps.__name__.split(".")[0] / "steps.py"
    write_text(path, SOURCE + "\nx = 1\n")
    plans._version_of.cache_clear()
    assert not set(keys) & {t.key for t in make(tmp_path / "w", steps, rate=2).tasks}


def test_a_plan_moves_with_its_folder(tmp_path, steps):
    run_plan(make(tmp_path / "w", steps), label="x")
    assert str(tmp_path) not in (tmp_path / "w" / PLAN).read_text()
    (tmp_path / "w").rename(tmp_path / "v")
    assert run_plan(load(tmp_path / "v" / PLAN), label="x")[-1] == {"total": 12}
    assert len(journal(tmp_path / "v")) == 3


def test_a_lost_or_shortened_output_is_made_again(tmp_path, steps):
    plan = make(tmp_path, steps)
    run_plan(plan, label="x")
    (tmp_path / "half" / "1.jsonl").unlink()
    write_text(tmp_path / "half" / "2.jsonl", "")
    write_text(task.note(tmp_path, plan.tasks[0]), "{}")
    run_plan(plan, label="x")
    assert sorted(journal(tmp_path)[3:]) == ["0.jsonl", "1.jsonl", "2.jsonl"]


def test_what_is_read_back_is_what_was_returned_first_order_of_keys_included(tmp_path):
    def made(n):
        return {"z": (n, 2), "a": {2: "\u00e9"}}

    first = run_shards(made, [1], work=tmp_path, label="x")
    again = run_shards(made, [1], work=tmp_path, label="x")
    assert json.dumps(first) == json.dumps(again)
    assert first == again == [{"z": [1, 2], "a": {"2": "\u00e9"}}]


def test_a_failed_task_leaves_nothing_under_the_names_it_writes(tmp_path, steps):
    plan = make(tmp_path, steps, fail="bug")
    write_text(tmp_path / "in" / "bug", "1")
    with pytest.raises(ShardError, match=r"^x: half, shard 1 \(.*\): KeyError: 'n'") as e:
        run_plan(plan, label="x")
    assert "in half" in e.value.__notes__[0]
    assert sorted(p.name for p in (tmp_path / "half").iterdir()) == ["0.jsonl"]
    assert read_json(task.note(tmp_path, plan.tasks[1]))["state"] == "final"
    assert len(journal(tmp_path)) == 2  # no second try, and nothing after it
    assert run_plan(plan, label="x")[-1] == {"total": 12}


def test_passing_faults_are_tried_again_up_to_a_limit(tmp_path, steps):
    write_text(tmp_path / "in" / "busy", "11")
    assert run_plan(make(tmp_path, steps, fail="busy"), label="x")[-1] == {"total": 12}
    assert journal(tmp_path).count("1.jsonl") == 3
    write_text(tmp_path / "in" / "busy", "111")
    with pytest.raises(ShardError, match="given up after 3 tries: busy"):
        run_plan(make(tmp_path, steps, fail="busy", rate=2), label="x")


def test_a_full_disk_is_no_passing_fault_and_stays_recognizable(tmp_path, steps):
    write_text(tmp_path / "in" / "full", "1")
    with pytest.raises(ShardError, match="no space") as e:
        run_plan(make(tmp_path, steps, fail="full"), label="x")
    assert isinstance(e.value.__cause__, OSError)
    assert e.value.__cause__.errno == errno.ENOSPC
    assert journal(tmp_path).count("1.jsonl") == 1


def test_a_truncated_task_counts_as_finished_until_it_is_asked_for_again(tmp_path, steps):
    write_text(tmp_path / "in" / "cut", "1")
    plan = make(tmp_path, steps, fail="cut")
    assert run_plan(plan, label="x")[1] == {"rows": 2}
    assert read_json(task.note(tmp_path, plan.tasks[1]))["reason"] == "cut after 2"
    run_plan(plan, label="x")
    assert len(journal(tmp_path)) == 3
    assert run_plan(plan, label="x", again=True)[1]["in"] == 2
    assert journal(tmp_path)[3:] == ["1.jsonl"]


def test_a_step_without_rows_says_why_before_what_follows_is_run(tmp_path, steps):
    plan = make(tmp_path, steps, numbers=((1, 3), (5,)))
    for _ in range(2):  # of finished tasks too
        with pytest.raises(
            ShardError, match=r"x, half: the result is empty: 3 files or rows were read \(odd 3\)"
        ):
            run_plan(plan, label="x")
    assert not (tmp_path / "total.jsonl").exists()


def test_a_function_that_writes_nothing_is_an_error(tmp_path, steps):
    plan = compile(tmp_path, [Step("idle", steps.idle, [Shard({}, (), ("a.txt",))])])
    with pytest.raises(ShardError, match=r"wrote no a\.txt"):
        run_plan(plan, label="x")


@pytest.mark.parametrize(("change", "words"), [
    ({"kind": "join"}, "kind 'join' is none of map, group, train, mix"), ({"name": "a"}, "two steps are named a"),
    ({"kind": "group", "shards": []}, "a barrier is one task, it has 0"),
    ({"shards": [Shard({}, ("none",), ("y",))]}, "there is no such file, and no task before it writes it"),
    ({"shards": [Shard({}, (), ("x",))]}, "writes x, which task 0 writes too"),
])  # fmt: skip
def test_a_wrong_plan_is_refused(tmp_path, steps, change, words):
    second = Step(**{"name": "b", "fn": steps.idle, "shards": [Shard({}, (), ("y",))], **change})
    with pytest.raises(ValueError, match=words):
        compile(tmp_path, [Step("a", steps.idle, [Shard({}, (), ("x",))]), second])


def test_on_plan_writes_the_plan_and_run_task_works_through_it(tmp_path, steps):
    folder = tmp_path / "w"
    said: list[str] = []
    with pytest.raises(Planned, match=r"4 of 4 tasks are to be run: .*plan.json"):
        run_plan(make(folder, steps), label="x", on="plan")
    file = folder / PLAN
    assert command.count(file) == 4
    assert command.run_task(file, 3, said.append) == 3
    assert said[-1] == "total waits for 3 tasks (0, 1, 2): run them first"
    assert [command.run_task(file, i, said.append) for i in (2, 0, 1)] == [0, 0, 0]
    assert command.run_task(file, 0, said.append) == 0
    assert said[-1].endswith("done before")
    assert command.run_task(file, 3, said.append) == 0
    assert len(journal(folder)) == 3
    command.list_tasks(file, said.append)
    assert said[-3:] == [
        "half   map    0-2: 3 done",
        "total  group  3: 1 done",
        "job arrays, each after the one before: 0-2 3",
    ]
    assert run_plan(make(folder, steps), label="x", on="plan")[-1] == {"total": 12}
    quiet = make(tmp_path / "quiet", steps)
    run_plan(quiet, label="x")
    for a in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "journal"):
        assert a.read_bytes() == (tmp_path / "quiet" / a.relative_to(folder)).read_bytes()


def test_run_task_says_what_failed_and_whether_another_try_may_help(tmp_path, steps):
    said: list[str] = []
    file = make(tmp_path, steps, fail="busy").folder / PLAN
    write_text(tmp_path / "in" / "busy", "1")
    assert command.run_task(file, 1, said.append) == 75
    assert said[-1].endswith("retryable (busy)")
    assert command.run_task(file, 3, said.append) == 3
    assert said[-1] == "  1 failed (retryable): busy"
    assert command.run_task(file, 1, said.append) == 0
    file = make(tmp_path, steps, fail="bug").folder / PLAN
    write_text(tmp_path / "in" / "bug", "1")
    assert command.run_task(file, 1, said.append) == 1
    for index in (-1, 4):
        with pytest.raises(ValueError, match=r"the tasks of .* are 0 to 3"):
            command.run_task(file, index, said.append)


def test_run_task_refuses_other_code_and_other_inputs(tmp_path, steps):
    said: list[str] = []
    plan = make(tmp_path, steps)
    write_jsonl(tmp_path / "in" / "0.jsonl", [{"n": 100}])
    assert command.run_task(tmp_path / PLAN, 0, said.append) == 1
    assert "0.jsonl has changed since the plan was written" in said[-1]
    rows = json.loads((tmp_path / PLAN).read_text())
    rows["tasks"][1]["code"] = "other"
    write_text(tmp_path / PLAN, json.dumps(rows))
    assert command.run_task(tmp_path / PLAN, 1, said.append) == 1
    assert "has other code or libraries than the machine that wrote the plan" in said[-1]
    assert "does not see" in task.attempt(tmp_path / "nowhere", plan.tasks[0], far=True).reason
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"tasks": [{"index": 0}]}', '{"tasks": 3}'])
def test_a_file_that_is_no_plan_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="there is no plan here"):
        load(tmp_path / PLAN)
    write_text(tmp_path / PLAN, text)
    with pytest.raises(ValueError, match="not a plan"):
        load(tmp_path / PLAN)


@pytest.mark.parametrize("on", ["", "spark", "ray://", "host", "http://host:80", "host:port"])
def test_a_place_that_is_none_is_refused(tmp_path, steps, on):
    with pytest.raises(ValueError, match="give local, plan, ray"):
        run_plan(make(tmp_path, steps), label="x", on=on)


def test_ray_that_is_absent_or_does_not_answer_is_said_in_words(tmp_path, steps, monkeypatch):
    monkeypatch.setattr(
        on_ray, "_import_ray", lambda: type("Ray", (), {"is_initialized": staticmethod(bool)})
    )
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:9: nothing answers there .*ray start --head"):
        run_plan(make(tmp_path, steps), label="x", on="127.0.0.1:9")
    monkeypatch.undo()
    monkeypatch.setenv("PHIKIT_QUIET", "1")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'phikit\[ray\]'"):
        run_plan(make(tmp_path, steps), label="x", on="ray")


def test_a_process_has_one_connection_to_ray(tmp_path, steps, monkeypatch):
    monkeypatch.setattr(on_ray, "_import_ray", lambda: type("Ray", (), {"is_initialized": lambda: True}))
    monkeypatch.setattr(on_ray.Cluster, "connected", "ray://a:1")
    with pytest.raises(ValueError, match="connected to ray://a:1, and Ray allows one"):
        run_plan(make(tmp_path, steps), label="x", on="b:2")


def test_other_processes_need_a_function_that_has_a_name(tmp_path):
    plan = compile(tmp_path, [Step("x", lambda n: n, [Shard(1), Shard(2)])])
    with pytest.raises(ValueError, match="put it into a module"):
        run_plan(plan, label="x", workers=2)


def test_the_rate_leaves_out_what_was_done_before(monkeypatch, capsys):
    monkeypatch.delenv("PHIKIT_QUIET")
    monkeypatch.setattr(progress, "LINE_SECONDS", 10.0)
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.bar("x", total=100, done=80) as b:
        now[0] = 50.0
        b.advance(10)
    assert capsys.readouterr().err.splitlines()[0] == "  x: 90/100 rows, 0.2/s, 50 s left"
