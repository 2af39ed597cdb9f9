"""uvicorn's httptools protocol with limits that it lacks: time for headers and body, size of the headers,
a refusal that reaches a client which is still sending; and a short way for predictions."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from engine.serving.app import App
from engine.serving.exchange import Exchange
from engine.serving.replies import error_body
from engine.serving.requests import HEADER, request_id

_access = logging.getLogger("uvicorn.access")
_LEAST_BYTES_PER_S = 64 * 1024  # a large body gets its time, a trickle does not
_MOST_HEADER_BYTES = 64 * 1024
_LINGER_S = 2.0
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_LEAST_DISCARDED = 64 * 1024 * 1024


def limited_protocol(
    receive_timeout_s: float, max_body_bytes: int, *, logs: bool = False
) -> type[asyncio.Protocol]:
    """A protocol class for `uvicorn.Config(http=...)`.

    Args:
        receive_timeout_s: seconds in which headers must be there, and then the body (plus a second for
            every 64 KiB that came); else 408 and the connection is closed.
        max_body_bytes: a client that was refused may send twice this (at least 64 MiB) before it is cut off.
        logs: whether each request gets a line in the log `uvicorn.access`.
    """

    class Limited(LimitedProtocol):
        timeout_s = receive_timeout_s
        logs_requests = logs
        most_discarded = max(_LEAST_DISCARDED, 2 * max_body_bytes)

    return Limited


class LimitedProtocol(HttpToolsProtocol):
    timeout_s: float
    logs_requests: bool
    most_discarded: int

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.access_log = self.logs_requests
        self._receiving_since = time.monotonic()
        self._in_headers, self._in_body = True, False
        self._received = self._discarded = 0
        self._lingering = self._cut_off = False
        self._timer: asyncio.TimerHandle | None = self.loop.call_later(self.timeout_s, self._check_time)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for cycle in (self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, Exchange):
                cycle.lost()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._discard(len(data))
            return
        if not (self._in_headers or self._in_body):
            self._begin_headers()
        self._received += len(data)
        super().data_received(self._without_upgrade(data) if self._in_headers else data)
        if self._in_headers and self._received > _MOST_HEADER_BYTES and not self.transport.is_closing():
            self._refuse(431, "headers_too_large", f"the headers are more than {_MOST_HEADER_BYTES} bytes")

    def _without_upgrade(self, data: bytes) -> bytes:
        """Hide an offer to upgrade (Java's client makes one for HTTP/2): the parser would take the body
        that follows for the other protocol. A server is free to ignore the offer."""
        end = data.find(b"\r\n\r\n")
        if _UPGRADE.search(data, 0, end if end >= 0 else len(data)) is None:
            return data
        cut = end if end >= 0 else len(data)
        return _UPGRADE.sub(b"\r\nx-not-upgraded:", data[:cut]) + data[cut:]

    def _unsupported_upgrade_warning(self) -> None:
        # The offer came in pieces: what follows cannot be read as HTTP any more.
        self._refuse(400, "upgrade", "this server speaks HTTP/1.1 alone")

    def on_message_begin(self) -> None:
        if not self._in_headers:
            self._begin_headers()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers, self._in_body = False, True
        self._receiving_since, self._received, self._discarded = time.monotonic(), 0, 0
        if self.parser.get_method() != b"POST" or not self._begin_exchange():
            super().on_headers_complete()
        cycle = self.cycle
        if not cycle.keep_alive and not cycle.response_complete:
            cycle.transport = cast(asyncio.Transport, _LingeringTransport(self))

    def _begin_exchange(self) -> bool:
        """Take the short way if the request is for a prediction."""
        app = self.app
        if not isinstance(app, App):
            return False
        url, query = self.url, b""
        if url != b"/predict":
            parsed = httptools.parse_url(url)
            url, query = parsed.path, parsed.query or b""
        path = url.decode("ascii")
        if not app.predicts(path):
            return False
        before = self.cycle
        exchange = self.cycle = Exchange(  # type: ignore[assignment]
            self, app, path, query, self.headers,
            keep_alive=self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0",
            expects_continue=self.expect_100_continue,
        )  # fmt: skip
        if not exchange.keep_alive:
            exchange.transport = _LingeringTransport(self)
        if before is None or before.response_complete:
            exchange.begin()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, app))  # type: ignore[arg-type]
        return True

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, Exchange):
            cycle.begin()
        else:
            super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        cycle: Any = self.cycle
        if cycle.response_complete:
            self._discard(len(body))
        elif isinstance(cycle, Exchange):
            cycle.take(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        cycle: Any = self.cycle
        if not isinstance(cycle, Exchange):
            super().on_message_complete()
        elif not cycle.response_complete:
            cycle.complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.flow.write_paused and not self.transport.is_closing():
            self.flow.pause_reading()  # a client that does not read its answers may not ask for more

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.cycle is None or self.cycle.response_complete:
            self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "bad_http", "this is not an HTTP/1.1 request")

    def close_gently(self) -> None:
        """Close so that an answer gets through to a client that is still sending: closing with bytes
        unread would reset the connection and take the answer along."""
        if not self._in_body or self.transport.is_closing():
            self.transport.close()
            return
        self._lingering = True
        self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)

    def _begin_headers(self) -> None:
        self._in_headers, self._received, self._receiving_since = True, 0, time.monotonic()
        self.headers = []  # those of the request before say nothing of this one
        if self._timer is None:  # else the one of an earlier request looks at this one too, when it is due
            self._timer = self.loop.call_later(self.timeout_s, self._check_time)

    def _check_time(self) -> None:
        self._timer = None
        if self.transport.is_closing() or not (self._in_headers or self._in_body):
            return
        allowed = self.timeout_s + (self._received / _LEAST_BYTES_PER_S if self._in_body else 0)
        left = self._receiving_since + allowed - time.monotonic()
        if self.pipeline or self.flow.read_paused:
            left = max(left, self.timeout_s)  # the server, not the client, is what holds this up
        if left > 0.001:
            self._timer = self.loop.call_later(left, self._check_time)
        elif self._in_headers and not self._received:
            self.transport.close()
        else:
            part = "headers" if self._in_headers else "body"
            self._refuse(408, "too_slow", f"the request's {part} took more than {self.timeout_s:g} s")

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > self.most_discarded and not self._cut_off:
            self._cut_off = True
            self.transport.pause_reading()
            self.loop.call_later(_LINGER_S, self.transport.close)

    def _refuse(self, status: int, kind: str, message: str) -> None:
        """Answer what never became a whole request, under the id that the headers name so far, and close."""
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            begun = isinstance(cycle, Exchange) and cycle.headers is self.headers
            name = cycle.request_id if begun else request_id(self.headers or ())
            path = cycle.path if begun else "-"
            body = error_body(path, kind, message)
            self.transport.write(
                STATUS_LINE[status] + b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
                + HEADER + b": " + name + b"\r\nconnection: close\r\n\r\n" + body
            )  # fmt: skip
            if self.access_log:
                client = f"{self.client[0]}:{self.client[1]}" if self.client else ""
                words = (client, "POST" if begun else "-", path, "1.1", status)
                _access.info('%s - "%s %s HTTP/%s" %d', *words, extra={"request_id": name.decode()})
        self.transport.close()


class _LingeringTransport:
    """The transport of a request whose connection ends with its answer."""

    def __init__(self, protocol: LimitedProtocol) -> None:
        self._protocol, self._transport = protocol, protocol.transport

    def close(self) -> None:
        self._protocol.close_gently()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
