"""VllmEngine on a real vLLM, computing on the CPU, against TorchEngine: the same greedy tokens, log-probabilities and
scores. It needs a vLLM in a virtual environment of its own (docs/engine.md says how), and is skipped without."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from tiny_hf import write_tiny_hf

from phikit.ask.grammar import schema_grammar
from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.torch_engine import TorchEngine
from phikit.model.config import ModelConfig

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".bench" / "vllm"
SOURCE = next(iter(HOME.glob("lib/python*/site-packages/vllm")), None)
pytestmark = pytest.mark.skipif(SOURCE is None, reason="no vLLM in .bench/vllm: see docs/engine.md")

PROMPT = tuple(range(20, 160))
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "minimum": 1, "maximum": 3}},
    "required": ["ok", "n"],
}
DRIVER = """
import dataclasses, json, sys
from pathlib import Path
from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.vllm_engine import VllmEngine

def main():
    folder, asked = Path(sys.argv[1]), json.loads(sys.argv[2])
    engine = VllmEngine(
        folder, dtype="float32", enforce_eager=True, kv_cache_memory_bytes=64 << 20, max_num_seqs=16, block_size=32
    )
    calls = [[GenRequest(**r) for r in call] for call in asked["calls"]]
    found = [[[dataclasses.asdict(c) for c in cs] for _, cs in engine.generate(call)] for call in calls]
    scores = engine.score([ScoreRequest(**r) for r in asked["scores"]])
    print(json.dumps({
        "info": dataclasses.asdict(engine.info), "calls": found, "usage": dataclasses.asdict(engine.usage),
        "scores": [dataclasses.asdict(s) for s in scores],
    }))
    engine.close()

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model")
    write_tiny_hf(path, ModelConfig(320, 128, 2, 4, 2, 256, 512), gain=4.0)
    return path


def requests() -> list[list[dict]]:
    greedy = {
        "prompt": PROMPT,
        "max_tokens": 24,
        "temperature": 0.0,
        "top_logprobs": 3,
        "prompt_logprobs": True,
    }
    drawn = {"prompt": PROMPT, "max_tokens": 24, "n": 4, "temperature": 0.8, "seed": 5}
    end = 300  # replaced by the tokenizer's end
    grammar = {"prompt": PROMPT, "max_tokens": 60, "grammar": schema_grammar(SCHEMA), "stop_ids": (end,)}
    schema = {
        "prompt": PROMPT,
        "max_tokens": 60,
        "json_schema": json.dumps(SCHEMA),
        "stop_ids": (end,),
        "seed": 2,
    }
    return [[greedy, drawn], [drawn | {"n": 2}], [grammar, schema]]


