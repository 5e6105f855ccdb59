"""The terminal chat: a scripted engine for the conversation, a real folder for the whole."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from phikit.engine.scripted import ScriptedEngine
from phikit.serve.chat import find, talk
from phikit.serve.conversation import Conversation


def conversation(engine, *lines):
    """(stdout, stderr) of a conversation; an exception among the lines is raised: Ctrl-C at the prompt."""
    waiting = iter([*lines, None])

    def ask(_: str) -> str | None:
        line = next(waiting)
        if isinstance(line, BaseException):
            raise line
        return line

    out, notes = io.StringIO(), io.StringIO()
    talk(Conversation(engine, out, notes), ask)
    return out.getvalue(), notes.getvalue()


class Streaming(ScriptedEngine):
    """Says its answer in pieces of three characters; a Ctrl-C comes where the answer has a `!`."""

    def stream(self, request):
        [(_, [answer])] = self.generate([request])
        for i in range(0, len(answer.text), 3):
            if "!" in answer.text[i : i + 3]:
                raise KeyboardInterrupt
            yield answer.text[i : i + 3]


def test_questions_and_answers():
    engine = ScriptedEngine(lambda prompt: f"seen {prompt.count('user')}")
    out, notes = conversation(engine, "one\n", "  two \n", "\n", "/quit\n", "three\n")
    assert out == "seen 1\nseen 2\n"
    assert engine.prompts[1] == (
        "<|im_start|>user<|im_sep|>one<|im_end|><|im_start|>assistant<|im_sep|>seen 1<|im_end|>"
        "<|im_start|>user<|im_sep|>two<|im_end|><|im_start|>assistant<|im_sep|>"
    )
    assert notes.count("7 tokens, ") == 2
    assert "tokens/s" in notes


def test_a_new_conversation():
    engine = ScriptedEngine(lambda prompt: "ok")
    conversation(engine, "one", "/new", "two")
    assert "one" not in engine.prompts[1]


def test_an_answer_that_is_stopped_stays_in_the_conversation():
    engine = Streaming(lambda prompt: "abcdef!gh" if "two" not in prompt else "fine")
    out, notes = conversation(engine, "one", KeyboardInterrupt(), "two")
    assert out == "abcdef\nfine\n"
    assert "[stopped, " in notes
    assert "abcdef<|im_end|>" in engine.prompts[-1]


def test_a_full_context_is_refused_with_the_numbers():
    engine = ScriptedEngine(lambda prompt: "x" * 1000, context=80)
    out, notes = conversation(engine, "q" * 200, "short", "again")
    assert "tokens do not fit the context of 80: ask in fewer words" in notes
    assert "/new starts over" in notes
    assert len(out.strip()) <= 80


def test_several_lines_are_one_message():
    engine = ScriptedEngine(lambda prompt: "ok")
    conversation(engine, '"""first\n', "second\n", 'third"""\n', '"""one line"""')
    assert "user<|im_sep|>first\nsecond\nthird<|im_end|>" in engine.prompts[0]
    assert "user<|im_sep|>one line<|im_end|>" in engine.prompts[1]


def test_system_settings_and_retry():
    engine = ScriptedEngine(lambda prompt, seed: f"seed {seed % 1000}", seeded=True)
    out, notes = conversation(
        engine,
        "/system Be brief.",
        "hi",
        "/set temperature 0.7",
        "/set seed 5",
        "/retry",
        "/set",
        "/set temperature hot",
        "/set nothing 1",
        "/set temperature -3",
        "/nonsense",
    )
    assert engine.prompts[0].startswith("<|im_start|>system<|im_sep|>Be brief.<|im_end|>")
    assert engine.prompts[1] == engine.prompts[0]
    assert len(set(out.split("\n")[:2])) == 2
    assert "temperature 0.7" in notes
    assert "seed 6" in notes  # a retry takes another
    assert "/set temperature: give a number" in notes
    assert "no such setting; known are temperature" in notes
    assert 'option "temperature" must be from 0 to 100' in notes
    assert "/nonsense is no command" in notes


def test_save_and_load(tmp_path):
    engine = ScriptedEngine(lambda prompt: "fine")
    path = tmp_path / "talk.json"
    conversation(engine, "/system Be kind.", "hi", f"/save {path}")
    saved = json.loads(path.read_text())
    assert saved["system"] == "Be kind."
    assert [m["content"] for m in saved["messages"]] == ["hi", "fine"]
    _, notes = conversation(engine, f"/load {path}", "more")
    assert "hi<|im_end|>" in engine.prompts[-1]
    assert "Be kind." in engine.prompts[-1]
    assert "2 messages; the last: fine" in notes
    path.write_text('{"messages": [{"role": "wizard", "content": 1}]}')
    _, notes = conversation(engine, f"/load {path}", "/load", "/save")
    assert "not a saved conversation" in notes
    assert "/load needs a file name" in notes


def test_the_latest_checkpoint_of_a_run(tmp_path):
    with pytest.raises(ValueError, match="none of export, dpo2, dpo1, sft is there yet"):
        find(tmp_path)
    for stage in ("pretrain", "sft", "dpo1"):
        (tmp_path / stage / "hf").mkdir(parents=True)
        (tmp_path / stage / "hf" / "config.json").write_text("{}")
    assert find(tmp_path) == str(tmp_path / "dpo1")
    assert find(tmp_path / "sft") == str(tmp_path / "sft")
    assert find(tmp_path / "sft" / "hf") == str(tmp_path / "sft" / "hf")
    assert find("smollm2") == "smollm2"


def test_over_a_pipe(tmp_path):
    """The whole of `phikit chat` on a tiny network: lines in, answers out, numbers on stderr."""
    from phikit.model.config import ModelConfig
    from phikit.model.hf import save_hf
    from phikit.model.transformer import build
    from phikit.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["the cat sat on the mat"], 270)
    save_hf(build(ModelConfig(270, 32, 1, 2, 1, 64, 128), 0), tokenizer, tmp_path / "sft" / "hf")
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", f"from phikit.serve.chat import chat; chat({str(tmp_path)!r})"],
        input="hi\n/quit\n",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'sft'}: 128 tokens of context" in done.stderr
    assert "tokens/s]" in done.stderr
    assert done.stdout.endswith("\n")


def test_a_stored_model_speaks_with_its_modelfile(tmp_path, monkeypatch):
    """Template, system text and parameters of the store reach the chat."""
    from tiny_gguf import write_tiny

    from phikit.serve.chat import open_model
    from phikit.serve.command import create

    monkeypatch.setenv("PHIKIT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    write_tiny(tmp_path / "t.gguf")
    (tmp_path / "Modelfile").write_text(
        'FROM ./t.gguf\nTEMPLATE """{{ .System }}|{{ .Prompt }}|"""\nSYSTEM Kind.\nPARAMETER num_predict 3\n'
    )
    assert create("own", tmp_path / "Modelfile") == "created 'own:latest'"
    talk_to = open_model("own")
    try:
        assert talk_to.system == "Kind."
        assert talk_to.settings.num_predict == 3
        from phikit.records.types import Turn

        ids = talk_to.render([Turn("system", "Kind."), Turn("user", "hi")])
        assert talk_to.engine.decode(ids) == "Kind.|hi|"
    finally:
        talk_to.engine.close()


@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty store, and a tiny GGUF beside it."""
    from tiny_gguf import write_tiny

    monkeypatch.setenv("PHIKIT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    write_tiny(tmp_path / "t.gguf")
    return tmp_path


def test_a_modelfile_goes_over_what_its_base_says(models):
    from phikit.serve.command import create, store

    (models / "Modelfile").write_text(
        "FROM ./t.gguf\nSYSTEM Kind.\nPARAMETER num_predict 3\nPARAMETER top_k 5\n"
    )
    create("own", models / "Modelfile")
    (models / "Modelfile").write_text("FROM own\nPARAMETER top_k 7\n")
    create("more", models / "Modelfile")
    parts = store().parts(store().find("more"))
    assert (parts.system, parts.parameters) == ("Kind.", {"num_predict": 3, "top_k": 7})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('TEMPLATE "{{ .Prompt"', "template error"),
        ("PARAMETER top_p 7", '"top_p" must be from 0 to 1'),
        ("ADAPTER ./a.gguf", "adapters are not supported"),
    ],
)
def test_a_modelfile_that_cannot_be_run_stores_nothing(models, line, why):
    from phikit.serve.command import create, store

    (models / "Modelfile").write_text(f"FROM ./t.gguf\n{line}\n")
    with pytest.raises(ValueError, match=why):
        create("own", models / "Modelfile")
    assert "own:latest" not in {str(e.name) for e in store().entries()}


