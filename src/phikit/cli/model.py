"""`phikit chat | export | quantize`: what one does with a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phikit.cli.app import app, say


@app.command()
def chat(
    path: Annotated[
        str,
        typer.Argument(
            help="A model's name, a run folder, a Hugging Face folder, a .gguf, or http://host/v1#model."
        ),
    ],
) -> None:
    """Talk to a model."""
    from phikit.serve.chat import chat as talk

    talk(path)


@app.command()
def export(
    source: Annotated[
        str, typer.Argument(help="A run, a stage's folder, a Hugging Face folder or a .gguf file.")
    ],
    out: Annotated[
        Path | None, typer.Argument(help="What to make: a folder, or a .gguf file with --to gguf.")
    ] = None,
    to: Annotated[str, typer.Option(help="hf, gguf or ollama; without it a run's export is copied.")] = "",
    type: Annotated[
        str, typer.Option(help="GGUF: F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0; hf: fp32, bf16.")
    ] = "",
) -> None:
    """A model for other tools: transformers and vLLM (hf), llama.cpp (gguf), Ollama."""
    if to:
        from phikit.recipe.weights import export as write

        lines = write(source, to, out, type)
    else:
        from phikit.recipe.show import copy_export

        if out is None:
            raise ValueError("name the folder to copy to, or a form: --to hf, gguf or ollama")
        lines = copy_export(Path(source), out)
    for line in lines:
        say(line)


@app.command()
def quantize(
    source: Annotated[
        str, typer.Argument(help="A Hugging Face folder, a run or stage, or an f32/f16/bf16 .gguf.")
    ],
    out: Annotated[Path, typer.Option(help="The .gguf file to write.")],
    type: Annotated[str, typer.Option(help="Q8_0, Q6_K, Q5_K_M, Q4_K_M or Q4_0.")] = "Q4_K_M",
    text: Annotated[
        Path | None, typer.Option(help="A text to compare on; without it a built-in one.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens to compare on; 0: do not compare.")] = 2048,
    threads: Annotated[int | None, typer.Option(help="Without it the number of cores.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object only.")] = False,
) -> None:
    """Quantize a model for llama.cpp, and say what that changed: KL, perplexity, top token, size."""
    import json as json_module

    from phikit.recipe.weights import quantize as write
    from phikit.recipe.weights import show_quantized

    content = text.read_text(encoding="utf-8") if text else None
    quiet = lambda line: None
    row = write(source, type, out, text=content, tokens=tokens, threads=threads, say=quiet if json else say)
    for line in [json_module.dumps(row)] if json else show_quantized(row):
        say(line)
