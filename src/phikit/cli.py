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
def study(name: Annotated[str, typer.Argument(help="nano-seeds: the nano run over five seeds.")]) -> None:
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
    run: RunFolder,
    to: Annotated[Path, typer.Argument(help="The folder to make; must not exist or be empty.")],
) -> None:
    """Copy a run's exported model (Hugging Face folder, GGUF) to a folder of your own."""
    from phikit.recipe.show import copy_export

    for line in copy_export(run, to):
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
