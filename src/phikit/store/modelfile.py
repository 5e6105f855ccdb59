"""The Modelfile with which Ollama runs an exported Phi-4: facts section 8.7."""

from __future__ import annotations

# Phi-4's format as the model was trained: without the newlines of Ollama's own phi4 (docs/decisions.md). Go's
# trim marks take out the line breaks of this template.
_MODELFILE = '''FROM ./{gguf}
TEMPLATE """{{{{- range $i, $_ := .Messages }}}}
{{{{- $last := eq (len (slice $.Messages $i)) 1 -}}}}
<|im_start|>{{{{ .Role }}}}<|im_sep|>{{{{ .Content }}}}
{{{{- if not $last }}}}<|im_end|>{{{{ end }}}}
{{{{- if and (ne .Role "assistant") $last }}}}<|im_end|><|im_start|>assistant<|im_sep|>{{{{ end }}}}
{{{{- end }}}}"""
PARAMETER stop "<|im_start|>"
PARAMETER stop "<|im_end|>"
PARAMETER stop "<|im_sep|>"
'''


def modelfile(gguf: str) -> str:
    """The text of a Modelfile beside a GGUF file of that name."""
    if "/" in gguf or "\n" in gguf:
        raise ValueError(f"{gguf!r}: name a file of the Modelfile's own folder")
    return _MODELFILE.format(gguf=gguf)
