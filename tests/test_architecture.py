"""The shape of the tree: imports point one way, files are short, help is light, names are kept."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "phikit"
MODULES = sorted(PACKAGE.rglob("*.py"))

# folder -> folders it may import; what those may import is allowed too.
MAY_IMPORT = {
    "records": set(),
    "jobs": {"records"},
    "text": {"records"},
    "store": {"records"},
    "verify": {"records"},
    "report": {"records"},
    "model": {"records", "text"},
    "engine": {"model", "text", "store"},
    "ask": {"engine", "jobs"},
    "corpus": {"text", "jobs", "ask"},
    "synth": {"corpus", "ask", "verify"},
    "mixture": {"text", "jobs"},
    "train": {"model", "mixture", "text"},
    "preference": {"ask", "engine", "verify", "jobs", "text"},
    "evals": {"ask", "engine", "verify", "jobs", "text"},
    "serve": {"engine", "store"},
    "stats": set(),
}
TOP = {"recipe", "cli", "__main__", "__init__"}  # these may import everything
MAX_LINES = 400
STAGES = [
    "init", "questions", "corpus", "synth", "tokenizer", "mixture", "pretrain", "midtrain", "sft", "pivotal",
    "dpo1", "judged", "dpo2", "eval", "export", "report",
]  # fmt: skip


def closure(folder: str) -> set[str]:
    found, todo = set(), list(MAY_IMPORT[folder])
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(MAY_IMPORT[name])
    return found | {folder, "stats"}


def folder_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_folders(source: str, path: Path) -> dict[str, int]:
    """Top folders of phikit that a source imports, with a line; relative imports count too."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = ("phikit", *path.relative_to(PACKAGE).parts[:-1])
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            # `from phikit import text` imports a folder, `from phikit.text import x` something in one.
            names = [f"{base}.{a.name}" for a in node.names] if base == "phikit" else [base]
        for name in names:
            top, _, rest = name.partition(".")
            if top == "phikit" and rest and not rest.startswith("__"):
                found.setdefault(rest.partition(".")[0], node.lineno)
    return found


def wrong_imports(source: str, path: Path) -> list[str]:
    folder = folder_of(path)
    if folder in TOP:
        return []
    allowed = closure(folder)
    return [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for name, line in imported_folders(source, path).items()
        if name not in allowed
    ]


def test_every_folder_has_its_place():
    folders = {folder_of(p) for p in MODULES}
    assert folders <= set(MAY_IMPORT) | TOP


def test_imports_point_one_way():
    wrong = [w for p in MODULES for w in wrong_imports(p.read_text(encoding="utf-8"), p)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "at"),
    [
        ("from phikit.engine.base import Engine", "train/step.py"),
        ("def f():\n    import phikit.train.step", "engine/torch.py"),
        ("from phikit import corpus", "text/chat.py"),
        ("from ..preference import pts", "evals/run.py"),
        ("from phikit.stats import share\nfrom phikit.text.chat import render", "report/page.py"),
        ("from phikit.recipe.schema import Recipe", "synth/world.py"),
    ],
)
def test_a_wrong_import_is_found(source, at):
    assert len(wrong_imports(source, PACKAGE / at)) == 1


def test_no_cycle_is_allowed():
    for folder in MAY_IMPORT:
        for other in closure(folder) - {folder, "stats"}:
            assert folder not in closure(other), f"{folder} and {other} may import each other"


def test_files_are_short():
    files = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]
    counts = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in files}
    long = [f"{p.relative_to(ROOT)}: {n} lines" for p, n in counts.items() if n > MAX_LINES]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("argument", ["--help", "run --help", "plan --help", "recipe --help"])
def test_help_is_light(argument):
    code = (
        "import sys\n"
        f"sys.argv = ['phikit', *{argument.split()!r}]\n"
        "from phikit.cli import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        "heavy = {'torch', 'pyarrow', 'transformers', 'numpy', 'xllamacpp', 'phikit.recipe.schema'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_importing_the_package_is_light():
    code = "import sys, phikit\nassert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr


def test_the_runner_imports_no_torch():
    """A run where all is cached has to end within seconds."""
    code = (
        "import sys\nfrom phikit.recipe import load, plan, run, show, status, trace\n"
        "assert not {'torch', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr


def test_no_machine_in_the_sources():
    """No home folders, checkout paths or private hosts in what is shipped."""
    pattern = re.compile(
        r"(?<![\w.])/(?:home|Users|root|work|mnt)/[\w.-]+|file:///|\b[\w-]+\.(?:internal|lan)\b"
    )
    names = ["src", "tests", "benchmarks", "docs", ".ci", "Makefile", "constraints.txt", "pyproject.toml"]
    names += ["README.md", "CHANGELOG.md"]
    files = [
        p for n in names for p in ([ROOT / n] if (ROOT / n).is_file() else sorted((ROOT / n).rglob("*")))
    ]
    wrong = []
    for path in files:
        if not path.is_file() or path == Path(__file__) or "__pycache__" in path.parts:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if match := pattern.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not wrong, "\n".join(wrong)


def test_stage_names():
    """Scripts outside rely on these names and their order."""
    from phikit.recipe import schema

    assert list(schema.STAGES) == STAGES
    assert all(stage in schema.Recipe.model_fields for stage in STAGES)


def test_every_stage_has_a_file():
    from phikit.recipe import sources

    missing = [s for s in STAGES if sources.module_file(f"{sources.STAGE_PACKAGE}.{s}") is None]
    assert not missing, f"no stage file for {', '.join(missing)}"
    for stage in STAGES:
        declared = sources.declared(stage)
        before = STAGES[: STAGES.index(stage)]
        assert declared.stages <= set(before), f"{stage} reads a stage that is not before it"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}
