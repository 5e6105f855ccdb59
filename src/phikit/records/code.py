"""What code is made of, read from its source without importing it: own modules, data files, library versions.

By this a stage of a recipe and a task of a plan know that they were computed by other code. Reading by `ast` keeps
torch out of the process. The closure of a module is its file, every module of ours it imports (also inside
functions), the packages they lie in, and the data files of those packages. An import by name at run time
(importlib) is not seen.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Collection
from pathlib import Path

from phikit.records.ids import file_sha256, fingerprint


def closure(module: str, without: Collection[str] = ()) -> tuple[str, ...]:
    """Names of all own modules that `module` reaches by imports, itself included, sorted; those in `without` are not
    entered."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        path = module_file(name)
        if name in seen or name in without or path is None:
            continue
        seen.add(name)
        todo.extend(imports(path, name))
        if "." in name:  # importing a module runs the packages it lies in
            todo.append(name.rpartition(".")[0])
    return tuple(sorted(seen))


def files_fingerprint(root: str, modules: Collection[str]) -> str:
    """sha256 over the names and bytes of the files of `modules`; `root` names what they make up."""
    return fingerprint([root, {_name(p): file_sha256(p) for p in _files(modules)}])


def library_versions(modules: Collection[str], without: Collection[str] = ()) -> dict[str, str]:
    """Versions of Python and of the third-party libraries that `modules` import; `without` names libraries."""
    tops = set()
    for module in modules:
        path = module_file(module)
        assert path is not None
        tops |= {name.partition(".")[0] for name in imports(path, module)}
    tops -= set(sys.stdlib_module_names) | set(without) | {m.partition(".")[0] for m in modules}
    versions = {top: version for top in sorted(tops) if (version := _version(top))}
    return {"python": platform.python_version(), **versions}


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


def _files(modules: Collection[str]) -> list[Path]:
    files: set[Path] = set()
    for name in modules:
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
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # __main__ of a script
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return None if "site-packages" in folder.parts and top != "phikit" else folder


@functools.cache
def imports(path: Path, module: str) -> tuple[str, ...]:
    """Dotted names a file imports; `from a import b` gives a and a.b, since b may be a module."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(parse(path)):
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
def parse(path: Path) -> ast.Module:
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


def _name(path: Path) -> str:
    """The path from the top-level package on: equal on every machine."""
    parts = path.parts
    top = max((i for i, part in enumerate(parts) if part == "phikit"), default=len(parts) - 3)
    return "/".join(parts[top:])
