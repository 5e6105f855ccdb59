"""`phikit synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phikit.cli.app import group, say

synth_app = group("synth", "Synthetic data: the flows of the report on anybody's documents.")


@synth_app.command("list")
def list_sets(
    scale: Annotated[str, typer.Option(help="Of the quotas: nano, mini or phi4.")] = "phi4",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """The data set types: flow, seed source, prompts, validator, quota."""
    from phikit.recipe.scales import check_scale
    from phikit.synth.catalogue import DATA_SETS
    from phikit.synth.listing import lines

    rows = [s.row(check_scale(scale)) for s in DATA_SETS.values()]
    for line in lines(rows, as_json=as_json):
        say(line)


@synth_app.command("run")
def run_flow(
    name: Annotated[str, typer.Argument(help="A flow or a data set type: see `phikit synth list`.")],
    out: Annotated[Path, typer.Option(help="The folder to write; a killed run goes on there.")],
    seeds: Annotated[
        str, typer.Option(help="A file or folder of yours, `local` (this machine's documents) or `identity`.")
    ] = "",
    teacher: Annotated[
        list[str],
        typer.Option(
            help="smollm2, a .gguf, a checkpoint, vllm:FOLDER, http://host/v1#model; ROLE=... (solver, critic, judge)."
        ),
    ] = ["smollm2"],  # noqa: B006
    budget: Annotated[str, typer.Option(help="Tokens of this folder, such as 500K; 0: no bound.")] = "500K",
    limit: Annotated[int, typer.Option(help="Most seeds.")] = 100,
    rows: Annotated[int, typer.Option(help="Stop at so many accepted rows; 0: all seeds.")] = 0,
    option: Annotated[list[str], typer.Option(help="An option of the flow: words=80. Repeatable.")] = [],  # noqa: B006
    language: Annotated[str, typer.Option(help="A language of the 40, or `all`.")] = "",
    domain: Annotated[str, typer.Option(help="The subject, for the prompts.")] = "",
    against: Annotated[
        Path | None, typer.Option(help="JSONL of evaluation items that no row may hold.")
    ] = None,
    harmful: Annotated[bool | None, typer.Option(help="Safety: whether the prompts are harmful.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice and order of seeds.")] = 0,
    parallel: Annotated[int, typer.Option(help="Requests at once of each engine; for vllm: 64 or more.")] = 4,
    context: Annotated[
        int | None, typer.Option(help="GGUF, vllm: tokens of context; default: the model's own.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="GGUF: threads; default: all cores.")] = None,
    on: Annotated[
        str,
        typer.Option(
            help="Where engines run: local, ray (one of this machine's own), or a Ray cluster's address."
        ),
    ] = "local",
    replicas: Annotated[
        int, typer.Option(help="On Ray: engines; 0: one for each GPU, without one for each 4 CPUs.")
    ] = 0,
    gpus: Annotated[int, typer.Option(help="vllm: GPUs of one engine (tensor parallel).")] = 1,
    concurrency: Annotated[int, typer.Option(help="Endpoint: most requests at once; less on overload.")] = 16,
    stream: Annotated[bool, typer.Option("--stream", help="Endpoint: hang up on answers that loop.")] = False,
) -> None:
    """Run one flow on your own documents; JSONL and Parquet rows in chat format, with provenance and a data card."""
    from phikit.recipe.units import count
    from phikit.report.data_card import write_card
    from phikit.synth.command import run

    settings: dict[str, str] = {}
    for o in option:
        key, _, value = o.partition("=")
        settings[key] = value
    run(
        name, seeds, teacher, out, budget=count(budget) or None, limit=limit, rows=rows or None, settings=settings,
        language=language, domain=domain, against=against, seed=seed, parallel=parallel, harmful=harmful, stream=stream,
        concurrency=concurrency, context=context, threads=threads, on=on, replicas=replicas, gpus=gpus, say=say,
    )  # fmt: skip
    write_card(out)


@synth_app.command("card")
def card(folder: Annotated[Path, typer.Argument(help="A folder of `phikit synth run`.")]) -> None:
    """Write the data card page of a folder again."""
    from phikit.report.data_card import write_card

    say(str(write_card(folder)))
