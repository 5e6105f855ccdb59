"""What a stage is made of, read from its source without importing it: declarations, own files, libraries.

Reading by `ast` keeps torch out of the runner, so that a run where all is cached ends in a second or two. The
closure of a stage is its file, every phikit module it imports (also inside functions), the packages they lie
in, and the data files of those packages. An import by name at run time (importlib) is not seen.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from phikit.records.ids import file_sha256, fingerprint

STAGE_PACKAGE = "phikit.recipe.stages"
# Modules that start and show stages but shape none of their bytes (what they hand over is fingerprinted).
_RUNNER = {f"phikit.recipe.{n}" for n in (
    "bench", "context", "load", "plan", "run", "scales", "schema", "schema_data", "show", "sources", "status",
    "studies", "trace", "units",
)}  # fmt: skip
_UNSHAPING = _RUNNER | {"phikit", "phikit.recipe", "phikit.cli", "phikit.jobs.progress"}
_UNSHAPING_LIBRARIES = {"pydantic", "rich", "typer", "yaml"}


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
    root = stage_file(stage, package)
    files = {_name(p): file_sha256(p) for p in _files(f"{package}.{stage}")}
    return fingerprint([root.name, files])


@functools.cache
def libraries(stage: str, package: str = STAGE_PACKAGE) -> dict[str, str]:
    """Versions of Python and of the third-party libraries that the stage's modules import."""
    tops = set()
    for module in closure(f"{package}.{stage}"):
        path = module_file(module)
        assert path is not None
        tops |= {name.partition(".")[0] for name in _imports(path, module)}
    tops -= set(sys.stdlib_module_names) | _UNSHAPING_LIBRARIES | {"phikit", package.partition(".")[0]}
    versions = {top: version for top in sorted(tops) if (version := _version(top))}
    return {"python": platform.python_version(), **versions}


@functools.cache
def closure(module: str) -> tuple[str, ...]:
    """Names of all own modules that `module` reaches by imports, itself included, sorted."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        path = module_file(name)
        if name in seen or name in _UNSHAPING or path is None:
            continue
        seen.add(name)
        todo.extend(_imports(path, name))
        if "." in name:  # importing a module runs the packages it lies in
            todo.append(name.rpartition(".")[0])
    return tuple(sorted(seen))


def module_file(module: str) -> Path | None:
    """The file of a dotted module name, found without importing it; None where it is no module of ours."""
    top, _, rest = module.partition(".")
    root = _root(top)
    if root is None:
        return None
    path = root.joinpath(*rest.split(".")) if rest else root
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _files(module: str) -> list[Path]:
    files: set[Path] = set()
    for name in closure(module):
        path = module_file(name)
        assert path is not None
        files.add(path)
        if path.name == "__init__.py":  # prompts, style sheets and templates of the package
            files |= {
                p for p in path.parent.rglob("*")
                if p.is_file() and p.suffix not in (".py", ".pyc") and not p.name.startswith(".")
            }  # fmt: skip
    return sorted(files)


@functools.cache
def _root(top: str) -> Path | None:
    """Folder of a top-level package that is ours: phikit, or the package a test keeps its stages in."""
    if top in sys.stdlib_module_names:
        return None
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return None if "site-packages" in folder.parts and top != "phikit" else folder


@functools.cache
def _imports(path: Path, module: str) -> tuple[str, ...]:
    """Dotted names a file imports; `from a import b` gives a and a.b, since b may be a module."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            names += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            names += [base, *(f"{base}.{a.name}" for a in node.names)]
    return tuple(names)


@functools.cache
def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"), str(path))
    except SyntaxError as e:
        raise ValueError(f"{path}, line {e.lineno}: not valid Python ({e.msg})") from e


@functools.cache
def _version(top: str) -> str | None:
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top)
        return importlib.metadata.version(names[0]) if names else None


def _literal(node: ast.expr, where: str) -> tuple[str, ...]:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        value = None
    if not isinstance(value, tuple) or not all(isinstance(v, str) for v in value):
        raise ValueError(f"{where} must be a literal tuple of strings")
    return value


def _name(path: Path) -> str:
    """The path from the top-level package on: equal on every machine."""
    parts = path.parts
    top = max((i for i, part in enumerate(parts) if part == "phikit"), default=len(parts) - 3)
    return "/".join(parts[top:])
