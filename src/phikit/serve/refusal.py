"""Why a request gets no answer. Routes raise it; each API writes it in its own form."""

from __future__ import annotations


class Refusal(Exception):
    """`status` is HTTP's. `param` names the field at fault where one is."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


def bad(message: str, param: str | None = None) -> Refusal:
    return Refusal(400, message, param=param)


def no_model(name: str) -> Refusal:
    return Refusal(404, f"model '{name}' not found", param="model", code="model_not_found")
