"""Runs a recipe: stages in order, each into its own folder, skipped where its artifact is already there.

runs/nano/<stage>/...            what the stage wrote, `manifest.json` last
runs/nano/<stage>/.work/         what it needs to go on after a kill; gone when it is done
runs/nano/timings.json           rows {name, status, cached, seconds, counts, error?}, the report reads it
runs/nano/recipe.json            the recipe as it was run, scale and overrides applied
runs/nano/report.html, .json     copies of what the report stage wrote
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from phikit.jobs.run import LOCAL, Planned, check_on
from phikit.recipe import crew, plan, sources
from phikit.recipe.context import StageContext
from phikit.recipe.schema import Recipe
from phikit.recipe.status import StageStatus, stage_status, statuses
from phikit.recipe.units import show_bytes
from phikit.records import artifact
from phikit.records.io import read_json, write_json, write_text

REPORT = "report"
TIMINGS = "timings.json"
STOPPED = 128 + signal.SIGTERM


class RunError(ValueError):
    """A run that cannot start, or a stage that failed; the message names the stage and the fix."""


class Stopped(BaseException):
    """SIGTERM or Ctrl-C."""

    def __init__(self, number: int) -> None:
        self.signal = number


def run(
    recipe: Recipe,
    out: Path,
    *,
    only: str | None = None,
    start: str | None = None,
    on: str = LOCAL,
    say: Callable[[str], None] = print,
    package: str = sources.STAGE_PACKAGE,
) -> int:
    """Runs the stages of `recipe` into `out`; returns the exit status: 0 done, or stopped by SIGTERM with all that is
    needed to go on saved, so that a scheduler requeues; 1 a stage failed; 130 stopped by Ctrl-C. Under torchrun the
    ranks join in the stages that train.

    `only` runs one stage on the inputs that are on disk; `start` recomputes from that stage on; `on` says where shard
    tasks run (`jobs.run.run_plan`): with `plan` the run ends where the first plan is to be worked through. Raises
    ValueError before anything is computed where the run cannot start.
    """
    for option, stage in (("--only", only), ("--from", start)):
        if stage is not None and stage not in recipe.stages:
            raise RunError(
                f"{option} {stage}: the recipe has no such stage (it has {', '.join(recipe.stages)})"
            )
    check_on(on)
    plan.check_export(recipe)  # rather than after the training
    if crew.rank():
        return crew.follow(recipe, out, package)
    out.mkdir(parents=True, exist_ok=True)
    with _lock(out), _signals():
        todo = [_alone(recipe, only, out, package)] if only else statuses(recipe, out, package)
        forced = set(recipe.stages[recipe.stages.index(start) :]) if start else set()
        if any(s.cached is None or s.name in forced for s in todo):
            _check_disk(recipe, out, {s.name for s in todo if s.cached is None or s.name in forced})
        write_json(out / "recipe.json", recipe.model_dump(mode="json"))
        code = _Run(recipe, out, say, package, on).stages(todo, forced)
        if code == 0:
            crew.call(None)
        return 0 if code == STOPPED else code


class _Run:
    def __init__(self, recipe: Recipe, out: Path, say: Callable[[str], None], package: str, on: str) -> None:
        self.recipe, self.out, self.say, self.package, self.on = recipe, out, say, package, on
        self.rows = _timings(out, recipe.stages)

    def stages(self, todo: list[StageStatus], forced: set[str]) -> int:
        failed = ""
        for status in todo:
            name = status.name
            if failed and name != REPORT:
                self._row(name, "not run")
                continue
            if not failed and status.cached is not None and name not in forced:
                seconds, counts = self.rows[name]["seconds"], status.cached.manifest.counts
                self._row(name, "cached", seconds=seconds, counts=counts)
                self.say(f"{name:<10} cached")
                continue
            begin = time.monotonic()
            try:
                # After a failure the report still runs, on what there is; the next run writes it again.
                counts = self._stage(status, fresh=name in forced, whole=not failed)
            except Stopped as e:
                self._row(name, "stopped", seconds=time.monotonic() - begin)
                self.say(f"stopped in {name}. The same command goes on from there (without --from).")
                return STOPPED if e.signal == signal.SIGTERM else 130
            except Planned as e:
                self._row(name, "stopped", seconds=time.monotonic() - begin)
                self.say(f"{name:<10} {e}")
                return 0
            except Exception as e:
                self._failed(name, e, time.monotonic() - begin)
                failed = failed or name
            else:
                seconds = time.monotonic() - begin
                self._row(name, "done", seconds=seconds, counts=counts)
                self.say(f"{name:<10} {seconds:.1f} s  {_brief(counts)}")
        self._publish()
        if failed:
            self.say(
                f"Fix it and give the same command again: what is done stays done. See {self.out / TIMINGS}"
            )
        return 1 if failed else 0

    def _stage(self, status: StageStatus, *, fresh: bool, whole: bool) -> Mapping[str, Any]:
        name, folder = status.name, self.out / status.name
        why = "--from" if fresh else status.reason
        self.say(f"{name:<10} ..." + (f" ({why})" if why != "not run yet" else ""))
        self._row(name, "running")
        resumed = _prepare(folder, status, fresh=fresh)
        if resumed:
            self.say(f"{'':<10} goes on from {folder / artifact.WORK}")
        inputs = {
            n: a for n in status.inputs if (a := artifact.load(self.out / n)) and self._present(n, whole)
        }
        ctx = StageContext(
            name=name,
            recipe=self.recipe,
            config=getattr(self.recipe, name),
            inputs=inputs,
            out=folder,
            work=folder / artifact.WORK,
            seed=self.recipe.seed_of(name),
            on=self.on,
        )
        module = importlib.import_module(f"{self.package}.{name}")
        crew.call(name, tuple(inputs))
        counts = module.run(ctx)
        _check_counts(name, counts)
        if whole:
            artifact.seal(
                folder,
                stage=name,
                fingerprint=status.fingerprint,
                config=status.config,
                inputs={n: a.manifest.fingerprint for n, a in inputs.items()},
                counts=counts,
                unhashed=(*status.declared.volatile, *status.declared.keep),
            )
            shutil.rmtree(folder / artifact.WORK, ignore_errors=True)
        return counts

    def _present(self, name: str, whole: bool) -> bool:
        """After a failure only what this run found or made counts, no stale folder of another recipe."""
        return whole or self.rows[name]["status"] in ("done", "cached")

    def _failed(self, name: str, e: Exception, seconds: float) -> None:
        if _disk_full(e):
            free = shutil.disk_usage(self.out).free
            text = f"the disk of {self.out} is full ({show_bytes(free)} free): free some space"
        else:
            text = str(e) if isinstance(e, ValueError | OSError) else f"{type(e).__name__}: {e}"
        self.say(f"{name:<10} FAILED: {text}")
        with contextlib.suppress(OSError):  # a full disk must not hide the message above
            self._row(name, "failed", seconds=seconds, error=text)
            trace = self.out / "errors" / f"{name}.txt"
            write_text(trace, "".join(traceback.format_exception(e)))
            self.say(f"{'':<10} details: {trace}")

    def _row(
        self, name: str, status: str, *, seconds: float = 0.0, counts: Any = None, error: str = ""
    ) -> None:
        self.rows[name] = {
            "name": name,
            "status": status,
            "cached": status == "cached",
            "seconds": round(seconds, 2),
            "counts": dict(counts or {}),
            **({"error": error} if error else {}),
        }
        rows = [self.rows[n] for n in self.recipe.stages]
        write_json(
            self.out / TIMINGS, {"recipe": self.recipe.name, "scale": self.recipe.scale, "stages": rows}
        )

    def _publish(self) -> None:
        """Copies of the report at the run's root, with the stage rows of this run."""
        folder = self.out / REPORT
        if (folder / "report.html").is_file():
            write_text(self.out / "report.html", (folder / "report.html").read_text(encoding="utf-8"))
        if (folder / "report.json").is_file():
            report = read_json(folder / "report.json")
            written = {r["name"]: r for r in report.get("stages", [])}
            rows = [{**written.get(n, {}), **self.rows[n]} for n in self.recipe.stages]
            write_json(self.out / "report.json", {**report, "stages": rows})


