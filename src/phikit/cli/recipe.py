"""`phikit run | plan | show | trace | study | recipe`: recipes and their runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phikit.cli.app import On, OutFolder, RecipeName, RunFolder, Scale, Settings, app, group, say

recipe_app = group("recipe", "Look at a recipe.", no_args_is_help=True)


@app.command()
def run(
    recipe: RecipeName = "phi4",
    scale: Scale = "",
    out: OutFolder = None,
    only: Annotated[str, typer.Option(help="Run this stage alone, on the inputs that are there.")] = "",
    start: Annotated[str, typer.Option("--from", help="Recompute from this stage on.")] = "",
    seed: Annotated[int | None, typer.Option(help="The recipe's seed.")] = None,
    on: On = "local",
    settings: Settings = [],  # noqa: B006
) -> None:
    """Run a recipe; finished stages are skipped, and a killed run goes on where it was."""
    from phikit.recipe.load import load
    from phikit.recipe.run import run as run_recipe

    loaded = load(recipe, scale=scale or None, settings=settings, seed=seed)
    folder = out or loaded.folder
    code = run_recipe(loaded, folder, only=only or None, start=start or None, on=on, say=say)
    if (folder / "report.html").is_file():
        say(f"report: {folder / 'report.html'}")
    raise typer.Exit(code)


@app.command()
def plan(
    recipe: RecipeName = "phi4",
    scale: Scale = "",
    out: OutFolder = None,
    gpus: Annotated[
        int, typer.Option(help="Plan one stage on so many GPUs, from the real sharded network.")
    ] = 0,
    device: Annotated[str, typer.Option(help="With --gpus: h100.")] = "h100",
    stage: Annotated[str, typer.Option(help="With --gpus: pretrain, midtrain or sft.")] = "pretrain",
    mfu: Annotated[
        float, typer.Option(help="With --gpus: days and cost at this MFU too, such as 0.4.")
    ] = 0.0,
    sweep: Annotated[
        Path | None,
        typer.Option(
            help="With --gpus: its cost over tokens, length and GPUs as a table, and as a page here."
        ),
    ] = None,
    settings: Settings = [],  # noqa: B006
) -> None:
    """What a run will cost, before any compute: tokens, parameters, FLOPs, memory, disk, what is cached."""
    from phikit.recipe.load import load
    from phikit.recipe.plan_show import print_plan, say_lines

    loaded = load(recipe, scale=scale or None, settings=settings)
    if sweep is not None:
        from phikit.recipe.plan_sweep import print_sweep

        print_sweep(loaded, stage, gpus, device, sweep)
        return
    if gpus:
        from phikit.recipe.cluster import cluster_lines, plan_cluster

        made = plan_cluster(loaded, stage, gpus, device)
        say_lines(cluster_lines(made, mfu))
        raise typer.Exit(0 if made.fits else 1)
    raise typer.Exit(print_plan(loaded, out or loaded.folder))


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="A run's folder, such as runs/nano, or a model of the store.")],
    modelfile: Annotated[bool, typer.Option("--modelfile", help="Of a model: its Modelfile alone.")] = False,
) -> None:
    """Stages, counts and scores of a run; details of a stored model."""
    if Path(what).exists():
        from phikit.recipe.show import print_run

        print_run(Path(what))
        return
    from phikit.serve.command import show_model

    for line in show_model(what, modelfile=modelfile):
        say(line)


@app.command()
def trace(
    run: RunFolder,
    what: Annotated[
        str,
        typer.Argument(
            help="A pair's id or its first digits, an index, or judged:INDEX; a token: SOURCE@INDEX of a shard."
        ),
    ],
) -> None:
    """Go from a preference pair, or a token that was trained on, back to its sources."""
    from phikit.recipe.show import print_token, print_trace

    (print_token if "@" in what else print_trace)(run, what)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="nano-seeds, unknowns, ...; see docs/studies.md.")],
) -> None:
    """Run a study: several runs of a recipe, compared."""
    from phikit.recipe import studies

    raise typer.Exit(studies.study(name))


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
