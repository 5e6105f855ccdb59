"""`phikit synth run`: one flow or data set on a person's own documents, from seeds to chat rows.

Seeds are worked in blocks; a block's results are a folder written as a whole, so a killed run goes on at the block it
was in, and inside that the request log makes what was answered free. When all blocks are there the rows are checked
against each other and against evaluation items, and written once in the form SFT tools read.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from phikit.ask.backends import Pace
from phikit.ask.budget import Budget
from phikit.ask.cast import open_cast
from phikit.corpus.references import read_references
from phikit.jobs.progress import bar
from phikit.jobs.run import LOCAL
from phikit.records import Document
from phikit.records.ids import fingerprint, seed_of
from phikit.records.io import read_json, read_jsonl, write_json, write_jsonl, write_parquet
from phikit.synth import catalogue, quality
from phikit.synth.flows import FLOWS, SEEDS, Flow
from phikit.synth.flows.base import PROMPTS
from phikit.synth.languages import LANGUAGES
from phikit.synth.run import NOT_RUN, run_flows
from phikit.synth.sources import read_seeds

BLOCK = 64
LISTS = ("documents", "dialogs", "rejected", "steps")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: a flow with its options, on which seeds."""

    name: str
    flow: str
    options: dict[str, Any]
    language: str


def plan(name: str, settings: Mapping[str, str], language: str = "", domain: str = "") -> Plan:
    """A flow's name or a data set's, with options over its own. Raises ValueError for a name, an option or a value that
    the flow does not know."""
    known = catalogue.find(name) if name not in FLOWS else None
    flow = known.flow if known else name
    options = dict(known.options) if known else {}
    language = language or (known.language if known else "English")
    domain = domain or (known.domain if known else "")
    allowed = inspect.signature(FLOWS[flow]).parameters
    for key, value in settings.items():
        options[key] = _value(flow, key, value, allowed)
    if domain and "domain" in allowed:
        options["domain"] = domain
    if language not in LANGUAGES and language != catalogue.EVERY:
        raise ValueError(f"--language {language}: known are {catalogue.EVERY}, {', '.join(LANGUAGES)}")
    if language != "English" and "language" not in allowed:
        raise ValueError(f"--language {language}: the flow {flow} is for English")
    return Plan(name, flow, options, language)


