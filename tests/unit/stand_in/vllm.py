"""A stand-in of vLLM's offline API, computed by TorchEngine: what `VllmEngine` says to vLLM and reads from it.

Only the arguments and fields that `VllmEngine` uses exist, under vLLM's names; `tests/unit/test_engine_vllm_real.py`
compares them with vLLM's own source where that is installed.
"""

from __future__ import annotations

import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.torch_engine import TorchEngine


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


@dataclass
class StructuredOutputsParams:
    json: str | dict | None = None
    grammar: str | None = None

    def __post_init__(self) -> None:
        if (self.json is None) == (self.grammar is None):
            raise ValueError("You must use one kind of structured outputs constraint")


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    structured_outputs: StructuredOutputsParams | None = None

    def __post_init__(self) -> None:
        assert self.max_tokens is not None
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}.")
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are only supported when detokenize is True.")
        if any(not s for s in self.stop or ()):
            raise ValueError("stop cannot contain an empty string.")


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    prompt_logprobs: list[dict[int, Logprob] | None] | None
    outputs: list[CompletionOutput]
    num_cached_tokens: int | None = None


@dataclass
class _Model:
    max_model_len: int
    dtype: str
    vocab: int

    def get_vocab_size(self) -> int:
        return self.vocab


class LLM:
    """`asked`: the parameters of every request, `options`: how it was opened."""

    def __init__(
        self,
        model: str,
        *,
        tensor_parallel_size: int = 1,
        enable_prefix_caching: bool | None = None,
        max_logprobs: int = 20,
        logprobs_mode: str = "raw_logprobs",
        max_model_len: int | None = None,
        distributed_executor_backend: str | None = None,
    ) -> None:
        self.options = {k: v for k, v in locals().items() if k not in ("self", "model")}
        self.engine = TorchEngine.from_folder(Path(model))
        info = self.engine.info
        self.length = max_model_len or info.context
        self.llm_engine = types.SimpleNamespace(model_config=_Model(self.length, "torch.float32", info.vocab))
        self.asked: list[SamplingParams] = []

    def generate(
        self, prompts: list[TokensPrompt], sampling_params: list[SamplingParams], *, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        assert not use_tqdm, "a bar of vLLM's own would be written between our lines"
        assert len(prompts) == len(sampling_params)
        self.asked += sampling_params
        return [self._one(p["prompt_token_ids"], s) for p, s in zip(prompts, sampling_params)]

    def _one(self, prompt: list[int], s: SamplingParams) -> RequestOutput:
        if len(prompt) >= self.length:
            raise ValueError(f"The decoder prompt (length {len(prompt)}) is longer than {self.length}")
        if s.structured_outputs is not None:
            return self._formed(prompt, s.structured_outputs)
        assert s.max_tokens is not None
        request = GenRequest(
            tuple(prompt), min(s.max_tokens, self.length - len(prompt)), temperature=s.temperature, top_p=s.top_p,
            top_k=s.top_k, min_p=s.min_p, seed=s.seed or 0, stop=tuple(s.stop or ()),
            stop_ids=tuple(s.stop_token_ids or ()), top_logprobs=max(s.logprobs or 0, 1),
            prompt_logprobs=s.prompt_logprobs is not None, repeat_penalty=s.repetition_penalty, repeat_last=-1,
        )  # fmt: skip
        ((_, (said,)),) = self.engine.generate([request])
        rows = [self._row(t, v, top, s.logprobs) for t, v, top in zip(said.tokens, said.logprobs, said.top)]
        output = CompletionOutput(
            0, said.text, list(said.tokens), rows if s.logprobs is not None else None, said.finish
        )
        echo = None if s.prompt_logprobs is None else self._echo(prompt)
        return RequestOutput(prompt, echo, [output], len(prompt) // 16 * 16 if len(self.asked) > 1 else None)

    def _row(self, token: int, value: float, top, most: int | None) -> dict[int, Logprob]:
        ranked = {t: Logprob(v, i) for i, (t, v) in enumerate(top[: most or 0], 1)}
        return {token: Logprob(value, 1 if top[0][0] == token else len(top) + 1)} | ranked

    def _echo(self, prompt: list[int]) -> list[dict[int, Logprob] | None]:
        asked = [ScoreRequest(tuple(prompt[:i]), (prompt[i],)) for i in range(1, len(prompt))]
        values = zip(prompt[1:], self.engine.score(asked))
        return [None, *({t: Logprob(x.logprob, 1 if x.greedy else 2)} for t, x in values)]

    def _formed(self, prompt: list[int], form: StructuredOutputsParams) -> RequestOutput:
        """What the form asks for, ended by the end of text."""
        said = json.dumps({"form": "grammar" if form.grammar else "json"})
        ids = [*self.engine.encode(said), self.engine.stop_ids[-1]]
        rows = [{t: Logprob(-1.0, 1)} for t in ids]
        return RequestOutput(prompt, None, [CompletionOutput(0, said, ids, rows, "stop")], 0)


class EngineDeadError(Exception):
    pass


def _submodule(name: str, **members: type) -> None:
    """`from vllm.NAME import ...` is an import of a submodule."""
    module = types.ModuleType(f"{__name__}.{name}")
    module.__dict__.update(members)
    sys.modules[module.__name__] = module


__path__: list[str] = []
_submodule("sampling_params", StructuredOutputsParams=StructuredOutputsParams)
_submodule("v1", __path__=list)
_submodule("v1.engine", __path__=list)
_submodule("v1.engine.exceptions", EngineDeadError=EngineDeadError)