@pytest.mark.slow
def test_greedy_tokens_logprobs_scores_seeds_stops_and_forms(folder):
    here = TorchEngine.from_folder(folder)
    calls = requests()
    for r in calls[2]:
        r["stop_ids"] = here.stop_ids
    ((_, (best,)),) = here.generate([GenRequest(PROMPT, 24, temperature=0.0)])
    at = next(i for i in range(4, 24) if best.tokens[i] not in best.tokens[:i])
    stop_id = {"prompt": PROMPT, "max_tokens": 24, "temperature": 0.0, "stop_ids": (best.tokens[at],)}
    # vLLM decodes from the prompt on: after half a character it would read the first bytes of an answer otherwise.
    spelled = (*PROMPT, *here.encode(" the cat sat on the mat"))
    ((_, (free,)),) = here.generate([GenRequest(spelled, 60, temperature=0.0)])
    letter = next(
        i for i, x in enumerate(free.text) if i > 3 and x.isascii() and x.isalnum() and x not in free.text[:i]
    )
    stop = {"prompt": spelled, "max_tokens": 60, "temperature": 0.0, "stop": (free.text[letter],)}
    calls.append([stop_id, stop])
    scores = [
        {"context": PROMPT[:50], "continuation": PROMPT[50:60]},
        {"context": PROMPT, "continuation": best.tokens[:5]},
    ]
    found = _real(folder, {"calls": calls, "scores": scores})

    assert found["info"]["numerics"] == "vllm:float32"
    assert (found["info"]["context"], found["info"]["vocab"]) == (512, 320)
    greedy, drawn = found["calls"][0]
    ((_, (ours,)),) = here.generate([GenRequest(**calls[0][0])])
    assert tuple(greedy[0]["tokens"]) == ours.tokens
    assert greedy[0]["text"] == ours.text
    assert greedy[0]["logprobs"] == pytest.approx(ours.logprobs, abs=1e-3)
    assert greedy[0]["prompt_logprobs"] == pytest.approx(ours.prompt_logprobs, abs=1e-3)
    assert [[t for t, _ in row] for row in greedy[0]["top"]] == [[t for t, _ in row] for row in ours.top]
    assert len({tuple(c["tokens"]) for c in drawn}) == 4
    for c in drawn:  # what was drawn has the log-probabilities of the model at temperature 1
        values, _ = here.score_tokens([ScoreRequest(PROMPT, tuple(c["tokens"]))])[0]
        assert c["logprobs"] == pytest.approx(values.tolist(), abs=1e-3)
    assert [c["tokens"] for c in found["calls"][1][0]] == [c["tokens"] for c in drawn[:2]]
    for (c,) in found["calls"][2]:
        value = json.loads(c["text"])
        assert isinstance(value["ok"], bool)
        assert value["n"] in (1, 2, 3)
        assert c["finish"] == "stop"
    (by_id,), (by_text,) = found["calls"][3]
    assert tuple(by_id["tokens"]) == best.tokens[: at + 1]
    assert by_text["text"] == free.text[:letter]
    assert by_id["finish"] == by_text["finish"] == "stop"
    for a, b in zip(found["scores"], here.score([ScoreRequest(**s) for s in scores])):
        assert a["logprob"] == pytest.approx(b.logprob, abs=1e-2)
        assert (a["greedy"], a["tokens"]) == (b.greedy, b.tokens)
    asked = sum(len(r["prompt"]) * r.get("n", 1) for call in calls for r in call)
    assert found["usage"]["prefilled"] < asked / 2  # prefixes were kept


def _real(folder: Path, asked: dict) -> dict:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [HOME / "bin" / "python", "-c", DRIVER, folder, json.dumps(asked)],
        env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def _fields(file: str, name: str) -> set[str]:
    assert SOURCE is not None
    tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
    found = next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name)
    return {
        n.target.id for n in found.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }


def _arguments(file: str, name: str, method: str) -> set[str]:
    assert SOURCE is not None
    tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
    owner = next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name)
    found = next(n for n in owner.body if isinstance(n, ast.FunctionDef) and n.name == method)
    return {a.arg for a in (*found.args.args, *found.args.kwonlyargs)}


def test_the_stand_in_has_no_argument_that_vllm_has_not(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests" / "unit" / "stand_in")
    import vllm  # pyright: ignore[reportMissingImports]

    try:
        for name, file in (
            ("SamplingParams", "sampling_params.py"), ("StructuredOutputsParams", "sampling_params.py"),
            ("TokensPrompt", "inputs/llm.py"), ("Logprob", "logprobs.py"), ("CompletionOutput", "outputs.py"),
        ):  # fmt: skip
            assert set(getattr(vllm, name).__annotations__) <= _fields(file, name)
        assert set(vllm.RequestOutput.__annotations__) <= _arguments(
            "outputs.py", "RequestOutput", "__init__"
        )
        opened = set(inspect.signature(vllm.LLM.__init__).parameters) - {"self"}
        known = _arguments("entrypoints/llm.py", "LLM", "__init__") | _fields(
            "engine/arg_utils.py", "EngineArgs"
        )
        assert opened <= known
        assert set(inspect.signature(vllm.LLM.generate).parameters) <= _arguments(
            "entrypoints/llm.py", "LLM", "generate"
        )
    finally:
        for name in [n for n in sys.modules if n.partition(".")[0] == "vllm"]:
            del sys.modules[name]
