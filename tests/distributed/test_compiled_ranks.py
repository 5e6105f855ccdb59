"""Compiled blocks on two gloo ranks have the curve of one rank that compiles nothing. What is traced and differentiated
is what Inductor gets; its C++ is left out (`aot_eager`), since it takes minutes here."""

from __future__ import annotations

import pytest
from test_ranks import close, launch, read

pytestmark = pytest.mark.slow
LAYOUTS = {
    "fsdp2": {"fsdp": 2}, "tp2": {"tp": 2}, "cp2": {"cp": 2}, "recompute2": {"fsdp": 2, "recompute": "blocks"},
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("compiled")
    launch(out, 1, [{"name": "plain", "kv": 2}])
    launch(out, 2, [
        {"name": k, "kv": 2, "backend": "aot_eager", "layout": {**v, "compile": True}} for k, v in LAYOUTS.items()
    ])  # fmt: skip
    return out


@pytest.mark.parametrize("name", LAYOUTS)
def test_compiled_blocks(name, runs):
    close(read(runs, name), read(runs, "plain"))