def _alone(recipe: Recipe, name: str, out: Path, package: str) -> StageStatus:
    """The stage of --only, with the inputs that are on disk."""
    found = {n: a.manifest.fingerprint for n in recipe.stages if (a := artifact.load(out / n)) and n != name}
    before = recipe.stages[: recipe.stages.index(name)]
    for need in sources.declared(name, package).needs:
        options = [n for n in need.split("|") if n in before]
        if options and options[0] not in found:
            raise RunError(
                f"--only {name}: it needs {options[0]}, which is not finished in {out}: run that first"
            )
    return stage_status(recipe, name, out, {n: found[n] for n in before if n in found}, package)


def _prepare(folder: Path, status: StageStatus, *, fresh: bool) -> bool:
    """Empties the folder of all but what outlives a recomputation; True where the stage goes on half-way."""
    work = folder / artifact.WORK
    mark = work / "fingerprint"
    resumed = not fresh and mark.is_file() and mark.read_text(encoding="utf-8") == status.fingerprint
    # The manifest goes first: a folder that is half emptied must not pass for finished.
    (folder / artifact.MANIFEST).unlink(missing_ok=True)
    keep = {*status.declared.keep, *([artifact.WORK] if resumed else [])}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write_text(mark, status.fingerprint)
    return resumed


