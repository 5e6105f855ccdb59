"""Stage `init`: somebody's own model in place of corpus, pretraining and midtraining, as a Hugging Face folder.

Later stages write their models in this folder's form (`model/hf_like.py`), with its vocabulary and chat template.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext
    from phikit.text.tokenizer import Tokenizer

NEEDS = ()
MODELS = ("model",)
WATCHES = ("template",)


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes hf/. Weights of a folder are copied as they are, those of a GGUF dequantized to fp32. Raises ValueError
    for a model without a chat template, or whose template does not say what the assistant said."""
    from phikit.engine.chat_files import load_tokenizer
    from phikit.model.hf_config import read_config
    from phikit.recipe.model_folder import write_own_form
    from phikit.recipe.model_paths import find

    c: Any = ctx.config
    source, hf = find(c.model), ctx.out / "hf"
    write_own_form(source, hf)
    if c.template is not None:
        shutil.copyfile(Path(c.template).expanduser(), hf / "chat_template.jinja")
    tokenizer = load_tokenizer(hf)
    _check_chat(c.model, tokenizer)
    shape = read_config(hf)
    return {k: getattr(shape, k) for k in ("parameters", "vocab", "context", "layers")}


def _check_chat(name: str, tokenizer: Tokenizer) -> None:
    """That conversations can be written, and that it can be told what the assistant said."""
    from phikit.records.types import turns
    from phikit.text import chat

    try:
        chat.render(tokenizer, turns(("user", "What is 3 + 4?"), ("assistant", "7")))
    except ValueError as e:
        raise ValueError(f"init: {name}: {e}") from e
