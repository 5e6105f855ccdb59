"""The recipe `own-model` from a tiny Llama of somebody's own to the report, in seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
import own_model as own  # pyright: ignore[reportMissingImports]

from phikit.model.hf_read import load_hf
from phikit.recipe.load import load
from phikit.recipe.run import run
from phikit.recipe.scales import RecipeError
from phikit.records import artifact
from phikit.records.io import read_json, read_jsonl, write_jsonl

IDS = torch.arange(3, 40)[None]


def settings(init: Path, base: Path, *more: str) -> list[str]:
    questions, dialogs = own.write_questions(base)
    return [f"init={init}", f"questions={questions}", f"questions.dialogs={dialogs}", *own.SMALL, *more]


def finished(recipe_settings: list[str], out: Path, **more) -> tuple[int, str]:
    lines: list[str] = []
    return run(load("own-model", settings=recipe_settings), out, say=lines.append, **more), "\n".join(lines)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("own")
    own.write_model(base / "model")
    code, said = finished(settings(base / "model", base), base / "run")
    assert code == 0, said
    return base


def manifest(folder: Path) -> artifact.Manifest:
    found = artifact.load(folder)
    assert found is not None, f"{folder} is not finished"
    return found.manifest


def logits(folder: Path) -> torch.Tensor:
    model, _ = load_hf(folder)
    with torch.no_grad():
        hidden = model(IDS, torch.arange(IDS.shape[1])[None], None)
        return F.linear(hidden, model.head_weight)


def test_every_stage_runs_and_the_report_compares_all_checkpoints(whole):
    report = read_json(whole / "run" / "report.json")
    assert {s["name"]: s["status"] for s in report["stages"]} == dict.fromkeys(
        ("init", "questions", "sft", "pivotal", "dpo1", "judged", "dpo2", "eval", "export", "report"), "done"
    )
    scores = {(s["checkpoint"], s["metric"]): s for s in report["scores"]}
    assert set(scores) == {(c, m) for c in ("init", "sft", "dpo1", "dpo2") for m in ("greedy", "sampled")}
    assert scores["init", "sampled"]["value"] == 0  # it has never seen an answer
    assert 0.1 < scores["sft", "sampled"]["value"] < 0.9
    pairs = {(c["a"], c["b"], c["metric"]): c for c in report["comparisons"]}
    assert "p" in pairs["dpo1", "sft", "greedy"]  # McNemar, on the same questions
    assert pairs["sft", "init", "sampled"]["low"] > 0
    said = {v["stage"]: v for v in report["verdicts"]}
    assert list(said) == ["sft", "dpo1", "dpo2"]
    assert said["sft"]["word"] == "worked"
    page = (whole / "run" / "report.html").read_text()
    assert "held-out questions" in page
    assert "closed world" not in page
    assert "midtrain" not in page


def test_the_questions_are_split_and_kept_apart(whole):
    counts = manifest(whole / "run" / "questions").counts
    train = list(read_jsonl(whole / "run" / "questions" / "questions.jsonl.zst"))
    held = list(read_jsonl(whole / "run" / "questions" / "heldout" / "questions.jsonl"))
    assert counts["questions"] == 36 == len(train) + len(held)
    assert not {q["question"] for q in train} & {q["question"] for q in held}
    said = [
        t["content"]
        for d in read_jsonl(whole / "run" / "questions" / "dialogs.jsonl.zst")
        for t in d["turns"]
    ]
    assert not set(said) & {q["question"] for q in held}
    assert counts["dialogs_rejected"] == 2 * len(held)


def test_the_searched_tokens_are_the_undecided_ones(whole):
    pairs = list(read_jsonl(whole / "run" / "pivotal" / "pairs.jsonl.zst"))
    assert len(pairs) >= 8
    assert sum(p["chosen"].strip() in ("2", "3") for p in pairs) > len(pairs) / 2
    first, last = (manifest(whole / "run" / "dpo1").counts[f"loss_{x}"] for x in ("first", "last"))
    assert last < first


def test_others_open_what_comes_out(whole):
    """The model stays a Llama with its own tokenizer and template; llama.cpp gives the same answers (stage export)."""
    transformers = pytest.importorskip("transformers")
    folder = whole / "run" / "export" / "hf"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert tokenizer.chat_template == own.CHATML
    assert torch.allclose(model(IDS).logits, logits(folder), atol=1e-4)
    counts = manifest(whole / "run" / "export").counts
    assert counts["same_f32"] >= counts["prompts"] / 2
    assert (whole / "run" / "export" / "Modelfile").read_text() == "FROM ./model-f32.gguf\n"


def test_a_second_run_is_cached_and_a_changed_rate_reuses_the_search(whole):
    code, said = finished(settings(whole / "model", whole), whole / "run")
    assert code == 0
    assert said.count("cached") == 10, said


def test_low_rank_adapters_on_a_gguf(whole, tmp_path):
    """Init from the GGUF that the first run exported; adapters are written for PEFT and merged into hf/."""
    gguf = whole / "run" / "export" / "model-f32.gguf"
    more = [f"{s}.lora={{rank: 4}}" for s in ("sft", "dpo1", "dpo2")]
    code, said = finished(settings(gguf, tmp_path, *more, "sft.epochs=4", "sft.lr=2e-3"), tmp_path / "run")
    assert code == 0, said
    counts = manifest(tmp_path / "run" / "sft").counts
    assert counts["trained"] < counts["parameters"] / 2
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "run" / "init" / "hf", dtype=torch.float32
        )
        adapted = peft.PeftModel.from_pretrained(base, tmp_path / "run" / "sft" / "adapter")
    got = adapted(IDS).logits
    assert torch.allclose(got, logits(tmp_path / "run" / "sft" / "hf"), atol=1e-4)
    assert not torch.allclose(got, logits(tmp_path / "run" / "init" / "hf"), atol=1e-2)


def same_pairs(ours: Path, theirs: Path) -> None:
    some, others = (list(read_jsonl(f / "pairs.jsonl.zst")) for f in (ours, theirs))
    assert len(some) == len(others)
    for a, b in zip(some, others):
        one, other = a.pop("meta"), b.pop("meta")
        assert a == b
        for key in one:
            close = (
                pytest.approx(other[key], rel=1e-4, abs=1e-4) if isinstance(one[key], float) else other[key]
            )
            assert one[key] == close, key


def test_a_killed_run_ends_with_the_same_bytes(whole, tmp_path):
    out = tmp_path / "run"
    options = [x for s in settings(whole / "model", whole) for x in ("--set", s)]
    command = [sys.executable, "-m", "phikit", "run", "own-model", "--out", str(out), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log, end = out / "pivotal" / ".work" / "rollouts.jsonl", time.monotonic() + 120
    while not (log.is_file() and log.stat().st_size > 3000) and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("init", "questions", "sft", "pivotal", "dpo1", "judged", "dpo2", "export"):
        ours, theirs = (manifest(folder / stage) for folder in (out, whole / "run"))
        # What a kill lost is sampled in another batch, whose sums differ by a rounding: the same tokens, and a
        # probability, on the page or beside a pair, may end in another digit.
        shown = {"answers.jsonl": "", "speed.jsonl": ""}
        if stage == "pivotal":
            shown["pairs.jsonl.zst"] = ""
            same_pairs(out / stage, whole / "run" / stage)
        assert {**ours.files, **shown} == {**theirs.files, **shown}, stage


# -- errors in words -------------------------------------------------------------------------------------------


def fails(tmp_path: Path, recipe_settings: list[str], **more) -> str:
    code, said = finished(recipe_settings, tmp_path / "run", **more)
    assert code == 1, said
    return next(line for line in said.splitlines() if "FAILED" in line)


def test_a_model_without_a_chat_template_names_the_key(tmp_path):
    model = own.write_model(tmp_path / "model", template=None)
    said = fails(tmp_path, settings(model, tmp_path), only="init")
    assert "no chat template" in said
    assert "init.template" in said
    (tmp_path / "chatml.jinja").write_text(own.CHATML)
    code, said = finished(
        settings(model, tmp_path, f"init.template={tmp_path / 'chatml.jinja'}"), tmp_path / "run", only="init"
    )
    assert code == 0, said


def test_questions_without_solutions_and_no_dialogs(tmp_path):
    model = own.write_model(tmp_path / "model")
    write_jsonl(
        tmp_path / "q.jsonl", [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(30)]
    )
    said = fails(tmp_path, [f"init={model}", f"questions={tmp_path / 'q.jsonl'}", *own.SMALL])
    assert "sft" in said
    assert "questions.dialogs" in said
    assert "solution" in said


def test_solutions_become_dialogs_and_gsm8k_notes_are_left_out(tmp_path):
    model = own.write_model(tmp_path / "model")
    rows = [
        {
            "question": f"What is {i} + {i}?",
            "answer": f"It is {i}+{i} = <<{i}+{i}={2 * i}>>{2 * i}.\n#### {2 * i}",
        }
        for i in range(40)
    ]
    write_jsonl(tmp_path / "q.jsonl", rows)
    for only in ("init", "questions"):
        code, said = finished(
            [f"init={model}", f"questions={tmp_path / 'q.jsonl'}"], tmp_path / "run", only=only
        )
        assert code == 0, said
    first = next(iter(read_jsonl(tmp_path / "run" / "questions" / "dialogs.jsonl.zst")))
    number = first["meta"]["answer"]
    half = int(number) // 2
    assert first["turns"][1]["content"] == f"It is {half}+{half} = {number}.\nThe answer is {number}."


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ([], ("init.model", "questions.file", "--set init=MODEL")),
        (["init=nowhere", "questions=x.jsonl", "model={}"], ("model",)),
        (["init=smollm2", "questions=x.jsonl", "sft.tokens=5K"], ("sft", "tokens or epochs")),
    ],
)
def test_a_recipe_that_cannot_be_read_names_the_keys(more, names):
    with pytest.raises(RecipeError) as e:
        load("own-model", settings=more)
    assert all(n in str(e.value) for n in names)


def test_a_model_or_file_that_is_not_there(tmp_path):
    q, _ = own.write_questions(tmp_path)
    for given, names in (
        (["init=no-such", f"questions={q}"], ("init.model", "no local model is named 'no-such'")),
        (
            [f"init={own.write_model(tmp_path / 'model')}", "questions=no.jsonl"],
            ("questions.file", "no.jsonl"),
        ),
    ):
        with pytest.raises(ValueError, match=names[0]) as e:
            run(load("own-model", settings=given), tmp_path / "run", say=lambda _: None)
        assert names[1] in str(e.value)


def test_rows_longer_than_the_model_knows(tmp_path):
    model = own.write_model(tmp_path / "model")
    said = fails(tmp_path, settings(model, tmp_path, "sft.context=4K"))
    assert "sft.context" in said
    assert "128" in said


def test_the_plan_knows_the_model_before_anything_runs(whole, capsys):
    from phikit.recipe.plan_show import print_plan

    recipe = load("own-model", settings=settings(whole / "model", whole, "sft.lora={rank: 4}"))
    assert print_plan(recipe, whole / "nothing") == 0
    said = capsys.readouterr().out
    parameters = manifest(whole / "run" / "init").counts["parameters"]
    assert f"{parameters:,} parameters" in said
    assert "lora rank 4" in said
    assert json.loads((whole / "model" / "config.json").read_text())["model_type"] == "llama"