def _timings(out: Path, stages: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Rows of the last run in `out`: a cached stage keeps the seconds it took when it was computed."""
    path = out / TIMINGS
    rows = read_json(path)["stages"] if path.exists() else []
    # A row that still says running is that of a killed run.
    old = {r["name"]: r for r in rows if r["status"] != "running"}
    empty = {"status": "not run", "cached": False, "seconds": 0.0, "counts": {}}
    return {n: {"name": n, **empty, **old.get(n, {})} for n in stages}


def _check_disk(recipe: Recipe, out: Path, stages: set[str]) -> None:
    need, free = plan.disk_bytes(recipe, stages), shutil.disk_usage(out).free
    if free < need:
        raise RunError(
            f"{out}: {show_bytes(free)} free, this run may need {show_bytes(need)}: free some space or "
            "choose another folder with --out"
        )


def _check_counts(stage: str, counts: Any) -> None:
    def good(value: Any, depth: int) -> bool:
        if isinstance(value, Mapping):
            return depth < 4 and all(isinstance(k, str) and good(v, depth + 1) for k, v in value.items())
        return isinstance(value, int | float) and not isinstance(value, bool)

    if not isinstance(counts, Mapping) or not good(counts, 0):
        raise TypeError(
            f"stage {stage} must return counts: numbers, or (nested) maps of numbers; got {counts!r}"
        )


def _brief(counts: Mapping[str, Any]) -> str:
    def number(v: float) -> str:
        return f"{v:,}" if isinstance(v, int) else f"{v:.4g}"

    return "  ".join(f"{k} {number(v)}" for k, v in counts.items() if not isinstance(v, Mapping))


def _disk_full(e: BaseException | None) -> bool:
    while e is not None:
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        e = e.__cause__ or e.__context__
    return False


@contextlib.contextmanager
def _lock(out: Path) -> Iterator[None]:
    """One run per folder at a time. The kernel drops the lock of a killed run."""
    with (out / ".lock").open("w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise RunError(
                f"{out}: another run is under way in this folder; wait or choose another --out"
            ) from e
        yield


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the run in order; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    pid = os.getpid()

    def stop(number: int, frame: object) -> None:
        for s, previous in old.items():
            signal.signal(s, previous)
        if os.getpid() != pid:  # a forked worker
            os._exit(128 + number)
        raise Stopped(number)

    old = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for s, previous in old.items():
            signal.signal(s, previous)
