"""The Modelfile: Phi-4's format, nothing added."""

from __future__ import annotations

import re

import pytest

from phikit.store.modelfile import modelfile


def test_the_modelfile_adds_no_white_space():
    """Go's trim marks remove the line breaks: what is left beside the actions is Phi-4's format."""
    text = modelfile("m.gguf")
    assert text.startswith("FROM ./m.gguf\n")
    template = re.search('TEMPLATE """(.*?)"""', text, re.DOTALL)[1]
    trimmed = re.sub(r"\s*\{\{- ", "{{ ", re.sub(r" -\}\}\s*", " }}", template))
    literal = [t for t in re.split(r"\{\{.*?\}\}", trimmed) if t]
    assert literal == [
        "<|im_start|>", "<|im_sep|>", "<|im_end|>", "<|im_end|><|im_start|>assistant<|im_sep|>",
    ]  # fmt: skip
    assert trimmed.count("{{ end }}") == 3
    for stop in ("<|im_start|>", "<|im_end|>", "<|im_sep|>"):
        assert f'PARAMETER stop "{stop}"\n' in text


def test_a_file_elsewhere_is_refused():
    for name in ("../m.gguf", "/m.gguf", "m.gguf\nPARAMETER temperature 9"):
        with pytest.raises(ValueError, match="of the Modelfile's own folder"):
            modelfile(name)
