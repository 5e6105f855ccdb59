"""The runner with small fake stages: caching, invalidation, failure, single stages."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest

from phikit.recipe import plan_show, sources
from phikit.recipe import run as runner
from phikit.recipe.load import load
from phikit.recipe.status import statuses
from phikit.records import artifact

OWN = """
name: fake
model: {layers: 1, width: 8, heads: 2, kv_heads: 1, ffn: 16, vocab: 64}
tokenizer:
eval:
export:
report:
"""
TOKENIZER = """
    from phikit.records.io import write_text
    NEEDS = ()
    VOLATILE = ("log.txt",)
    KEEP = ("requests",)
    def run(ctx):
        old = (ctx.out / "requests" / "a.txt").exists()
        write_text(ctx.out / "requests" / "a.txt", "answer")
        write_text(ctx.out / "tokenizer.json", f"{ctx.recipe.world.operands} {ctx.config.sample}")
        write_text(ctx.out / "log.txt", str(id(ctx)))
        return {"rows": 3, "by_reason": {"short": 1}, "replayed": int(old)}
"""
EVAL = """
    from phikit.records.io import write_text
    from .helper import twice
    NEEDS = ("tokenizer",)
    def run(ctx):
        text = ctx.file("tokenizer", "tokenizer.json").read_text()
        if ctx.config.problems == 13:
            raise ValueError("eval.problems 13 is unlucky: choose another")
        write_text(ctx.out / "scores.json", twice(text))
        return {"scores": 2}
"""
EXPORT = """
    from phikit.records.io import write_text
    NEEDS: tuple[str, ...] = ("tokenizer",)
    USES = ("eval",)
    def run(ctx):
        write_text(ctx.out / "x.txt", ",".join(ctx.inputs))
        return {}
"""
REPORT = """
    from phikit.records.io import read_json, write_json, write_text
    USES = ("tokenizer", "eval", "export")
    VOLATILE = ("report.*",)
    def run(ctx):
        rows = read_json(ctx.root / "timings.json")["stages"]
        write_text(ctx.out / "report.html", "<p>" + ",".join(r["name"] + ":" + r["status"] for r in rows))
        write_json(ctx.out / "report.json", {"scores": [1], "inputs": sorted(ctx.inputs), "stages": []})
        return {}
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch, request):
    """A package of stage files under a name of its own, so that nothing is cached between tests."""
    name = "fakes_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    folder = tmp_path / "code" / name
    folder.mkdir(parents=True)
    files = {"tokenizer": TOKENIZER, "eval": EVAL, "export": EXPORT, "report": REPORT, "__init__": ""}
    for stage, text in files.items():
        (folder / f"{stage}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    (folder / "helper.py").write_text("def twice(x):\n    return x + x\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield Fakes(name, folder, tmp_path)
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]


class Fakes:
    def __init__(self, name: str, folder: Path, tmp: Path) -> None:
        self.name, self.folder, self.out = name, folder, tmp / "run"
        self.said: list[str] = []
        (tmp / "own.yaml").write_text(OWN, encoding="utf-8")
        self.recipe = str(tmp / "own.yaml")

    def run(self, *settings: str, **options) -> int:
        for cached in (sources.sources_fingerprint, sources.libraries, sources.closure, sources._imports,
                       sources._parse):  # fmt: skip
            cached.cache_clear()
        self.said = []
        loaded = load(self.recipe, settings=settings)
        return runner.run(loaded, self.out, package=self.name, say=self.said.append, **options)

    def states(self) -> dict[str, str]:
        return {r["name"]: r["status"] for r in self.rows("timings.json")}

    def rows(self, name: str) -> list[dict]:
        return json.loads((self.out / name).read_text(encoding="utf-8"))["stages"]

    def rerun(self, *settings: str, **options) -> set[str]:
        """Names of the stages that were computed."""
        assert self.run(*settings, **options) == 0, self.said
        return {n for n, s in self.states().items() if s == "done"}


def test_a_second_run_is_all_cached_and_the_report_says_so(fakes):
    assert fakes.rerun() == {"tokenizer", "eval", "export", "report"}
    first = {n: (fakes.out / n / "manifest.json").read_bytes() for n in fakes.states()}
    assert [r["cached"] for r in fakes.rows("report.json")] == [False] * 4
    seconds = [r["seconds"] for r in fakes.rows("report.json")]
    assert fakes.rerun() == set()
    assert [r["cached"] for r in fakes.rows("report.json")] == [True] * 4
    assert [r["seconds"] for r in fakes.rows("report.json")] == seconds
    assert fakes.rows("report.json")[0]["counts"] == {"rows": 3, "by_reason": {"short": 1}, "replayed": 0}
    assert {n: (fakes.out / n / "manifest.json").read_bytes() for n in first} == first
    assert (fakes.out / "report.html").read_text().startswith("<p>tokenizer:done")
    assert not list(fakes.out.rglob(".work"))