def test_a_damaged_file_is_not_copied(models):
    from phikit.serve.command import create, store

    data = (models / "t.gguf").read_bytes()
    (models / "t.gguf").write_bytes(data[: len(data) // 2])
    (models / "Modelfile").write_text("FROM ./t.gguf\n")
    with pytest.raises(ValueError, match=r"t\.gguf"):
        create("own", models / "Modelfile")
    assert not any(p.stat().st_size == len(data) // 2 for p in store().blobs.folder.glob("*"))


def test_a_stored_model_that_cannot_be_run_says_why(models):
    from phikit.serve.chat import open_model
    from phikit.serve.command import create, store
    from phikit.store.manifest import Layer, Manifest
    from phikit.store.names import parse

    (models / "Modelfile").write_text("FROM ./t.gguf\n")
    create("own", models / "Modelfile")
    found = store()
    own = found.find("own").manifest
    projector = Layer("projector", *found.blobs.put([b"x"]))
    found.save(parse("sees"), Manifest(own.config, (*own.layers, projector)))
    with pytest.raises(ValueError, match="adapters and projectors are not supported"):
        open_model("sees")
    wild = found.text_layer("params", '{"top_p": 7}')
    found.save(parse("wild"), Manifest(own.config, (*own.layers, wild)))
    with pytest.raises(ValueError, match='wild: option "top_p" must be from 0 to 1'):
        open_model("wild")


def test_names_of_the_store_are_models_of_every_command(models):
    from phikit.engine.open import open_engine
    from phikit.recipe.model_paths import find as find_source
    from phikit.recipe.model_paths import shape_of
    from phikit.serve.command import create

    (models / "Modelfile").write_text("FROM ./t.gguf\n")
    create("team/Own", models / "Modelfile")
    source = find_source("team/own")
    assert source.is_gguf
    assert source.path.parent == models / "models" / "blobs"
    assert shape_of(source).vocab == 320
    engine = open_engine("torch:team/own:latest")
    try:
        assert engine.info.vocab == 320
    finally:
        engine.close()
    with pytest.raises(
        FileNotFoundError, match="no local model is named 'other'; known: smollm2, team/Own:latest"
    ):
        open_engine("other")
