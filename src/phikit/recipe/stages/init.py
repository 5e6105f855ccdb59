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
    from phikit.recipe.model_paths import find

    c: Any = ctx.config
    source, hf = find(c.model), ctx.out / "hf"
    hf.mkdir(parents=True, exist_ok=True)
    if source.is_gguf:
        _of_gguf(source.path, hf)
    else:
        _of_folder(source.path, hf)
    if c.template is not None:
        shutil.copyfile(Path(c.template).expanduser(), hf / "chat_template.jinja")
    tokenizer = load_tokenizer(hf)
    _check_chat(c.model, tokenizer)
    shape = read_config(hf)
    return {k: getattr(shape, k) for k in ("parameters", "vocab", "context", "layers")}


def _of_folder(source: Path, hf: Path) -> None:
    from phikit.model.hf_config import CONFIG
    from phikit.model.hf_like import copy_companions
    from phikit.model.hf_read import INDEX, weight_files
    from phikit.model.rows import of_hf

    of_hf(source)  # names what is missing or of another shape, before anything is copied
    if not (source / "tokenizer.json").is_file():
        raise ValueError(
            f"init: {source} has no tokenizer.json; transformers writes one: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    copy_companions(source, hf)
    for file in weight_files(source):
        shutil.copyfile(file, hf / file.name)
    if (source / INDEX).is_file():
        shutil.copyfile(source / INDEX, hf / INDEX)
    shutil.copyfile(source / CONFIG, hf / CONFIG)


def _of_gguf(source: Path, hf: Path) -> None:
    from phikit.engine.gguf_meta import read_meta
    from phikit.model.gguf_config import config_of
    from phikit.model.gguf_header import read_gguf_header
    from phikit.model.gguf_read import load_gguf
    from phikit.model.gguf_tokenizer import read_tokenizer
    from phikit.model.hf_like import write_network
    from phikit.records.io import write_json

    meta, header = read_meta(source), read_gguf_header(source)
    try:
        tokenizer, layout = read_tokenizer(header.keys), config_of(header)[1]
    except ValueError as e:
        raise ValueError(f"{source}: {e}") from e
    model, shape = load_gguf(source)
    tokenizer.save(hf / "tokenizer.json")
    named = {"bos_token": meta.bos, "eos_token": meta.eos, "chat_template": meta.template}
    write_json(hf / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": shape.context,
        "clean_up_tokenization_spaces": False, **{k: v for k, v in named.items() if v},
    })  # fmt: skip
    ids = {f"{k}_token_id": tokenizer.special_ids.get(v) for k, v in (("bos", meta.bos), ("eos", meta.eos))}
    ids["pad_token_id"] = ids["eos_token_id"]  # or transformers takes Phi-3's, perhaps beyond the vocabulary
    write_json(hf / "generation_config.json", {**ids, "eos_token_id": list(meta.stop_ids)})
    write_network(model, hf, layout, ids, dtype="fp32")


def _check_chat(name: str, tokenizer: Tokenizer) -> None:
    """That conversations can be written, and that it can be told what the assistant said."""
    from phikit.records.types import turns
    from phikit.text import chat

    try:
        chat.render(tokenizer, turns(("user", "What is 3 + 4?"), ("assistant", "7")))
    except ValueError as e:
        raise ValueError(f"init: {name}: {e}") from e
