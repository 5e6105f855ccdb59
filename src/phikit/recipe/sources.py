"""What a stage is made of, read from its source without importing it: declarations, own files, libraries.

Reading by `ast` (records/code.py) keeps torch out of the runner, so that a run where all is cached ends in a second
or two.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

from phikit.records import code
from phikit.records.code import files_fingerprint, library_versions, module_file
from phikit.records.code import imports as _imports  # noqa: F401  tests empty its cache
from phikit.records.code import parse as _parse

STAGE_PACKAGE = "phikit.recipe.stages"
# Modules that start and show stages but shape none of their bytes (what they hand over is fingerprinted).
_RUNNER = {f"phikit.recipe.{n}" for n in (
    "bench", "context", "load", "plan", "run", "scales", "schema", "schema_data", "show", "sources", "status",
    "studies", "trace", "units",
)}  # fmt: skip
_UNSHAPING = _RUNNER | {"phikit", "phikit.recipe", "phikit.cli", "phikit.jobs.progress", "phikit.jobs.on_ray"}
_UNSHAPING_LIBRARIES = {"pydantic", "ray", "rich", "typer", "yaml"}


@dataclass(frozen=True)
class Declared:
    """What a stage file says about itself in literal tuples of strings; `reads` also holds every section that
    the file, or a helper in recipe/ that it imports, reaches as `ctx.recipe.<section>`."""

    needs: tuple[str, ...] = ()  # NEEDS: stages finished before it; "a|b": the first that is there
    uses: tuple[str, ...] = ()  # USES: stages it reads where the recipe has them
    reads: tuple[str, ...] = ()  # READS: recipe sections that enter its fingerprint beside its own
    keep: tuple[
        str, ...
    ] = ()  # KEEP: files or folders that outlive a recomputation (request logs); not hashed
    volatile: tuple[str, ...] = ()  # VOLATILE: file patterns that may differ between equal runs; not hashed
    watches: tuple[str, ...] = ()  # WATCHES: keys of its section that name outside files or folders
    models: tuple[str, ...] = ()  # MODELS: keys of its section that name models, as `phikit chat` takes them

    @property
    def stages(self) -> set[str]:
        """Every stage that it may read."""
        return {n for need in self.needs for n in need.split("|")} | set(self.uses)


def declared(stage: str, package: str = STAGE_PACKAGE) -> Declared:
    """The declarations of a stage file. ValueError where it is absent or not literal."""
    path = stage_file(stage, package)
    found: dict[str, tuple[str, ...]] = {}
    names = {f"{name.upper()}": name for name in Declared.__dataclass_fields__}
    tree = _parse(path)
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            name, value = node.target.id, node.value
        else:
            continue
        if name in names:
            found[names[name]] = _literal(value, f"{path}, line {node.lineno}: {name}")
    sections = set(found.get("reads", ()))
    for module in closure(f"{package}.{stage}"):
        if not module.startswith(("phikit.recipe.", f"{package}.")):
            continue  # only the stage file and its helpers beside it know the recipe
        helper = module_file(module)
        assert helper is not None
        used, whole = _recipe_use(_parse(helper))
        sections |= used
        if whole and "reads" not in found:
            raise ValueError(
                f"{helper}: it hands on ctx.recipe whole: name the sections used there in READS of {stage}.py"
            )
    found["reads"] = tuple(sorted(sections))
    return Declared(**found)


def _recipe_use(tree: ast.Module) -> tuple[set[str], bool]:
    """The sections read as `ctx.recipe.<section>`, and whether `ctx.recipe` is used in any other way."""
    nodes = list(ast.walk(tree))
    recipes = {id(n) for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n) == "ctx.recipe"}
    parents = [n for n in nodes if isinstance(n, ast.Attribute) and id(n.value) in recipes]
    return {n.attr for n in parents}, bool(recipes - {id(n.value) for n in parents})


def stage_file(stage: str, package: str = STAGE_PACKAGE) -> Path:
    path = module_file(f"{package}.{stage}")
    if path is None:
        raise ValueError(f"stage {stage}: there is no stage file {package}.{stage}")
    return path


@functools.cache
def sources_fingerprint(stage: str, package: str = STAGE_PACKAGE) -> str:
    """sha256 over the names and bytes of the stage's own files."""
    return files_fingerprint(stage_file(stage, package).name, closure(f"{package}.{stage}"))


@functools.cache
def libraries(stage: str, package: str = STAGE_PACKAGE) -> dict[str, str]:
    """Versions of Python and of the third-party libraries that the stage's modules import."""
    return library_versions(closure(f"{package}.{stage}"), {*_UNSHAPING_LIBRARIES, "phikit"})


@functools.cache
def closure(module: str) -> tuple[str, ...]:
    """Names of all own modules that `module` reaches by imports and that shape its bytes, sorted."""
    return code.closure(module, _UNSHAPING)


def _literal(node: ast.expr, where: str) -> tuple[str, ...]:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        value = None
    if not isinstance(value, tuple) or not all(isinstance(v, str) for v in value):
        raise ValueError(f"{where} must be a literal tuple of strings")
    return value
