"""A fleet of equal engines on a Ray cluster, used like one engine: the offline batch mode of the teacher.

Each engine lives in an actor. The flows, the request log and the budget are those of a local teacher: a request has the
same key and the same seed wherever it is answered, so a run that began on a laptop goes on on a cluster.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from phikit.ask.backends import lanes_of
from phikit.engine.base import EngineInfo, GenRequest, ScoreRequest, Usage
from phikit.engine.child import EngineCrashed
from phikit.engine.vllm_engine import EngineDead
from phikit.jobs.on_ray import Cluster
from phikit.jobs.run import PLAN_ONLY, check_on
from phikit.records.types import Completion, Score, Turn

START = 600.0  # seconds in which the engines must be open
RESTARTS = 3  # of an actor; its requests are asked again, with the same seeds
THREADS = 4  # of an engine on CPUs, unless said otherwise


class Held:
    """An engine in an actor."""

    def __init__(self, spec: str, options: dict[str, Any]) -> None:
        from phikit.engine.open import open_engine

        self.engine = open_engine(spec, **options)
        self.lanes, self.batch = lanes_of(self.engine)
        self.turn = nullcontext() if self.lanes > 1 else threading.Lock()  # one lane: not thread-safe

    def about(self) -> tuple[EngineInfo, tuple[int, ...], int, int]:
        return self.engine.info, self.engine.stop_ids, self.lanes, self.batch

    def text(self, method: str, argument: Any) -> Any:
        """`encode`, `decode` or `render`."""
        return getattr(self.engine, method)(argument)

    def usage(self) -> Usage:
        return self.engine.usage

    def generate(self, requests: Sequence[GenRequest]) -> list[tuple[int, list[Completion]]]:
        return self._answer(lambda: list(self.engine.generate(requests)))

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return self._answer(lambda: self.engine.score(requests))

    def _answer(self, ask: Callable[[], Any]) -> Any:
        with self.turn:
            try:
                return ask()
            except EngineDead as e:
                print(e, file=sys.stderr, flush=True)
                os._exit(1)  # Ray starts a fresh actor and asks it again


class Fleet:
    """Engines of `spec` on the cluster that `on` names (as `jobs.on_ray.Cluster`): `replicas`; without a number one for
    every `gpus` free GPUs where the model is no GGUF and there are so many, else one for each `threads` free CPUs.
    `gpus` above 1 is for vLLM, which splits each matrix among them. Every machine must find the model under `spec`.
    Thread-safe: a call goes to the engine with the fewest. `lanes` calls keep all busy, of `batch` requests each. What
    an engine that died was asked is asked again, of a fresh one.

    Raises ValueError where Ray is absent or does not answer, or a worker cannot open the model."""

    def __init__(
        self,
        spec: str,
        on: str,
        *,
        replicas: int = 0,
        parallel: int = 4,
        context: int | None = None,
        threads: int | None = None,
        gpus: int = 1,
    ) -> None:
        check_on(on)
        if on == PLAN_ONLY:
            raise ValueError(
                "--on plan: a teacher's requests are no plan; give local, ray or the address of a cluster"
            )
        self.name = spec
        self.actors: list[Any] = []
        self.cluster = Cluster(on)
        self.ray = ray = self.cluster.ray
        free = ray.available_resources()
        places = 0 if spec.endswith(".gguf") else int(free.get("GPU", 0)) // gpus
        if gpus > 1 and not places:
            self.cluster.close()
            raise ValueError(
                f"--on {on}: {int(free.get('GPU', 0))} GPUs are free there, and an engine asks for {gpus}"
            )
        cpus = min(threads or THREADS, max(int(free.get("CPU", 1)), 1))
        self.replicas = replicas or places or max(int(free.get("CPU", 1)) // cpus, 1)
        options = {"parallel": parallel, "context": context, "threads": cpus, "gpus": gpus}
        actor = ray.remote(
            num_cpus=cpus, num_gpus=gpus if places else 0, max_restarts=RESTARTS, max_task_retries=RESTARTS,
            max_concurrency=parallel + 2,  # beside the slots: texts, while it generates
        )(Held)  # fmt: skip
        self.lock = threading.Lock()
        self.actors = [actor.remote(spec, options) for _ in range(self.replicas)]
        self.calls = [0] * self.replicas  # under way, by actor
        try:
            told = self._get([a.about.remote() for a in self.actors], START)
        except (EngineCrashed, TimeoutError) as e:
            self.close()
            what = f"{self.replicas} engines of {spec} with {cpus} CPUs each"
            raise ValueError(f"--on {on}: {what} do not start: {e}") from e
        except BaseException:
            self.close()
            raise
        self.info, self._stop_ids, lanes, self.batch = told[0]
        if any(info != self.info for info, *_ in told):
            self.close()
            raise ValueError(f"--on {on}: the machines have different models under {spec}")
        self.lanes = self.replicas * lanes

    @property
    def usage(self) -> Usage:
        all_of = self._get([a.usage.remote() for a in self.actors])
        return Usage(sum(u.prefilled for u in all_of), sum(u.generated for u in all_of))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self._stop_ids

    def encode(self, text: str) -> list[int]:
        return self._call(lambda a: a.text.remote("encode", text))

    def decode(self, ids: Sequence[int]) -> str:
        return self._call(lambda a: a.text.remote("decode", ids))

    def render(self, turns: Sequence[Turn]) -> list[int]:
        return self._call(lambda a: a.text.remote("render", turns))

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[tuple[int, list[Completion]]]:
        yield from self._call(lambda a: a.generate.remote(list(requests)))

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return self._call(lambda a: a.score.remote(list(requests)))

    def close(self) -> None:
        if self.ray.is_initialized():
            for actor in self.actors:
                self.ray.kill(actor)
        self.cluster.close()

    def _call(self, ask: Callable[[Any], Any]) -> Any:
        """What the engine with the fewest calls answers."""
        with self.lock:
            i = min(range(self.replicas), key=self.calls.__getitem__)
            self.calls[i] += 1
        try:
            return self._get(ask(self.actors[i]))
        finally:
            with self.lock:
                self.calls[i] -= 1

    def _get(self, refs: Any, timeout: float | None = None) -> Any:
        errors = self.ray.exceptions
        try:
            return self.ray.get(refs, timeout=timeout)
        except errors.RayTaskError as e:
            raise (e.cause if isinstance(e.cause, Exception) else EngineCrashed(str(e))) from None
        except errors.GetTimeoutError as e:
            raise TimeoutError(f"no answer in {START:g} s; fewer replicas or threads?") from e
        except errors.RayError as e:
            raise EngineCrashed(f"{self.name} on Ray: {str(e).strip().splitlines()[-1]}") from e