def test_manifests_hold_hashes_of_all_but_volatile_and_kept_files(fakes):
    fakes.rerun()
    found = artifact.load(fakes.out / "tokenizer")
    assert found
    assert set(found.manifest.files) == {"tokenizer.json", "log.txt", "requests/a.txt"}
    assert found.manifest.files["log.txt"] == found.manifest.files["requests/a.txt"] == artifact.UNHASHED
    assert len(found.manifest.files["tokenizer.json"]) == 64
    assert found.manifest.config["recipe"]["world"]["operands"] == 20


def test_two_folders_get_equal_manifests(fakes):
    fakes.rerun()
    one = {n: (fakes.out / n / "manifest.json").read_bytes() for n in fakes.states()}
    fakes.out = fakes.out.with_name("other")
    fakes.rerun()
    assert {n: (fakes.out / n / "manifest.json").read_bytes() for n in one} == one


def test_a_changed_key_recomputes_what_depends_on_it(fakes):
    fakes.rerun()
    assert fakes.rerun("eval.problems=7") == {"eval", "export", "report"}
    assert any("eval.problems changed" in line for line in fakes.said)
    # A section that is read through ctx.recipe counts without being declared.
    assert fakes.rerun("eval.problems=7", "world.operands=9") == {"tokenizer", "eval", "export", "report"}
    assert (fakes.out / "eval" / "scores.json").read_text() == "9 40000009 4000000"
    # One that no stage reads does not.
    assert fakes.rerun("eval.problems=7", "world.operands=9", "teacher.slots=5") == set()
    # A helper beside the stage file that reads one does.
    text = "def twice(x):\n    return x + x\ndef slots(ctx):\n    return ctx.recipe.teacher.slots\n"
    (fakes.folder / "helper.py").write_text(text, encoding="utf-8")
    fakes.rerun("eval.problems=7", "world.operands=9", "teacher.slots=5")
    assert fakes.rerun("eval.problems=7", "world.operands=9") == {"eval", "export", "report"}
    assert fakes.rerun("eval.problems=7", "world.operands=9", "seed=1") == set(fakes.states())


def test_a_kept_request_log_outlives_a_recomputation(fakes):
    fakes.rerun()
    (fakes.out / "tokenizer" / "stray.txt").write_text("old")
    fakes.rerun("world.operands=9")
    assert fakes.rows("timings.json")[0]["counts"]["replayed"] == 1
    assert not (fakes.out / "tokenizer" / "stray.txt").exists()


def test_changed_code_recomputes_the_stages_that_import_it(fakes):
    fakes.rerun()
    (fakes.folder / "helper.py").write_text("def twice(x):\n    return x * 2\n", encoding="utf-8")
    assert fakes.rerun() == {"eval", "export", "report"}
    assert any("its code changed" in line for line in fakes.said)


def test_a_lost_file_is_noticed(fakes):
    fakes.rerun()
    (fakes.out / "eval" / "scores.json").unlink()
    assert fakes.rerun() == {"eval"}
    assert any("scores.json is gone" in line for line in fakes.said)


def test_a_failed_stage_is_named_and_the_report_is_written(fakes):
    fakes.rerun()
    assert fakes.run("eval.problems=13") == 1
    assert any("FAILED: eval.problems 13 is unlucky" in line for line in fakes.said)
    assert fakes.states() == {"tokenizer": "cached", "eval": "failed", "export": "not run", "report": "done"}
    assert "eval:failed" in (fakes.out / "report.html").read_text()
    assert json.loads((fakes.out / "report.json").read_text())["inputs"] == ["tokenizer"]
    assert "unlucky" in fakes.rows("report.json")[1]["error"]
    assert "ValueError" in (fakes.out / "errors" / "eval.txt").read_text()
    # After the fix the report is not taken from the failed run.
    assert fakes.rerun("eval.problems=14") == {"eval", "export", "report"}
    assert "error" not in fakes.rows("report.json")[1]


def test_only_runs_one_stage_on_what_is_there(fakes):
    with pytest.raises(ValueError, match="--only eval: it needs tokenizer, which is not finished"):
        fakes.run(only="eval")
    fakes.run(only="tokenizer")
    fakes.run("eval.problems=5", only="eval")
    assert fakes.states() == {
        "tokenizer": "done",
        "eval": "done",
        "export": "not run",
        "report": "not run",
    }
    fakes.run("eval.problems=5", only="eval")
    assert fakes.states()["eval"] == "cached"
    # The stage has the fingerprint that a whole run gives it.
    assert fakes.rerun("eval.problems=5") == {"export", "report"}


