"""LlamaEngine: a GGUF through llama.cpp in a child process.

Scores are forced single-token steps: for each continuation token one call with a bias that makes llama.cpp
pick it, whose reported log-probability is the one before the bias; the prompt cache makes each step cost one
token. llama.cpp returns no log-probabilities of prompt tokens, and forcing by grammar picks other
tokenizations, so neither is used. Quantized logits depend slightly on the shape of the batch (up to about
0.05 nats a token were measured on Q4_1 between a cold and a warm cache), hence `numerics` "gguf:<type>"."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

from phikit.engine.base import Counter, EngineInfo, GenRequest, PromptTooLong, ScoreRequest, Usage
from phikit.engine.gguf_meta import read_meta
from phikit.engine.template import ChatTemplate
from phikit.records.ids import seed_of
from phikit.records.types import Completion, Finish, Score, Turn

DEFAULT_CONTEXT = 4096
_FORCE = 1e4  # a logit bias beyond any real logit


class EngineCrashed(RuntimeError):
    """The llama.cpp child process ended; the message names the model and what the process last said."""


class LlamaEngine:
    """`context` tokens for each of `parallel` slots (default: the trained context, at most 4096).
    Thread-safe: calls from several threads share the slots. `threads` defaults to the number of cores.

    An end-of-text token always ends a completion, in `stop_ids` or not: llama.cpp cannot go on after one."""

    def __init__(
        self, path: Path, *, context: int | None = None, parallel: int = 1, threads: int | None = None
    ) -> None:
        self.meta = read_meta(Path(path))
        if context is not None and not 1 <= context <= self.meta.context:
            raise ValueError(f"{path}: context must be 1 to {self.meta.context} tokens, not {context}")
        if parallel < 1:
            raise ValueError(f"parallel must be at least 1, not {parallel}")
        self.parallel = parallel
        self.info = EngineInfo(
            name=f"{self.meta.path.stem}@{self.meta.fingerprint}",
            context=context or min(self.meta.context, DEFAULT_CONTEXT),
            vocab=self.meta.vocab,
            numerics=f"gguf:{self.meta.file_type}",
        )
        self._counter = Counter()
        self._lock = threading.Lock()
        self._child = _Child(self.meta.path, self.info.context, parallel, threads or os.cpu_count() or 1)

    @property
    def usage(self) -> Usage:
        with self._lock:
            return self._counter.usage()

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self.meta.stop_ids

    def encode(self, text: str) -> list[int]:
        return self._child.ask({"op": "tokenize", "text": text, "special": False}) if text else []

    def decode(self, ids: Sequence[int]) -> str:
        specials = set(self.meta.specials.values())
        plain = [int(i) for i in ids if i not in specials]
        return self._child.ask({"op": "detokenize", "ids": plain}) if plain else ""

    def render(self, turns: Sequence[Turn]) -> list[int]:
        """The GGUF's own template. Special-token strings inside a turn stay text: nobody can forge a turn."""
        if not self.meta.template:
            raise ValueError(
                f"{self.meta.path}: this GGUF has no chat template; it is a base model: use encode()"
            )
        template = ChatTemplate(self.meta.template, self.meta.bos, self.meta.eos, tuple(self.meta.specials))
        ids: list[int] = []
        for text, special in template.render(turns):
            ids += self._child.ask({"op": "tokenize", "text": text, "special": special})
        return ids

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[tuple[int, list[Completion]]]:
        """Results as they finish. Raises PromptTooLong, ValueError (bad grammar) and EngineCrashed."""
        for request in requests:
            self._check(len(request.prompt) + 1, len(request.prompt))
        owner: dict[Future[Any], tuple[int, int]] = {}
        parts: list[dict[int, Completion]] = [{} for _ in requests]
        for index, request in enumerate(requests):
            for sample in range(request.n):
                owner[self._child.send(_complete(request, sample, self.stop_ids))] = (index, sample)
        open_: set[Future[Any]] = set(owner)
        try:
            while open_:
                done, open_ = wait(open_, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=lambda f: owner[f]):
                    index, sample = owner[future]
                    parts[index][sample] = self._completion(requests[index], future.result())
                    if len(parts[index]) == requests[index].n:
                        yield index, [parts[index][k] for k in range(requests[index].n)]
        finally:
            self._child.cancel(open_)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One step after another in the order of the token sequences, so that shared prefixes are computed
        once and a repeated call gives the same numbers."""
        for request in requests:
            if not request.context:
                raise ValueError("score: the context is empty; begin it with the model's start token")
            self._check(len(request.context) + len(request.continuation), len(request.context))
        scores: list[Score] = [Score(0.0, True, 0)] * len(requests)
        order = sorted(range(len(requests)), key=lambda i: requests[i].context + requests[i].continuation)
        known: dict[
            tuple[int, ...], tuple[float, bool]
        ] = {}  # sequence -> (logprob of its last token, greedy)
        for i in order:
            request = requests[i]
            total, greedy = 0.0, True
            for j in range(len(request.continuation)):
                sequence = request.context + request.continuation[: j + 1]
                if sequence not in known:
                    known[sequence] = self._force(sequence)
                total += known[sequence][0]
                greedy = greedy and known[sequence][1]
            scores[i] = Score(total, greedy, len(request.continuation))
        return scores

    def close(self) -> None:
        """Ends the child process and with it gives the model's memory back."""
        self._child.close()

    def _force(self, sequence: tuple[int, ...]) -> tuple[float, bool]:
        *prompt, token = sequence
        body = {
            "prompt": prompt, "max_tokens": 1, "temperature": 0.0, "logprobs": 1, "cache_prompt": True,
            "logit_bias": [[token, _FORCE]], "id_slot": 0,
        }  # fmt: skip
        reply = self._child.send({"op": "complete", "body": body}).result()
        if reply["tokens"][:1] != [token]:
            raise EngineCrashed(
                f"{self.info.name}: llama.cpp did not take forced token {token}: {reply['tokens']}"
            )
        self._count(len(prompt) - reply["cached"], 0)
        return reply["logprobs"][0], reply["top"][0] == token

    def _check(self, needed: int, prompt: int) -> None:
        if needed > self.info.context:
            raise PromptTooLong(
                f"{self.info.name}: a prompt of {prompt} tokens needs {needed} in all, the context "
                f"is {self.info.context} tokens; shorten the prompt or open the model with a larger context"
            )

    def _completion(self, request: GenRequest, reply: dict[str, Any]) -> Completion:
        self._count(len(request.prompt) - reply["cached"], len(reply["tokens"]))
        finish: Finish = "length" if reply["finish"] == "length" else "stop"
        # On `until` the stop token has its text in the reply; the text of a completion is without it.
        text = self.decode(reply["tokens"][:-1]) if reply["finish"] == "until" else reply["text"]
        return Completion(text, tuple(reply["tokens"]), tuple(reply["logprobs"]), finish)

    def _count(self, prefilled: int, generated: int) -> None:
        with self._lock:
            self._counter.prefilled += prefilled
            self._counter.generated += generated