def run(
    name: str,
    seeds: str,
    teachers: Sequence[str],
    out: Path,
    *,
    budget: int | None = None,
    limit: int = 100,
    rows: int | None = None,
    settings: Mapping[str, str] | None = None,
    language: str = "",
    domain: str = "",
    against: Path | None = None,
    seed: int = 0,
    parallel: int = 4,
    harmful: bool | None = None,
    stream: bool = False,
    concurrency: int = 16,
    context: int | None = None,
    threads: int | None = None,
    on: str = LOCAL,
    replicas: int = 0,
    gpus: int = 1,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Runs to the end of the seeds, `rows` accepted rows, or the budget (tokens of this folder, all runs together),
    and writes the folder's files; returns its manifest. Raises ValueError with messages for people."""
    what = plan(name, settings or {}, language, domain)
    given = read_seeds(seeds, SEEDS[what.flow], limit, seed=seed, harmful=harmful)
    job = {
        "flow": what.flow, "options": what.options, "language": what.language, "teachers": list(teachers),
        "prompts": fingerprint(sorted(p.read_text("utf-8") for p in PROMPTS.glob("*.md"))), "seed": seed,
    }  # fmt: skip
    blocks = [given[i : i + BLOCK] for i in range(0, len(given), BLOCK)]
    folders: list[Path] = []
    spent_out = False
    with open_cast(
        teachers, log=out / "requests", budget=Budget(tokens=budget), whole=True, parallel=parallel, context=context,
        threads=threads, pace=Pace(concurrency=concurrency, stream=stream), on=on, replicas=replicas, gpus=gpus,
    ) as cast, bar(what.name, total=len(given), unit="seeds") as progress:  # fmt: skip
        accepted = 0
        width = parallel * cast.engines if cast.holds else 2 * concurrency
        for number, block in enumerate(blocks):
            key = fingerprint({**job, "seeds": [d.id for d in block]})
            folder = out / "blocks" / f"{number:05d}"
            folders.append(folder)
            counts = _finished(folder, key)
            if counts is None:
                flow = flow_of(what)
                counts = run_flows(
                    {what.name: flow},
                    {what.name: block},
                    cast,
                    out=folder,
                    concurrency=width,
                    progress=progress,
                )[what.name]
                write_json(
                    folder / "seeds.json", {d.id: {"text": d.text, "meta": dict(d.meta)} for d in block}
                )
                whole = not any(r == NOT_RUN or r == "teacher: error" for r in counts["rejected"])
                write_json(folder / "counts.json", {"key": key if whole else "", "counts": counts})
            else:
                progress.advance(len(block), kept="from before")
            accepted += counts["accepted"]
            spent_out = NOT_RUN in counts["rejected"]
            if spent_out or (rows is not None and accepted >= rows):
                break
        spent = cast.counts()
        models = {role: t.model for role, t in cast.teachers.items()}
    manifest = _finish(what, folders, out, rows, against, models)
    manifest |= {"job": job, "seeds": seeds, "tokens": int(spent.get("tokens", 0)), "budget": budget}
    manifest["money"] = spent.get("money", 0.0)
    write_json(out / "manifest.json", manifest)
    _tell(manifest, out, spent_out, say)
    return manifest


def flow_of(what: Plan) -> Flow:
    """The flow with its options; a language of each seed's own where all are wanted."""
    flow = FLOWS[what.flow]
    if what.language == "English":
        return partial(flow, **what.options)
    if what.language != catalogue.EVERY:
        return partial(flow, **what.options, language=what.language)

    async def in_its_language(seed: Document, ask: Any) -> Any:
        language = list(LANGUAGES)[seed_of(seed.id, "language") % len(LANGUAGES)]
        return await flow(seed, ask, **what.options, language=language)

    return in_its_language


def _finished(folder: Path, key: str) -> dict[str, Any] | None:
    """The counts of a block that an earlier run finished with the same flow, options, prompts and seeds."""
    if not (folder / "counts.json").is_file():
        return None
    value = read_json(folder / "counts.json")
    return value["counts"] if value["key"] == key else None


def _finish(
    what: Plan,
    folders: Sequence[Path],
    out: Path,
    rows: int | None,
    against: Path | None,
    models: Mapping[str, str],
) -> dict[str, Any]:
    """Checks the rows of all blocks together and writes rows, documents, rejected, quality and counts."""
    sources: dict[str, Any] = {}
    counts: dict[str, Any] = {"seeds": 0, "accepted": 0, "requests": 0, "replayed": 0}
    reasons: Counter[str] = Counter()
    for folder in folders:
        sources |= read_json(folder / "seeds.json")
        part = read_json(folder / "counts.json")["counts"]
        for k in ("seeds", "requests", "replayed"):
            counts[k] += part[k]
        reasons.update(part["rejected"])
    made = [_row(r, what, sources, models) for name in LISTS[:2] for r in _read(folders, name)]
    rejected = list(_read(folders, "rejected"))
    texts = [r["own"] for r in made]
    twins = quality.near_duplicates(texts)
    items = quality.contaminated(
        [r["whole"] for r in made], list(read_references(against)) if against else []
    )
    kept = []
    for row, twin, item in zip(made, twins, items, strict=True):
        reason = "near duplicate" if twin is not None else "contaminated" if item else ""
        if not reason and rows is not None and len(kept) >= rows:
            reason = "more than was asked for"
        if reason:
            detail = item or (made[twin]["id"] if twin is not None else "")
            rejected.append(
                {"flow": what.name, "seed": row["seed"]["id"], "reason": reason, "detail": detail}
            )
            reasons[reason] += 1
        else:
            kept.append(row)
    counts |= {"accepted": len(kept), "rejected": dict(sorted(reasons.items()))}
    measured = {
        "diversity": quality.diversity([r["own"] for r in kept]),
        "histograms": quality.histograms(kept),
    }
    for file, wanted in (("rows", "messages"), ("documents", "text")):
        chosen = [{k: v for k, v in r.items() if k not in ("own", "whole")} for r in kept if wanted in r]
        for path in (out / f"{file}.jsonl", out / f"{file}.parquet"):
            path.unlink(missing_ok=True)
        if chosen:
            write_jsonl(out / f"{file}.jsonl", chosen)
            # One type a column: what differs from row to row is JSON text.
            flat = [
                {k: json.dumps(v, ensure_ascii=False) if k in ("meta", "seed") else v for k, v in r.items()}
                for r in chosen
            ]
            write_parquet(out / f"{file}.parquet", flat)
    write_jsonl(out / "rejected.jsonl", rejected)
    write_jsonl(out / "steps.jsonl.zst", _read(folders, "steps"))
    write_json(out / "quality.json", measured)
    return {"name": what.name, "counts": counts, "models": dict(models), "quality": measured}


def _read(folders: Sequence[Path], name: str) -> Iterator[dict[str, Any]]:
    for folder in folders:
        yield from read_jsonl(folder / f"{name}.jsonl.zst")


def _row(
    record: Mapping[str, Any], what: Plan, sources: Mapping[str, Any], models: Mapping[str, str]
) -> dict[str, Any]:
    """A record as a chat or text row with its provenance. `own`: what the teacher wrote; `whole`: all of the text."""
    meta = dict(record["meta"])
    prompts, requests = meta.pop("prompts", {}), meta.pop("requests", [])
    parent = (record["parents"] or [""])[0]
    seed = sources.get(parent, {"text": "", "meta": {}})
    if "turns" in record:
        content: dict[str, Any] = {"messages": record["turns"]}
        own = "\n".join(t["content"] for t in record["turns"] if t["role"] == "assistant")
        whole = "\n".join(t["content"] for t in record["turns"])
    else:
        content = {"text": record["text"]}
        own = whole = record["text"]
    return {
        **content, "id": record["id"], "flow": what.flow, "data_set": what.name,
        "seed": {"id": parent, "path": seed["meta"].get("path", ""), "text": seed["text"]},
        "prompts": [f"{k}@{v}" for k, v in prompts.items()], "teachers": [f"{k}={v}" for k, v in models.items()],
        "requests": requests, "verdict": "accepted", "validator": catalogue.VALIDATORS[what.flow],
        "meta": meta, "own": own, "whole": whole,
    }  # fmt: skip


def _value(flow: str, key: str, value: str, allowed: Mapping[str, inspect.Parameter]) -> Any:
    if key not in allowed or key in ("seed", "ask"):
        names = ", ".join(k for k in allowed if k not in ("seed", "ask"))
        raise ValueError(f"--option {key}: the flow {flow} has the options {names}")
    default = allowed[key].default
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[value.lower()]
        return type(default)(value) if isinstance(default, (int, float, str)) else value
    except (KeyError, ValueError):
        raise ValueError(
            f"--option {key}={value}: expected a {type(default).__name__} such as {default}"
        ) from None


def _tell(manifest: Mapping[str, Any], out: Path, spent_out: bool, say: Callable[[str], None]) -> None:
    counts = manifest["counts"]
    say(f"{counts['accepted']:,} rows from {counts['seeds']:,} seeds; {manifest['tokens']:,} tokens")
    for label, n, share in quality.accept_table(counts):
        say(f"  {n:>7,}  {share:>6.1%}  {label}")
    say("one seed may give several rows or be rejected for several reasons; shares are of the seeds")
    if spent_out:
        say("ended early: the budget is spent; the same command with a larger --budget goes on")
    say(f"rows: {out / 'rows.jsonl'}; card: {out / 'card.html'}")
