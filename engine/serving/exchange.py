"""One request for a prediction on one connection, without a task and without ASGI messages.

It stands where uvicorn's protocol keeps a `RequestResponseCycle` (`protocol.cycle`) and has the attributes that
the protocol reads there. A task, a scope and four messages a request cost a tenth of all the processor time
that a small net takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from engine.serving.bodies import Bodies
from engine.serving.replies import JSON, RETRY, Headers, HttpError, error_body
from engine.serving.requests import request_id
from engine.serving.slot import Unavailable

log = logging.getLogger("understudy.serving")
_access = logging.getLogger("uvicorn.access")

# a client that was refused and asks again at once would take the time that the accepted ones need
_FULL_PAUSE_S = 0.02
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_OF_JSON = b"content-type: application/json\r\ncontent-length: %d\r\n"


class Plan(NamedTuple):
    """What a worker will be asked: the frame's kind and argument, and the metrics' name of the endpoint."""

    kind: int
    argument: int
    label: str


class Predictor(Protocol):
    """Who answers an exchange: `engine.serving.app.App`."""

    bodies: Bodies

    def admit(self, exchange: Exchange) -> Plan: ...

    def ask(self, exchange: Exchange, plan: Plan, body: bytes) -> None: ...

    def refused(self, exchange: Exchange, status: int) -> None: ...


class Exchange:
    """Collects a body, has the app answer it, writes the answer.

    Args:
        headers: names in lower case.
        keep_alive: whether the client can send another request on this connection.

    Attributes:
        release: who answered, for the access log; "" where nobody did.
    """

    message_event = asyncio.Event()  # the protocol sets it when the connection ends; nobody waits for it

    def __init__(
        self, protocol: HttpToolsProtocol, app: Predictor, path: str, query: bytes,
        headers: Sequence[tuple[bytes, bytes]], *, keep_alive: bool, expects_continue: bool,
    ) -> None:  # fmt: skip
        self.path, self.query, self.headers = path, query, headers
        self.keep_alive = keep_alive
        self.disconnected = self.response_started = self.response_complete = False
        self.transport: Any = protocol.transport
        self.label = self.release = ""
        self.request_id = request_id(headers)
        self._protocol, self._app = protocol, app
        self._expects_continue = expects_continue
        self._parts: list[bytes] = []
        self._held = 0
        self._plan: Plan | None = None
        self._whole = self._asked = self._refusing = False

    def begin(self) -> None:
        """Its turn has come: what was asked before on this connection is answered."""
        try:
            self._plan = self._app.admit(self)
        except (HttpError, Unavailable) as error:
            self.refuse(error)
            return
        if self._whole:
            self._ask()
        elif self._expects_continue:
            self.transport.write(_CONTINUE)

    def take(self, part: bytes) -> None:
        """A part of the body."""
        if self.disconnected or self._refusing:
            return
        self._parts.append(part)
        self._held += len(part)
        try:
            self._app.bodies.hold(len(part), self._held)
        except HttpError as error:
            if self._plan is not None:
                self.refuse(error)
            else:
                self.transport.close()  # pipelined before its turn, and too large already

    def complete(self) -> None:
        """The body is whole."""
        self._whole = True
        if self._plan is not None and not self._refusing:
            self._ask()

    def _ask(self) -> None:
        assert self._plan is not None
        self._asked = True
        parts, self._parts = self._parts, []
        try:
            self._app.ask(self, self._plan, parts[0] if len(parts) == 1 else b"".join(parts))
        except (HttpError, Unavailable) as error:
            self.refuse(error)
        except Exception:
            log.exception("POST %s failed", self.path, extra={"request_id": self.request_id.decode()})
            self.refuse(HttpError(500, "defect", "the server failed", "see its log"))

    def refuse(self, error: HttpError | Unavailable) -> None:
        if isinstance(error, Unavailable):
            error = HttpError(503, error.kind, error.message, error.hint, () if error.kind == "empty" else RETRY)
        self._app.refused(self, error.status)
        if error.kind == "full":
            self._refusing = True
            self.give_back()
            self._protocol.loop.call_later(_FULL_PAUSE_S, self._say, error)
        else:
            self._say(error)

    def _say(self, error: HttpError) -> None:
        body = error_body(self.path, error.kind, error.message, error.hint)
        self.answer(error.status, body, headers=error.headers)

    def answer(self, status: int, body: bytes, kind: bytes = JSON, headers: Headers = ()) -> None:
        """Write the one answer; the body's bytes are given back."""
        self.give_back()
        if self.disconnected or self.response_complete:
            return
        protocol = self._protocol
        head = [STATUS_LINE[status], b"x-request-id: ", self.request_id, b"\r\n"]
        for name, value in (*protocol.server_state.default_headers, *headers):
            head += (name, b": ", value, b"\r\n")
            if name == b"connection" and value == b"close":
                self.keep_alive = False
        if kind is JSON:
            head.append(_OF_JSON % len(body))
        else:
            head += (b"content-type: ", kind, b"\r\ncontent-length: %d\r\n" % len(body))
        head += (b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n", body)
        self.response_started = self.response_complete = True
        self.transport.write(b"".join(head))
        if protocol.access_log:
            self._log(status)
        if not self.keep_alive:
            self.transport.close()
        protocol.on_response_complete()

    def give_back(self) -> None:
        """The body is needed no more."""
        self._app.bodies.release(self._held)
        self._held, self._parts = 0, []

    def lost(self) -> None:
        """The connection ended; an answer that is still to come goes nowhere."""
        self.disconnected = True
        if not self._asked:
            self.give_back()

    def _log(self, status: int) -> None:
        client = self._protocol.client
        where = self.path + (f"?{self.query.decode('latin-1')}" if self.query else "")
        words = (f"{client[0]}:{client[1]}" if client else "", "POST", where, "1.1", status)  # as uvicorn's own
        about = {"request_id": self.request_id.decode(), "release": self.release}
        _access.info('%s - "%s %s HTTP/%s" %d', *words, extra=about)
