"""One server for all tests of this folder: the real thing on a free port, with SmolLM2 and a tiny model of ours."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from phikit.serve.settings import Settings
from phikit.store import local
from phikit.store.names import parse
from phikit.store.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from serve_running import Running, running

MODEL = "smollm2"
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """The packages under test leave connections and loops to the garbage collector, and warn of themselves."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session", autouse=True)
def _collected():
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("models"))
    if local.remember_teacher(store) is None:
        pytest.skip("the embedded teacher is not installed")
    local.alias(store, parse("vanilj/Phi-4"), MODEL)
    return store


@pytest.fixture(scope="session")
def server(store) -> Iterator[Running]:
    with running(store, Settings(port=0, threads=1, parallel=4, context=1024, shutdown_time=2.0)) as found:
        yield found


@pytest.fixture(scope="session")
def tiny(store, tmp_path_factory) -> str:
    """The name of a tiny safetensors model in Phi-4's format, run by TorchEngine."""
    from serve_running import add_tiny_folder

    return add_tiny_folder(store, tmp_path_factory.mktemp("tiny") / "hf")
