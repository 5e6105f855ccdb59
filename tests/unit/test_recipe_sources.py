from __future__ import annotations

import sys

import pytest

from phikit.recipe import sources


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    name = "src_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    folder = tmp_path / name
    (folder / "deep").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "one.py": "from . import two\ndef f():\n    from .deep.three import x\n    import numpy.linalg\n",
        "two.py": "import json, yaml\nfrom phikit.records.ids import content_id\n",
        "deep/__init__.py": "",
        "deep/three.py": "from ..two import *\n",
        "deep/style.css": "a {}\n",
        "unused.py": "import torch\n",
    }
    for path, text in files.items():
        (folder / path).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name, folder


def test_the_closure_follows_all_imports_without_importing(package):
    name, _ = package
    reached = sources.closure(f"{name}.one")
    assert {m for m in reached if m.startswith(name)} == {
        name, f"{name}.one", f"{name}.two", f"{name}.deep", f"{name}.deep.three"
    }  # fmt: skip
    assert {"phikit.records", "phikit.records.ids", "phikit.records.io"} <= set(reached)
    assert f"{name}.one" not in sys.modules


def test_libraries_are_third_party_and_shape_bytes(package):
    found = sources.libraries("one", package[0])
    assert {"python", "numpy"} <= set(found)
    assert not {"json", "yaml", "torch", "phikit", package[0]} & set(found)
    assert found["python"] == ".".join(str(n) for n in sys.version_info[:3])


def test_the_fingerprint_follows_sources_and_data_files_only(package):
    name, folder = package
    before = sources.sources_fingerprint("one", name)

    def now() -> str:
        sources.sources_fingerprint.cache_clear()
        return sources.sources_fingerprint("one", name)

    (folder / "unused.py").write_text("import math\n", encoding="utf-8")
    assert now() == before
    (folder / "deep" / "style.css").write_text("b {}\n", encoding="utf-8")
    styled = now()
    assert styled != before
    (folder / "deep" / "three.py").write_text("from ..two import *\nx = 1\n", encoding="utf-8")
    assert now() != styled


def test_runner_and_progress_are_no_part_of_a_stage(package):
    name, folder = package
    text = "from phikit.jobs.pool import run_shards\nfrom phikit.recipe.context import StageContext\n"
    (folder / "four.py").write_text(text, encoding="utf-8")
    reached = sources.closure(f"{name}.four")
    assert "phikit.jobs.pool" in reached
    assert not {"phikit.jobs.progress", "phikit.recipe.context", "phikit.recipe.schema"} & set(reached)


def test_an_absent_stage_file_is_named(package):
    with pytest.raises(ValueError, match="stage sft: there is no stage file"):
        sources.declared("sft", package[0])
