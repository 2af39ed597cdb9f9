"""Answers as raw ASGI messages, and the error body of the contract."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

JSON = b"application/json"
RETRY: Headers = ((b"retry-after", b"1"),)


class HttpError(Exception):
    """A request that is refused: `status`, and the contract's kind, message and hint."""

    def __init__(self, status: int, kind: str, message: str, hint: str = "", headers: Headers = ()) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.hint = status, kind, message, hint
        self.headers = tuple(headers)


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


def error_body(path: str, kind: str, message: str, hint: str = "") -> bytes:
    """`{"error": {kind, message, hint}}`; under /v2 the protocol wants `{"error": "string"}`."""
    value: Any = {"kind": kind, "message": message, "hint": hint}
    if path == "/v2" or path.startswith("/v2/"):
        value = f"{message}: {hint}" if hint else message
    return json.dumps({"error": value}, ensure_ascii=False).encode()


async def reply(send: Send, status: int, body: bytes, kind: bytes = JSON, headers: Headers = ()) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def reply_error(send: Send, path: str, error: HttpError) -> None:
    body = error_body(path, error.kind, error.message, error.hint)
    await reply(send, error.status, body, headers=error.headers)
