"""The command line. Commands import what they need when they run: `phikit --help` imports neither torch nor
pydantic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

# Plain help: rich would double the time of --help.
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="The whole Phi-4 recipe: data, pretraining, midtraining, SFT, pivotal tokens, DPO, evaluation.",
)
recipe_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at a recipe.")
app.add_typer(recipe_app, name="recipe")
pts_app = typer.Typer(
    invoke_without_command=True, rich_markup_mode=None, help="Pivotal Token Search: pairs from any model."
)
app.add_typer(pts_app, name="pts")

RecipeName = Annotated[str, typer.Argument(help="A recipe file, or `phi4`.")]
Scale = Annotated[str, typer.Option(help="nano, mini or phi4; without it the recipe's own, else nano.")]
Settings = Annotated[
    list[str], typer.Option("--set", help="Override a key: --set pretrain.lr=1e-3. Repeatable.")
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a run, such as runs/nano.")]
OutFolder = Annotated[Path | None, typer.Option(help="Where to write; without it runs/SCALE.")]


@app.command()
def run(
    recipe: RecipeName = "phi4",
    scale: Scale = "",
    out: OutFolder = None,
    only: Annotated[str, typer.Option(help="Run this stage alone, on the inputs that are there.")] = "",
    start: Annotated[str, typer.Option("--from", help="Recompute from this stage on.")] = "",
    seed: Annotated[int | None, typer.Option(help="The recipe's seed.")] = None,
    settings: Settings = [],  # noqa: B006
) -> None:
    """Run a recipe; finished stages are skipped, and a killed run goes on where it was."""
    from phikit.recipe.load import load
    from phikit.recipe.run import run as run_recipe

    loaded = load(recipe, scale=scale or None, settings=settings, seed=seed)
    folder = out or Path("runs") / loaded.scale
    code = run_recipe(loaded, folder, only=only or None, start=start or None, say=_say)
    if (folder / "report.html").is_file():
        _say(f"report: {folder / 'report.html'}")
    raise typer.Exit(code)


@app.command()
def plan(
    recipe: RecipeName = "phi4",
    scale: Scale = "",
    out: OutFolder = None,
    settings: Settings = [],  # noqa: B006
) -> None:
    """What a run will cost, before any compute: tokens, parameters, FLOPs, memory, disk, what is cached."""
    from phikit.recipe.load import load
    from phikit.recipe.show import print_plan

    loaded = load(recipe, scale=scale or None, settings=settings)
    raise typer.Exit(print_plan(loaded, out or Path("runs") / loaded.scale))


@app.command()
def show(run: RunFolder) -> None:
    """Stages, counts and scores of a run."""
    from phikit.recipe.show import print_run

    print_run(run)


@app.command()
def trace(
    run: RunFolder,
    pair: Annotated[str, typer.Argument(help="A pair's id or its first digits, an index, or judged:INDEX.")],
) -> None:
    """Go from a preference pair back to its question, rollouts and sources."""
    from phikit.recipe.show import print_trace

    print_trace(run, pair)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="nano-seeds, unknowns, ...; see docs/studies.md.")],
) -> None:
    """Run a study: several runs of a recipe, compared."""
    from phikit.recipe import studies

    raise typer.Exit(studies.study(name))


@app.command()
def chat(
    path: Annotated[
        str, typer.Argument(help="A run folder, a Hugging Face folder, a .gguf, smollm2, or a URL.")
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
        _say(line)


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
    row = write(source, type, out, text=content, tokens=tokens, threads=threads, say=quiet if json else _say)
    for line in [json_module.dumps(row)] if json else show_quantized(row):
        _say(line)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A benchmark; without it they are listed.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the result line only.")] = False,
) -> None:
    """List the benchmarks, or run one. Further options go to the benchmark."""
    from phikit.recipe.bench import benchmarks, run_benchmark

    if not name:
        for script, what in benchmarks().items():
            _say(f"{script:<16} {what}")
        return
    raise typer.Exit(run_benchmark(name, context.args, only_json=json))


@pts_app.callback()
def pts(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Option(help="A checkpoint or Hugging Face folder, a .gguf, smollm2, or http://host/v1#model."),
    ] = "",
    questions: Annotated[
        Path | None, typer.Option(help="JSONL or Parquet: question, answer, kind; GSM8K and MBPP rows too.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; a killed search goes on there.")
    ] = None,
    kind: Annotated[str, typer.Option(help="math, choice, text or code, for rows that name none.")] = "",
    gap: Annotated[
        float, typer.Option(help="Smallest change of p(success) that makes a token pivotal.")
    ] = 0.2,
    error: Annotated[
        float, typer.Option(help="Share of what is listed that may change p by less than 3/4 gap.")
    ] = 0.05,
    certified: Annotated[
        bool, typer.Option("--certified", help="List only what e-BH certifies, for any model: more rollouts.")
    ] = False,
    budget: Annotated[
        str, typer.Option(help="Tokens, generated and prefilled, such as 5M; 0: no bound.")
    ] = "5M",
    limit: Annotated[int, typer.Option(help="Take only so many questions; 0: all.")] = 0,
    trajectories: Annotated[int, typer.Option(help="Answers searched per question.")] = 2,
    rollouts: Annotated[int, typer.Option(help="Most rollouts on each side of one decision.")] = 96,
    temperature: Annotated[float, typer.Option(help="Of the sampled answers.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Of the sampled answers.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 512,
    stop: Annotated[list[str], typer.Option(help="A string that closes an answer. Repeatable.")] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Seed of the rollouts.")] = 0,
    parallel: Annotated[int, typer.Option(help="GGUF: samples at once.")] = 4,
) -> None:
    """Find the tokens that decide whether an answer comes out right, and make preference pairs of them."""
    if context.invoked_subcommand is not None:
        return
    from phikit.preference.command import pts as run_pts

    if not model or questions is None or out is None:
        raise ValueError("give --model, --questions and --out")
    run_pts(
        model, questions, out, kind=kind, gap=gap, error=error, certified=certified, budget=budget, limit=limit,
        trajectories=trajectories, rollouts=rollouts, temperature=temperature, top_p=top_p, max_tokens=max_tokens,
        stop=stop, seed=seed, parallel=parallel, say=_say,
    )  # fmt: skip


@recipe_app.command("schema")
def recipe_schema() -> None:
    """The JSON schema of recipe files, for editors."""
    import json as json_module

    from phikit.recipe.schema import json_schema

    print(json_module.dumps(json_schema(), indent=1))


@recipe_app.command("keys")
def recipe_keys(recipe: RecipeName = "phi4", scale: Scale = "", settings: Settings = []) -> None:  # noqa: B006
    """Every key of a recipe with its value at a scale, defaults included."""
    from phikit.recipe.load import load
    from phikit.recipe.show import print_keys

    print_keys(load(recipe, scale=scale or None, settings=settings))


def main() -> None:
    """Runs a command. A ValueError or OSError is a message for people, without a traceback."""
    try:
        app()
    except (ValueError, OSError) as e:
        if isinstance(e, BrokenPipeError):
            # The reader (head, less) has gone; nothing is left to say, and Python must not try to flush.
            sys.stderr.close()
            sys.exit(1)
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)


def _say(line: str) -> None:
    print(line, flush=True)