def test_from_recomputes_from_there_on(fakes):
    fakes.rerun()
    assert fakes.rerun(start="export") == {"export", "report"}
    with pytest.raises(ValueError, match="--from sft: the recipe has no such stage"):
        fakes.run(start="sft")


def test_no_space_is_an_error_before_the_start(fakes, monkeypatch):
    fakes.rerun()
    monkeypatch.setattr(runner.plan, "disk_bytes", lambda recipe, stages: 10**18)
    assert fakes.rerun() == set()  # all cached needs no space
    with pytest.raises(ValueError, match=r"this run may need 1e[+]06 TB: free some space"):
        fakes.run("eval.problems=5")
    assert artifact.load(fakes.out / "eval"), "nothing was emptied"


def test_a_full_disk_is_a_clear_stop(fakes):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    text = "NEEDS = ()\ndef run(ctx):\n    with open('/dev/full', 'w') as f:\n        f.write('x')\n"
    (fakes.folder / "eval.py").write_text(text, encoding="utf-8")
    assert fakes.run() == 1
    assert any("eval" in line and "is full" in line and "free some space" in line for line in fakes.said)
    assert not (fakes.out / "eval" / "manifest.json").exists()


def test_two_runs_in_one_folder_are_refused(fakes):
    fakes.out.mkdir()
    with runner._lock(fakes.out), pytest.raises(ValueError, match="another run is under way"):
        fakes.run()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NEEDS = ('sft',)\ndef run(ctx): ...", "eval needs sft, which the recipe has not at all"),
        ("NEEDS = ('export',)\ndef run(ctx): ...", "eval needs export, which the recipe has after it"),
        ("NEEDS = tuple(x for x in 'ab')\ndef run(ctx): ...", "NEEDS must be a literal tuple"),
        ("NEEDS = ('a',)\ndef run(ctx): ...", "declares inputs that are no stages: a"),
        ("def run(ctx):\n    f(ctx.recipe)", "name the sections used there in READS"),
        ("def run(ctx:", "not valid Python"),
    ],
)
def test_a_wrong_stage_file_stops_the_run_before_it_starts(fakes, text, message):
    (fakes.folder / "eval.py").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        fakes.run()
    assert not (fakes.out / "tokenizer").exists()


def test_counts_must_be_numbers(fakes):
    (fakes.folder / "eval.py").write_text("def run(ctx):\n    return {'a': 'b'}\n", encoding="utf-8")
    assert fakes.run() == 1
    assert any("eval must return counts" in line for line in fakes.said)


def test_watched_files_enter_the_fingerprint(fakes, tmp_path):
    text = "WATCHES = ('folders', 'decontaminate.against')\ndef run(ctx):\n    return {}\n"
    (fakes.folder / "corpus.py").write_text(text, encoding="utf-8")
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "a.txt").write_text("a")
    section = f"corpus={{max_bytes: {{code: 1, text: 1}}, folders: [{{path: {notes}}}]}}"
    loaded = load(fakes.recipe, settings=[section])
    before = statuses(loaded, fakes.out, fakes.name)[-1].fingerprint
    assert statuses(loaded, fakes.out, fakes.name)[-1].fingerprint == before
    (notes / "b.txt").write_text("b")
    assert statuses(loaded, fakes.out, fakes.name)[-1].fingerprint != before
    with pytest.raises(ValueError, match=r"corpus\.folders: there is no file or folder"):
        statuses(load(fakes.recipe, settings=[section.replace("notes", "none")]), fakes.out, fakes.name)


def test_the_printed_plan_knows_what_is_cached(fakes, capsys):
    loaded = load(fakes.recipe)
    assert plan_show.print_plan(loaded, fakes.out, fakes.name) == 0
    printed = capsys.readouterr().out
    assert "1,624 parameters" in printed
    assert "not run yet" in printed
    assert "cached" not in printed
    fakes.rerun()
    assert plan_show.print_plan(load(fakes.recipe, settings=["eval.problems=5"]), fakes.out, fakes.name) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "tokenizer" in line or "eval" in line]
    assert "cached" in lines[0]
    assert "changed" in lines[1]


def test_a_layout_that_cannot_run_is_a_status_of_the_plan(fakes, capsys):
    assert plan_show.print_plan(load(fakes.recipe, settings=["layout.tp=3"]), fakes.out, fakes.name) == 1
    assert "error: tp 3" in capsys.readouterr().out
