"""Any lm-eval task on any of our engines: an engine as an lm-eval `LM`.

    from lm_eval import simple_evaluate
    from phikit.evals.lm_eval_bridge import lm

    simple_evaluate(lm(open_engine("smollm2")), tasks=["arc_easy"])

lm-eval is no dependency: it is imported when `lm` is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phikit.engine.base import Engine, GenRequest, ScoreRequest
from phikit.evals.asking import continuations, windows
from phikit.records.ids import seed_of

MAX_TOKENS = 256  # lm-eval's own default


def lm(engine: Engine, *, seed: int = 0) -> Any:
    """The engine as an `lm_eval.api.model.LM`. Requests are lm-eval's; a prompt that does not fit the context raises
    PromptTooLong where lm-eval's own models cut it on the left. It has no chat template: lm-eval passes conversations
    as text, which would lose their special tokens; `phikit eval` runs chat tasks. Raises ImportError without
    lm-eval."""
    from lm_eval.api.model import LM  # type: ignore[import-not-found]

    class Bridge(LM):
        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            pairs = [r.args for r in requests]
            return [(s.logprob, s.greedy) for s in engine.score([_pair(engine, c, x) for c, x in pairs])]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            return rolling(engine, [r.args[0] for r in requests])

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            asked = [
                generation(engine, r.args[0], r.args[1], seed_of(seed, k)) for k, r in enumerate(requests)
            ]
            found = [""] * len(asked)
            for index, (completion,) in engine.generate(asked):
                found[index] = completion.text
            return found

        @property
        def tokenizer_name(self) -> str:
            return engine.info.name

    return Bridge()


def generation(engine: Engine, context: str, kwargs: dict[str, Any], seed: int) -> GenRequest:
    """lm-eval's generation settings as a request. Unknown settings are an error, not ignored."""
    known = {"until", "max_gen_toks", "do_sample", "temperature", "top_p"}
    if unknown := sorted(set(kwargs) - known):
        raise ValueError(f"generation settings {unknown} are not known here; known are {sorted(known)}")
    until = kwargs.get("until", ())
    sampled = bool(kwargs.get("do_sample", float(kwargs.get("temperature", 0.0)) > 0))
    return GenRequest(
        tuple(engine.encode(context)),
        int(kwargs.get("max_gen_toks", MAX_TOKENS)),
        temperature=float(kwargs.get("temperature", 1.0)) if sampled else 0.0,
        top_p=float(kwargs.get("top_p", 1.0)),
        stop_ids=tuple(engine.stop_ids),
        stop=(until,) if isinstance(until, str) else tuple(until),
        seed=seed,
    )


def rolling(engine: Engine, texts: Sequence[str]) -> list[float]:
    """Log-probability of whole texts, in windows of the context that overlap by one token. The first token stands
    after the end-of-text token, as in lm-eval."""
    start, window = engine.stop_ids[-1], engine.info.context
    requests: list[ScoreRequest] = []
    counts = []
    for text in texts:
        cuts = windows([start, *engine.encode(text)], window)
        requests += cuts
        counts.append(len(cuts))
    scores = iter(engine.score(requests))
    return [sum(next(scores).logprob for _ in range(n)) for n in counts]


def _pair(engine: Engine, context: str, continuation: str) -> ScoreRequest:
    if context:
        return continuations(engine, context, [continuation])[0]
    return ScoreRequest((engine.stop_ids[-1],), tuple(engine.encode(continuation)))
