"""What all routes of a server share, and the notes that a route leaves for the access log."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from phikit.serve.metrics import Metrics
from phikit.serve.pool import Pool
from phikit.serve.settings import Settings
from phikit.store.store import Store

# Clients compare: 0.12.11 was the first Ollama with log-probabilities.
OLLAMA_VERSION = "0.12.11"


@dataclass(frozen=True, slots=True)
class State:
    store: Store
    settings: Settings
    pool: Pool
    metrics: Metrics


def state(request: Request) -> State:
    return request.scope["state"]["server"]


def note(request: Request, **values: Any) -> None:
    """Fields for this request's line of the access log; those that are None are left out."""
    request.scope["state"]["notes"].update({k: v for k, v in values.items() if v is not None})


def phikit_version() -> str:
    return importlib.metadata.version("phikit")