def _complete(request: GenRequest, sample: int, ends: tuple[int, ...]) -> dict[str, Any]:
    # The server's own defaults cut the distribution (top_k 40, min_p 0.05): all are set to "off".
    body: dict[str, Any] = {
        "prompt": list(request.prompt), "max_tokens": request.max_tokens, "temperature": request.temperature,
        "top_p": request.top_p, "top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "dry_multiplier": 0.0, "xtc_probability": 0.0,
        "seed": seed_of(request.seed, sample) & 0x7FFFFFFF, "logprobs": 1, "cache_prompt": True,
    }  # fmt: skip
    if request.stop:
        body["stop"] = list(request.stop)
    if request.grammar:
        body["grammar"] = request.grammar
    return {"op": "complete", "body": body, "until": sorted(set(request.stop_ids) - set(ends))}


class _Child:
    """The process and the futures that wait for its replies."""

    def __init__(self, model: Path, context: int, parallel: int, threads: int) -> None:
        self.model = model
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close())
        arguments = [str(model), str(context), str(parallel), str(threads)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "phikit.engine.llama_worker", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        )  # fmt: skip
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.lock = threading.Lock()
        self.waiting: dict[int, Future[Any]] = {}
        self.ids: dict[Future[Any], int] = {}
        self.next = 0
        self.dead: str | None = None
        first = self.stdout.readline()
        hello = json.loads(first) if first else {}
        if not hello.get("ready"):
            why = hello.get("error") or self._last_words()
            self.close()
            raise ValueError(f"{model}: llama.cpp cannot load this model: {why}")
        self.reader = threading.Thread(target=self._read, name="llama-reader", daemon=True)
        self.reader.start()

    def ask(self, request: dict[str, Any]) -> Any:
        return self.send(request).result()

    def send(self, request: dict[str, Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self.lock:
            if self.dead:
                raise EngineCrashed(self.dead)
            self.next += 1
            self.waiting[self.next], self.ids[future] = future, self.next
            # A broken pipe is noticed by the reader too, which fails this future with the reason.
            with suppress(BrokenPipeError):
                self.stdin.write(json.dumps({"id": self.next, **request}).encode() + b"\n")
                self.stdin.flush()
        return future

    def cancel(self, futures: set[Future[Any]]) -> None:
        with self.lock:
            ids = [self.ids.pop(f) for f in futures if f in self.ids]
            for i in ids:
                self.waiting.pop(i, None)
            if ids and not self.dead:
                with suppress(BrokenPipeError, ValueError):
                    self.stdin.write(json.dumps({"op": "cancel", "ids": ids}).encode() + b"\n")
                    self.stdin.flush()

    def close(self) -> None:
        with self.lock:
            self.dead = self.dead or f"{self.model}: the engine was closed"
        with suppress(BrokenPipeError):
            self.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if hasattr(self, "reader"):
            self.reader.join(5)
        self.stdout.close()
        self.log.close()

    def _read(self) -> None:
        for line in self.stdout:
            reply = json.loads(line)
            with self.lock:
                future = self.waiting.pop(reply["id"], None)
                if future is not None:
                    self.ids.pop(future, None)
            if future is None:  # cancelled
                continue
            if "error" in reply:
                future.set_exception(ValueError(f"{self.model.name}: {reply['error']}"))
            else:
                future.set_result(reply["result"])
        with self.lock:
            self.dead = (
                self.dead or f"{self.model}: the llama.cpp process ended: {self._last_words()}; open it again"
            )
            left = list(self.waiting.values())
            self.waiting.clear()
            self.ids.clear()
            dead = self.dead
        for future in left:
            future.set_exception(EngineCrashed(dead))

    def _last_words(self) -> str:
        code = self.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "replace").strip().splitlines()
        return f"{how}" + (f", last output: {' | '.join(lines[-3:])[:400]}" if lines else "")
