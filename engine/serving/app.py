"""The slot's HTTP application: predictions as plain ASGI, everything else by a router."""

from __future__ import annotations

import logging
import re
from time import perf_counter
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from engine.serving import frames
from engine.serving.bodies import BodyReader, header, multipart_file
from engine.serving.link import WorkerGone
from engine.serving.metrics import Metrics
from engine.serving.replies import JSON, ClientGone, HttpError, Receive, Scope, Send, reply, reply_error
from engine.serving.routes import MODEL, build_router
from engine.serving.slot import Slot, Unavailable

log = logging.getLogger("understudy.serving")

_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_INFER_LABEL = "/v2/models/{name}/infer"
_DEFAULT_TOP_K, _MOST_TOP_K = 5, 1_000_000
_NEVER_LONG = 32  # so few waiting requests are no overload, however slow the net
_PACE_WEIGHT = 0.05
_RETRY = ((b"retry-after", b"1"),)


class App:
    """ASGI application of one slot.

    Args:
        queue: the most requests asked and not yet answered; above that 503 with Retry-After.
        max_wait_s: the same already where a new request would wait longer than this at the present pace.
        max_body_bytes: the largest body.
    """

    def __init__(self, slot: Slot, queue: int, max_wait_s: float, max_body_bytes: int) -> None:
        self.slot = slot
        self.metrics = Metrics(slot.name, lambda: self.waiting)
        self.waiting = 0
        self._queue, self._max_wait_s = queue, max_wait_s
        self._pace_s = self._last_answer = 0.0
        self._bodies = BodyReader(max_body_bytes)
        self._router = build_router(slot, self.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        try:
            if path == "/predict":
                await self._guard("/predict", scope, receive, send, self._predict)
            elif path.startswith("/v2/models/") and path.endswith("/infer"):
                await self._guard(_INFER_LABEL, scope, receive, send, self._infer)
            else:
                await self._router(scope, receive, send)
        except ClientGone:
            return
        except Exception:
            log.exception("%s %s failed", scope["method"], path)
            await reply_error(send, path, HttpError(500, "defect", "the server failed", "see its log"))

    async def _guard(self, endpoint: str, scope: Scope, receive: Receive, send: Send, handle: Any) -> None:
        """Count the request, and answer what it is refused with."""
        try:
            if scope["method"] != "POST":
                raise HttpError(
                    405, "wrong_method", f"{scope['method']} is not for {scope['path']}", "use POST", [(b"allow", b"POST")]
                )  # fmt: skip
            await handle(scope, receive, send)
        except HttpError as error:
            self.metrics.answered(endpoint, error.status, None)
            await reply_error(send, scope["path"], error)
        except Unavailable as why:
            self.metrics.answered(endpoint, 503, None)
            headers = () if why.kind == "empty" else _RETRY
            await reply_error(send, scope["path"], HttpError(503, why.kind, why.message, why.hint, headers))

    async def _predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        top_k = _top_k(scope["query_string"]) if scope["query_string"] else _DEFAULT_TOP_K
        body = await self._receive(scope, receive)
        try:
            content = body
            kind = header(scope, b"content-type")
            if kind[:10].lower() == b"multipart/":
                content = multipart_file(kind, body)
            if not content:
                raise HttpError(400, "empty", "the body is empty", "send the image as the body")
            started = perf_counter()
            answer = await self._ask(frames.PREDICT, top_k, content)
        finally:
            self._bodies.release(len(body))
        seconds = perf_counter() - started
        self.metrics.answered("/predict", answer.status, seconds)
        if answer.status == 200:
            self.metrics.batch.observe(1)
            await reply(send, 200, b'%b,"latency_ms":%.3f}' % (answer.body, seconds * 1000))
        else:
            await reply(send, answer.status, answer.body)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _INFER.fullmatch(scope["path"])
        if found is None or found[1] != MODEL:
            raise HttpError(
                404, "unknown_model", f"there is no model at {scope['path']}", f"the model is '{MODEL}'"
            )
        if found[2] is not None and (self.slot.active is None or found[2] != self.slot.active.card["release"]):
            raise HttpError(
                404, "unknown_version", f"version '{found[2]}' is not served", "a version is a release id"
            )
        length = _header_length(header(scope, b"inference-header-content-length"))
        body = await self._receive(scope, receive)
        try:
            if not body:
                raise HttpError(400, "empty", "the body is empty", "send an infer request")
            started = perf_counter()
            answer = await self._ask(frames.INFER, length, body)
        finally:
            self._bodies.release(len(body))
        self.metrics.answered(_INFER_LABEL, answer.status, perf_counter() - started)
        if answer.rows:
            self.metrics.batch.observe(answer.rows)
        if answer.head:
            extra = [(b"inference-header-content-length", b"%d" % answer.head)]
            await reply(send, answer.status, answer.body, b"application/octet-stream", extra)
        else:
            await reply(send, answer.status, answer.body, JSON)

    async def _receive(self, scope: Scope, receive: Receive) -> bytes:
        """The body, unless the request can be refused without it."""
        self.slot.refuse_if_unavailable()
        self._refuse_if_full()
        self._bodies.refuse_announced(scope)
        return await self._bodies.read(receive)

    def _refuse_if_full(self) -> None:
        long = self.waiting >= _NEVER_LONG and self.waiting * self._pace_s > self._max_wait_s
        if long or self.waiting >= self._queue:
            raise HttpError(503, "full", "too many requests are waiting", "try again in a second", _RETRY)

    async def _ask(self, kind: int, argument: int, body: bytes) -> Any:
        self._refuse_if_full()
        self.waiting += 1
        begun = perf_counter()
        try:
            answer = await self.slot.ask(kind, argument, body)
            moment = perf_counter()
            if self.waiting > 1:  # with others waiting, the time between two answers is the pace
                self._pace_s += _PACE_WEIGHT * (moment - max(self._last_answer, begun) - self._pace_s)
            self._last_answer = moment
            return answer
        except WorkerGone:
            raise HttpError(
                500, "worker_died", "the model's process died twice over this request", "see the server's log"
            ) from None
        finally:
            self.waiting -= 1


def _top_k(query: bytes) -> int:
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("top_k")
    if values is None:
        return _DEFAULT_TOP_K
    text = unquote_plus(values[-1])
    if not re.fullmatch(r"\+?[0-9]{1,9}", text) or int(text) < 1:
        raise HttpError(422, "bad_top_k", f"top_k must be a whole number from 1, not '{text[:40]}'")
    return min(int(text), _MOST_TOP_K)


def _header_length(value: bytes) -> int:
    if not value:
        return frames.WHOLE
    if not value.isdigit() or len(value) > 9:
        raise HttpError(422, "bad_header_length", "Inference-Header-Content-Length must be a whole number")
    return int(value)
