"""VllmEngine: a Hugging Face folder in vLLM's offline API, for batches on GPUs (`vllm:FOLDER`).

Token ids go in and come out; texts, prompts and stop ids are those of our own tokenizer, so that a prompt has the same
tokens as with any other engine. vLLM schedules what a call holds (paged, continuous batches) and keeps prefixes between
requests and calls.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phikit.engine.base import Counter, EngineInfo, GenRequest, PromptTooLong, ScoreRequest, Usage
from phikit.engine.chat_files import Spoken, chat_of_folder
from phikit.engine.child import EngineCrashed
from phikit.records.ids import seed_of
from phikit.records.types import Completion, Finish, Score
from phikit.text.tokenizer import Tokenizer

INSTALL = "pip install 'vllm>=0.11'"
BATCH = 256  # requests that a call should hold: the call lasts until its last one has ended
Row = dict[int, Any] | None  # id -> vllm.Logprob (logprob, rank)


class EngineDead(EngineCrashed):
    """vLLM's own processes have ended, and do not start again: this engine answers no more."""


class VllmEngine(Spoken):
    """Implements `Engine`; numerics vllm:<dtype>. Not thread-safe. A sample's seed follows from its request's seed and
    its number alone; vLLM sums in an order that depends on the batch, so a sample may change with its neighbours."""

    def __init__(
        self, folder: Path, *, name: str = "", context: int | None = None, gpus: int = 1, **options: Any
    ) -> None:
        """`context` bounds prompt and answer (without it the model's own), `gpus` share each matrix (tensor parallel,
        on one machine), `options` are further arguments of vllm.LLM, such as `gpu_memory_utilization`. Raises
        ValueError where vLLM is missing or the folder's tokenizer or template is of an unknown kind."""
        self.tokenizer = Tokenizer.load(folder)
        self.dialog = chat_of_folder(folder, self.tokenizer)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # stdout is for results
        try:
            import vllm  # pyright: ignore[reportMissingImports]
            from vllm.sampling_params import StructuredOutputsParams  # pyright: ignore[reportMissingImports]
            from vllm.v1.engine.exceptions import EngineDeadError  # pyright: ignore[reportMissingImports]
        except ImportError as e:
            raise ValueError(
                f"vllm:{name or folder}: vLLM is not installed here ({e}); install it: {INSTALL}"
            ) from e
        self._params, self._prompt = vllm.SamplingParams, vllm.TokensPrompt
        self._form, self._dead = StructuredOutputsParams, EngineDeadError
        if gpus > 1:
            options = {"tensor_parallel_size": gpus, "distributed_executor_backend": "mp", **options}
        if context is not None:
            options = {"max_model_len": context, **options}
        try:
            self._llm: Any = vllm.LLM(
                model=str(folder), enable_prefix_caching=True, max_logprobs=-1, logprobs_mode="raw_logprobs", **options
            )  # fmt: skip
        except RuntimeError as e:  # too little memory, no device, an option it does not know
            raise ValueError(f"vllm:{name or folder}: vLLM does not start (its log says more): {e}") from e
        model = self._llm.llm_engine.model_config
        dtype = str(model.dtype).removeprefix("torch.")
        self.info = EngineInfo(
            name or str(folder), model.max_model_len, model.get_vocab_size(), f"vllm:{dtype}"
        )
        self.counter = Counter()

    @property
    def usage(self) -> Usage:
        return self.counter.usage()

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[tuple[int, list[Completion]]]:
        """All samples of all requests are one call of vLLM; results come in order, once the last sample has ended.
        Penalties for presence and frequency count what was generated, as in the OpenAI API; a repeat penalty counts
        all of prompt and answer and is refused with another `repeat_last`."""
        self._check(requests)
        asked = [(i, j) for i, r in enumerate(requests) for j in range(r.n)]
        with self._faults():
            params = [self._sampling(requests[i], j) for i, j in asked]
            outputs = self._run([requests[i].prompt for i, _ in asked], params)
        done: dict[int, list[Completion]] = {i: [] for i in range(len(requests))}
        for (i, _), output in zip(asked, outputs):
            done[i].append(self._completion(requests[i], output))
        yield from done.items()

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """vLLM tells the log-probabilities of a prompt, and draws one token after it that is thrown away."""
        for i, r in enumerate(requests):
            n = len(r.context) + len(r.continuation)
            if not r.context or not r.continuation or n >= self.info.context:
                raise PromptTooLong(
                    f"score request {i}: {len(r.context)} + {len(r.continuation)} tokens; {self.info.name} takes a "
                    f"context and a continuation of at least one token, {self.info.context - 1} together"
                )
        prompts = [r.context + r.continuation for r in requests]
        with self._faults():
            one = self._params(
                max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False, ignore_eos=True
            )
            outputs = self._run(prompts, [one] * len(prompts))
        return [
            _score(p[len(r.context) :], o.prompt_logprobs[len(r.context) :])
            for r, p, o in zip(requests, prompts, outputs)
        ]

    def close(self) -> None:
        """vLLM has no call that closes: its processes and memory go with the object."""
        self._llm = None
        gc.collect()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """vLLM's errors have no common class over its versions: what did not end it is a refusal."""
        try:
            yield
        except self._dead as e:
            raise EngineDead(f"{self.info.name}: vLLM ended (its log says why): {e}") from e
        except Exception as e:
            raise ValueError(f"{self.info.name}: vLLM refuses: {e}") from e

    def _run(self, prompts: Sequence[tuple[int, ...]], params: list[Any]) -> list[Any]:
        if not prompts:
            return []
        outputs = self._llm.generate(
            [self._prompt(prompt_token_ids=list(p)) for p in prompts], params, use_tqdm=False
        )
        self.counter.prefilled += sum(len(p) - (o.num_cached_tokens or 0) for p, o in zip(prompts, outputs))
        self.counter.generated += sum(len(o.outputs[0].token_ids) for o in outputs)
        return outputs

    def _check(self, requests: Sequence[GenRequest]) -> None:
        for i, r in enumerate(requests):
            if not r.prompt or len(r.prompt) + 1 > self.info.context:
                raise PromptTooLong(
                    f"request {i}: a prompt of {len(r.prompt)} tokens; {self.info.name} takes "
                    f"1 to {self.info.context - 1}"
                )
            if r.grammar is not None and r.json_schema is not None:
                raise ValueError("generate: give a grammar or a JSON schema, not both")
            if r.repeat_penalty != 1 and r.repeat_last != -1:
                raise ValueError(
                    "vLLM's repeat penalty counts prompt and answer as a whole: give repeat_last=-1"
                )

    def _sampling(self, r: GenRequest, number: int) -> Any:
        form = None
        if r.grammar is not None:
            form = self._form(grammar=r.grammar)
        elif r.json_schema is not None:
            form = self._form(json=r.json_schema)
        counts = r.repeat_last != 0
        return self._params(
            max_tokens=max(r.max_tokens, 1), temperature=r.temperature, top_p=r.top_p, top_k=r.top_k, min_p=r.min_p,
            seed=seed_of(r.seed, number), stop=list(r.stop), stop_token_ids=list(r.stop_ids),
            ignore_eos=form is None,  # stop_ids alone end an answer; a form ends with the model's own end token
            repetition_penalty=r.repeat_penalty,
            presence_penalty=r.presence_penalty if counts else 0.0,
            frequency_penalty=r.frequency_penalty if counts else 0.0,
            logprobs=r.top_logprobs, prompt_logprobs=0 if r.prompt_logprobs else None,
            detokenize=bool(r.stop),  # vLLM needs texts to find stop strings only
            structured_outputs=form,
        )  # fmt: skip

    def _completion(self, r: GenRequest, output: Any) -> Completion:
        said = output.outputs[0]
        tokens = tuple(said.token_ids)[: r.max_tokens]
        finish: Finish = said.finish_reason if said.finish_reason in ("stop", "length") else "error"
        rows = list(said.logprobs or ())[: len(tokens)]
        text = self.decode(tokens[:-1] if tokens and tokens[-1] in r.stop_ids else tokens)
        cut = min((at for at in map(text.find, r.stop) if at >= 0), default=len(text))
        return Completion(
            text[:cut], tokens, tuple(row[t].logprob for t, row in zip(tokens, rows)), finish,
            tuple(_top(row, r.top_logprobs) for row in rows) if r.top_logprobs else (),
            _echo(r.prompt, output.prompt_logprobs) if r.prompt_logprobs else (),
        )  # fmt: skip


def _top(row: dict[int, Any], most: int) -> tuple[tuple[int, float], ...]:
    """The `most` first of a row, which holds the sampled token beside them."""
    ranked = sorted(row.items(), key=lambda x: x[1].rank)
    return tuple((token, value.logprob) for token, value in ranked[:most])


def _echo(prompt: Sequence[int], rows: Sequence[Row]) -> tuple[float, ...]:
    return tuple(row[t].logprob for t, row in zip(prompt, rows) if row is not None)


def _score(tokens: Sequence[int], rows: Sequence[Any]) -> Score:
    found = [row[t] for t, row in zip(tokens, rows)]
    return Score(sum(x.logprob for x in found), all(x.rank == 1 for x in found), len(found))
