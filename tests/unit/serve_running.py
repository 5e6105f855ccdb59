"""A server on a free port in a thread of this process: for tests that talk to it over a socket."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from phikit.serve.app import Serving
from phikit.serve.settings import Settings
from phikit.store import local
from phikit.store.names import parse
from phikit.store.store import Store

# A short answer of the model that `tiny_store` has.
ASK = {
    "model": "tiny",
    "prompt": "The user",
    "stream": False,
    "options": {"num_predict": 3, "temperature": 0},
}


@dataclass
class Running:
    """A server in a thread of its own."""

    url: str
    store: Store
    serving: Serving
    log: io.StringIO = field(repr=False)

    @property
    def pool(self):
        return self.serving.app.state.pool


@contextmanager
def running(store: Store, settings: Settings) -> Iterator[Running]:
    log, started, port = io.StringIO(), threading.Event(), [0]
    serving = Serving(store, settings, log)

    def ready(number: int) -> None:
        port[0] = number
        started.set()

    thread = threading.Thread(target=serving.run, args=(ready,))
    thread.start()
    try:
        assert started.wait(20)
        yield Running(f"http://127.0.0.1:{port[0]}", store, serving, log)
    finally:
        serving.stop()
        thread.join(30)
        assert not thread.is_alive()


def tiny_store(root: Path, *, safetensors: bool = False) -> Store:
    """A store with `tiny`, a small random network as a GGUF (run by llama.cpp) or as a Hugging Face folder in Phi-4's
    format (run by TorchEngine)."""
    from tiny_gguf import write_tiny

    store = Store(root / "models")
    if safetensors:
        add_tiny_folder(store, root / "hf")
    else:
        write_tiny(root / "tiny.gguf")
        store.remember(parse("tiny"), local.manifest_of(store, root / "tiny.gguf", copy=False))
    return store


def add_tiny_folder(store: Store, folder: Path) -> str:
    """Writes a small random network with safetensors to `folder`; its name in the store."""
    from tiny_gguf import TEXT

    from phikit.model.config import ModelConfig
    from phikit.model.hf import save_hf
    from phikit.model.transformer import build
    from phikit.text.tokenizer import Tokenizer

    save_hf(build(ModelConfig(320, 32, 1, 2, 1, 64, 256), 0), Tokenizer.train([TEXT * 4], 310), folder)
    store.remember(parse("tiny"), local.manifest_of(store, folder, copy=False))
    return "tiny"
