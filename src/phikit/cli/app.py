"""The Typer app, the arguments that several commands share, and how they speak."""

from __future__ import annotations

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

RecipeName = Annotated[str, typer.Argument(help="A recipe file, `phi4` or `own-model`.")]
Scale = Annotated[str, typer.Option(help="nano, mini or phi4; without it the recipe's own, else nano.")]
Settings = Annotated[
    list[str], typer.Option("--set", help="Override a key: --set pretrain.lr=1e-3. Repeatable.")
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a run, such as runs/nano.")]
OutFolder = Annotated[
    Path | None,
    typer.Option(help="Where to write; without it runs/SCALE, or runs/NAME of the recipe with `init`."),
]
On = Annotated[
    str,
    typer.Option(
        help="Where tasks run: local, ray, an address of a Ray cluster; plan: write the plan, run none."
    ),
]


def group(name: str, help: str, **options) -> typer.Typer:
    """A command that has commands of its own, such as `phikit recipe keys`."""
    sub = typer.Typer(rich_markup_mode=None, help=help, **options)
    app.add_typer(sub, name=name)
    return sub


def say(line: str) -> None:
    print(line, flush=True)
