"""Why a request gets no answer. Routes raise it; each API writes it in its own form."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """`status` is HTTP's. `param` names the field at fault where one is."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def openai(self) -> dict[str, Any]:
        """The error of OpenAI's API."""
        kind = {404: "not_found_error", 401: "authentication_error", 503: "server_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "api_error"
        )
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def bad(message: str, param: str | None = None) -> Refusal:
    return Refusal(400, message, param=param)


def no_model(name: str) -> Refusal:
    return Refusal(404, f"model '{name}' not found", param="model", code="model_not_found")
