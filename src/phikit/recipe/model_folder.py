"""Somebody's own model as a Hugging Face folder in its own form: architecture, vocabulary and chat template stay."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from phikit.recipe.model_paths import Source

if TYPE_CHECKING:
    from phikit.model.assemble import DTypeName


def write_own_form(source: Source, hf: Path, dtype: DTypeName | None = None) -> None:
    """Writes `hf`. Without `dtype` the weights of a folder are copied as they are, those of a GGUF become fp32. Raises
    ValueError that names the file that is missing or of another shape."""
    hf.mkdir(parents=True, exist_ok=True)
    if source.is_gguf:
        _of_gguf(source.path, hf, dtype or "fp32")
    else:
        _of_folder(source.path, hf, dtype)


def _of_folder(source: Path, hf: Path, dtype: DTypeName | None) -> None:
    from phikit.model.hf_config import CONFIG
    from phikit.model.hf_like import copy_companions, save_like
    from phikit.model.hf_read import INDEX, load_hf, weight_files
    from phikit.model.rows import of_hf

    of_hf(source)  # names what is missing or of another shape, before anything is copied
    if not (source / "tokenizer.json").is_file():
        raise ValueError(
            f"{source} has no tokenizer.json; transformers writes one: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    if dtype is not None:
        save_like(load_hf(source)[0], source, hf, dtype=dtype)
        return
    copy_companions(source, hf)
    for file in weight_files(source):
        shutil.copyfile(file, hf / file.name)
    if (source / INDEX).is_file():
        shutil.copyfile(source / INDEX, hf / INDEX)
    shutil.copyfile(source / CONFIG, hf / CONFIG)


def _of_gguf(source: Path, hf: Path, dtype: DTypeName) -> None:
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
    write_network(model, hf, layout, ids, dtype=dtype)
