"""Stage `export`: the last checkpoint as others run it: a Hugging Face folder, GGUF files, an Ollama
Modelfile.

Then the claim "it is the same model" is checked: llama.cpp has to tokenize held-out questions as we do and to
give the same greedy answers as our own engine.
"""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.engine.base import Engine
    from phikit.recipe.context import StageContext

NEEDS = ("questions|synth", "dpo2")
USES = ("init",)
ANSWER_TOKENS = 64
# A near-tie may fall either way in another order of sums; a wrong export agrees on nothing. Of the quantized types,
# which change the model, it is counted alone.
LEAST_AGREEMENT = 0.5


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes hf/, model-<type>.gguf and Modelfile into `ctx.out`; counts the prompts that agree with
    llama.cpp."""
    from phikit.engine.chat_files import load_tokenizer
    from phikit.engine.llama import LlamaEngine
    from phikit.engine.torch_engine import TorchEngine
    from phikit.model.gguf import save_gguf
    from phikit.model.hf_read import load_hf
    from phikit.recipe.training import save_model
    from phikit.records.io import read_jsonl, write_text
    from phikit.store.modelfile import modelfile

    config: Any = ctx.config
    source = ctx.file("dpo2", "hf/config.json").parent
    model, shape = load_hf(source)
    tokenizer = load_tokenizer(source)
    if config.hf == "fp32":
        shutil.copytree(source, ctx.out / "hf", dirs_exist_ok=True)
    else:
        save_model(ctx, model, tokenizer, ctx.out / "hf", dtype=config.hf)
    for ftype in config.gguf:
        name = f"{ctx.recipe.name} {ctx.recipe.scale}"
        save_gguf(model, tokenizer, ctx.out / f"model-{ftype}.gguf", ftype=ftype, name=name)
    if config.gguf:
        best = "f16" if "f16" in config.gguf else config.gguf[-1]
        # The format of other models is in their GGUF, where Ollama finds it.
        file = f"model-{best}.gguf"
        write_text(ctx.out / "Modelfile", modelfile(file) if tokenizer.format is None else f"FROM ./{file}\n")

    heldout = ("questions", "heldout/questions.jsonl"), ("synth", "heldout/arithmetic.jsonl")
    rows = read_jsonl(ctx.file(*heldout["questions" not in ctx.inputs]))
    questions = [str(r["question"]) for r in islice(rows, config.prompts)]
    ours = greedy(TorchEngine(model, tokenizer), questions)
    counts: dict[str, Any] = {"parameters": shape.parameters, "prompts": len(questions)}
    for ftype in config.gguf:
        path = ctx.out / f"model-{ftype}.gguf"
        engine = LlamaEngine(path, context=shape.context)
        try:
            theirs = greedy(engine, questions)
        finally:
            engine.close()
        least = LEAST_AGREEMENT if ftype in ("f32", "f16", "bf16") else 0.0
        counts[f"same_{ftype}"] = agreement(path, ours, theirs, least)
    return counts


def greedy(engine: Engine, questions: list[str]) -> list[tuple[list[int], tuple[int, ...]]]:
    """(prompt ids, answer ids) of each question."""
    from phikit.engine.base import GenRequest
    from phikit.records.types import Turn

    prompts = [engine.render([Turn("user", q)]) for q in questions]
    requests = [
        GenRequest(tuple(p), ANSWER_TOKENS, temperature=0.0, stop_ids=tuple(engine.stop_ids)) for p in prompts
    ]
    answers = {i: completions[0].tokens for i, completions in engine.generate(requests)}
    return [(p, answers[i]) for i, p in enumerate(prompts)]


def agreement(path: Path, ours: list, theirs: list, least: float = LEAST_AGREEMENT) -> int:
    """How many answers are equal, token by token. Raises ValueError where a prompt is tokenized otherwise or
    where a smaller share than `least` of the answers is equal."""
    if wrong := [i for i, (a, b) in enumerate(zip(ours, theirs)) if list(a[0]) != list(b[0])]:
        raise ValueError(
            f"{path}: llama.cpp tokenizes {len(wrong)} of {len(ours)} prompts otherwise than we do"
        )
    same = sum(tuple(a[1]) == tuple(b[1]) for a, b in zip(ours, theirs))
    if same < least * len(ours):
        raise ValueError(f"{path}: only {same} of {len(ours)} greedy answers are those of the checkpoint")
    return same
