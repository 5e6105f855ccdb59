"""How the server runs: options of `phikit serve`, with the environment variables that Ollama's users know."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from phikit.serve.durations import seconds

PORT = 11434
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """Times are seconds, sizes bytes. `context` 0: the model's own, at most 4096 tokens. `threads` 0: all cores.
    `max_loaded` models are in memory at once, each computes `parallel` samples at once; `max_queue` requests may be
    under way or wait in all."""

    host: str = "127.0.0.1"
    port: int = PORT
    origins: tuple[str, ...] = ()
    api_key: str = ""
    context: int = 0
    threads: int = 0
    parallel: int = 4
    max_loaded: int = 3
    max_queue: int = 512
    keep_alive: float = 300.0
    max_body: int = 32 * MIB
    max_upload: int = 1 << 40
    header_time: float = 15.0
    body_time: float = 60.0
    request_time: float = 3600.0
    shutdown_time: float = 10.0
    log: Path | None = None

    @property
    def is_loopback(self) -> bool:
        return self.host in ("127.0.0.1", "localhost", "::1") or self.host.startswith("127.")


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """The defaults, changed by OLLAMA_HOST, OLLAMA_ORIGINS, OLLAMA_CONTEXT_LENGTH, OLLAMA_NUM_PARALLEL,
    OLLAMA_MAX_LOADED_MODELS, OLLAMA_MAX_QUEUE, OLLAMA_KEEP_ALIVE and PHIKIT_SERVE_KEY. Raises ValueError that names
    the variable."""
    given = Settings()
    host, port = parse_host(environment.get("OLLAMA_HOST", ""), given.host, given.port)

    def whole(name: str, default: int) -> int:
        text = environment.get(name, "")
        if not text:
            return default
        if not text.isdigit() or int(text) > 1 << 20:
            raise ValueError(f"{name}={text}: give a whole number from 0 on")
        return int(text) or default

    keep = environment.get("OLLAMA_KEEP_ALIVE", "")
    try:
        keep_alive = seconds(keep) if keep else given.keep_alive
    except ValueError as e:
        raise ValueError(f"OLLAMA_KEEP_ALIVE: {e}") from e
    return Settings(
        host=host,
        port=port,
        origins=tuple(o.strip() for o in environment.get("OLLAMA_ORIGINS", "").split(",") if o.strip()),
        api_key=environment.get("PHIKIT_SERVE_KEY", ""),
        context=whole("OLLAMA_CONTEXT_LENGTH", given.context),
        parallel=whole("OLLAMA_NUM_PARALLEL", given.parallel),
        max_loaded=whole("OLLAMA_MAX_LOADED_MODELS", given.max_loaded),
        max_queue=whole("OLLAMA_MAX_QUEUE", given.max_queue),
        keep_alive=keep_alive,
    )


def parse_host(text: str, host: str, port: int) -> tuple[str, int]:
    """(host, port) of OLLAMA_HOST: [http[s]://]host[:port][/]; what it leaves out stays as given."""
    scheme, slashes, rest = text.strip().partition("://")
    if not slashes:
        scheme, rest = "", text.strip()
    rest = rest.split("/")[0]
    found, colon, number = rest.rpartition(":")
    if not colon or "]" in number:
        found, number = rest, {"http": "80", "https": "443"}.get(scheme, "")
    if number and not (number.isdigit() and 0 <= int(number) < 1 << 16):
        raise ValueError(f"OLLAMA_HOST={text}: {number!r} is no port")
    return found.strip("[]") or host, int(number) if number else port
