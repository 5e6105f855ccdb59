"""What a run folder already holds: each stage's fingerprint, and whether an artifact with it is there.

A fingerprint covers the stage's own section, the recipe sections it reads, the seed, the fingerprints of its
inputs, its source files, the versions of the libraries they import, and the outside files it watches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phikit.recipe import sources
from phikit.recipe.model_paths import model_path
from phikit.recipe.schema import STAGES, Recipe, Section
from phikit.records import artifact
from phikit.records.ids import fingerprint
from phikit.records.remote import Remote, files_under, place


@dataclass(frozen=True)
class StageStatus:
    """`config` is what the manifest will hold; `reason` says in words why a stage is not cached."""

    name: str
    declared: sources.Declared
    inputs: tuple[str, ...]
    fingerprint: str
    config: Mapping[str, Any]
    cached: artifact.Artifact | None
    reason: str


def statuses(recipe: Recipe, out: Path, package: str = sources.STAGE_PACKAGE) -> list[StageStatus]:
    """The state of every stage of the recipe, in order. Raises ValueError on a recipe that cannot run."""
    done: dict[str, str] = {}
    result = []
    for name in recipe.stages:
        status = stage_status(recipe, name, out, done, package)
        done[name] = status.fingerprint
        result.append(status)
    return result


def stage_status(
    recipe: Recipe, name: str, out: Path, done: Mapping[str, str], package: str = sources.STAGE_PACKAGE
) -> StageStatus:
    """The state of one stage, given the fingerprints `done` of the stages before it."""
    declared = sources.declared(name, package)
    inputs = _inputs(recipe, name, declared, done)
    config = _config(recipe, name, declared, package)
    key = fingerprint({"stage": name, "config": config, "inputs": {n: done[n] for n in inputs}})
    found = artifact.load(out / name)
    reason = "not run yet"
    if found is not None:
        reason = _reason(found.manifest, key, config, {n: done[n] for n in inputs})
        if not reason and (missing := [f for f in found.manifest.files if not (found.path / f).is_file()]):
            reason = f"{missing[0]} is gone"
    elif artifact.WORK and (out / name / artifact.WORK / "fingerprint").exists():
        reason = "was stopped half-way"
    return StageStatus(name, declared, inputs, key, config, None if reason else found, reason)


def _inputs(
    recipe: Recipe, name: str, declared: sources.Declared, done: Mapping[str, str]
) -> tuple[str, ...]:
    if unknown := sorted(declared.stages - set(STAGES)):
        raise ValueError(f"stage {name} declares inputs that are no stages: {', '.join(unknown)}")
    chosen = set(declared.uses)
    for need in declared.needs:
        options = need.split("|")
        found = next((n for n in options if n in done), None)
        if found is None:
            wanted = next((n for n in options if n in recipe.stages), options[-1])
            where = "after it" if wanted in recipe.stages else "not at all"
            raise ValueError(
                f"stage {name} needs {' or '.join(options)}, which the recipe has {where}: put the section "
                f"`{wanted}:` before `{name}:`"
            )
        chosen.add(found)
    return tuple(n for n in done if n in chosen)


def _config(recipe: Recipe, name: str, declared: sources.Declared, package: str) -> dict[str, Any]:
    dump = recipe.model_dump(mode="json")
    sections = {n: dump[n] for n in sorted({name, "seed", *declared.reads}) if n in dump}
    for n, keys in sections.items():
        if isinstance(section := getattr(recipe, n), Section):
            sections[n] = {k: v for k, v in keys.items() if k not in section.ROUNDING}
    config: dict[str, Any] = {
        "recipe": sections,
        "sources": sources.sources_fingerprint(name, package),
        "libraries": sources.libraries(name, package),
    }
    if declared.watches or declared.models:
        config["watched"] = _watched(name, dump[name], declared)
    return config


def _watched(stage: str, section: Mapping[str, Any], declared: sources.Declared) -> str:
    """A hash over names, sizes and times of outside files, as make and rsync judge them."""
    rows = []
    for key in (*declared.watches, *declared.models):
        value: Any = section
        for part in key.split("."):
            value = value[part]
        for item in [value] if isinstance(value, str | Mapping) else value or ():
            text = item["path"] if isinstance(item, Mapping) else item
            if key not in declared.models and isinstance(at := place(text), Remote):
                rows += [[text, name, f.stat().st_size, f.stat().stamp] for name, f in files_under(at)]
                continue
            try:
                path = model_path(text) if key in declared.models else Path(text).expanduser()
            except (OSError, ValueError) as e:
                raise ValueError(f"{stage}.{key}: {e}") from e
            if not path.exists():
                raise ValueError(f"{stage}.{key}: there is no file or folder {text!r}")
            files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
            for p in files:
                stat = p.stat()
                rows.append([text, p.relative_to(path).as_posix(), stat.st_size, stat.st_mtime_ns])
    return fingerprint(rows)


def _reason(old: artifact.Manifest, key: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """What changed since a manifest was written; empty where nothing did."""
    if old.fingerprint == key:
        return ""
    if changed := _changed(old.config.get("recipe"), config["recipe"], ""):
        more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
        return f"{', '.join(changed[:2])}{more} changed"
    if dict(old.inputs) != dict(inputs):
        names = [n for n in {**old.inputs, **inputs} if old.inputs.get(n) != inputs.get(n)]
        return f"its input {names[0]} changed"
    if old.config.get("libraries") != config["libraries"]:
        return "library versions changed"
    if old.config.get("watched") != config.get("watched"):
        return "files in its folders changed"
    return "its code changed"


def _changed(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*new, *(k for k in old if k not in new)]
        return [c for k in keys for c in _changed(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    return [] if old == new else [path]
