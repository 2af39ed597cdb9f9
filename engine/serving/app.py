"""A slot's HTTP application: predictions by the short way (engine.serving.exchange), the rest by a router."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial
from time import perf_counter
from urllib.parse import parse_qs, unquote_plus

from engine.serving import frames
from engine.serving.answers import Answers
from engine.serving.bodies import Bodies, header, multipart_file
from engine.serving.exchange import Exchange, Plan
from engine.serving.link import Answer, WorkerGone
from engine.serving.metrics import Metrics
from engine.serving.replies import RETRY, ClientGone, HttpError, Message, Receive, Scope, Send, reply_error
from engine.serving.requests import HEADER, is_live, request_id
from engine.serving.routes import MODEL, build_router
from engine.serving.slot import Slot, Unavailable
from engine.store.logjson import REQUEST

log = logging.getLogger("understudy.serving")

_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_PREDICT_LABEL, _INFER_LABEL = "/predict", "/v2/models/{name}/infer"
_DEFAULT_TOP_K, _MOST_TOP_K = 5, 1_000_000
_NEVER_LONG = 32  # so few waiting requests are no overload, however slow the net
_PACE_WEIGHT = 0.05

AfterAnswer = Callable[[bytes, Answer], None]


class App:
    """One slot's endpoints.

    Args:
        queue: the most requests asked and not yet answered; above that 503 with Retry-After.
        max_wait_s: the same already where a new request would wait longer than this at the present pace.
        max_body_bytes: the largest body.

    Attributes:
        after_answer: called with the body and the answer after each good one to live `/predict` was written to
            its client; it must not block, and what it raises is logged.
    """

    def __init__(self, slot: Slot, queue: int, max_wait_s: float, max_body_bytes: int) -> None:
        self.slot = slot
        self.metrics = Metrics(slot.name, lambda: self.waiting)
        self.answers = Answers()
        self.bodies = Bodies(max_body_bytes)
        self.after_answer: AfterAnswer | None = None
        self.waiting = 0
        self._queue, self._max_wait_s = queue, max_wait_s
        self._pace_s = self._last_answer = 0.0
        self._router = build_router(slot, self.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI, for everything but predictions."""
        path: str = scope["path"]
        send = _naming(send, request_id(scope["headers"]))
        try:
            if self.predicts(path):
                label = _PREDICT_LABEL if path == "/predict" else _INFER_LABEL
                self.metrics.answered(label, 405, None)
                message = f"{scope['method']} is not for {path}"
                await reply_error(
                    send, path, HttpError(405, "wrong_method", message, "use POST", [(b"allow", b"POST")])
                )
            else:
                await self._router(scope, receive, send)
        except ClientGone:
            return
        except Exception:
            log.exception("%s %s failed", scope["method"], path)
            await reply_error(send, path, HttpError(500, "defect", "the server failed", "see its log"))

    def predicts(self, path: str) -> bool:
        """Whether a POST there is for a prediction."""
        return path == "/predict" or (path.startswith("/v2/models/") and path.endswith("/infer"))

    def admit(self, exchange: Exchange) -> Plan:
        """What to do with a request, known before its body is read.

        Raises:
            HttpError, Unavailable: it is refused.
        """
        if exchange.path == "/predict":
            exchange.label = _PREDICT_LABEL
            top_k = _top_k(exchange.query) if exchange.query else _DEFAULT_TOP_K
            plan = Plan(frames.PREDICT, top_k, _PREDICT_LABEL)
        else:
            exchange.label = _INFER_LABEL
            self._refuse_unknown_model(exchange.path)
            length = _header_length(header(exchange.headers, b"inference-header-content-length"))
            plan = Plan(frames.INFER, length, _INFER_LABEL)
        self.slot.refuse_if_unavailable()
        self._refuse_if_full()
        self.bodies.refuse_announced(exchange.headers)
        return plan

    def ask(self, exchange: Exchange, plan: Plan, body: bytes) -> None:
        """Have the model answer; the exchange gets the answer when it is there.

        Raises:
            HttpError, Unavailable: it is refused now that the body is known.
        """
        content = body
        if plan.kind == frames.PREDICT:
            kind = header(exchange.headers, b"content-type")
            if kind[:10].lower() == b"multipart/":
                content = multipart_file(kind, body)
        if not content:
            shown = self.slot.shown
            noun = shown.card["input"]["noun"] if shown and plan.kind == frames.PREDICT else "request"
            raise HttpError(400, "empty", "the body is empty", f"send the {noun} as the body")
        self._refuse_if_full()
        self.waiting += 1
        self.slot.submit(
            plan.kind, plan.argument, content, partial(self._answered, exchange, plan, content, perf_counter())
        )

    def refused(self, exchange: Exchange, status: int) -> None:
        self.metrics.answered(exchange.label, status, None)

    def _answered(
        self, exchange: Exchange, plan: Plan, content: bytes, begun: float, answer: Answer | Exception
    ) -> None:
        moment = perf_counter()
        if self.waiting > 1:  # with others waiting, the time between two answers is the pace
            self._pace_s += _PACE_WEIGHT * (moment - max(self._last_answer, begun) - self._pace_s)
        self._last_answer = moment
        self.waiting -= 1
        try:
            if isinstance(answer, Answer):
                self._pass_on(exchange, plan, answer, moment - begun)
            else:
                self._fail(exchange, answer, moment - begun)
        except Exception:
            about = {"request_id": exchange.request_id.decode()}
            log.exception("an answer to %s was lost", exchange.path, extra=about)
            exchange.transport.close()
        if not isinstance(answer, Answer) or not _is_good_prediction(plan, answer):
            return
        if self.after_answer is not None and is_live(exchange.headers):
            try:
                self.after_answer(content, answer)
            except Exception:
                log.exception("what follows an answer failed")

    def _pass_on(self, exchange: Exchange, plan: Plan, answer: Answer, seconds: float) -> None:
        status, exchange.release = answer.status, answer.release
        self.metrics.answered(plan.label, status, seconds)
        if is_live(exchange.headers):
            self.answers.count(answer.release, status, seconds, answer.top, answer.confidence)
        if answer.rows and status == 200:
            self.metrics.batch.observe(answer.rows)
        if plan.kind == frames.PREDICT and status == 200:
            exchange.answer(200, b'%b,"latency_ms":%.3f}' % (answer.body, seconds * 1000))
        elif answer.head:
            extra = ((b"inference-header-content-length", b"%d" % answer.head),)
            exchange.answer(status, answer.body, b"application/octet-stream", extra)
        else:
            exchange.answer(status, answer.body, headers=RETRY if status == 503 else ())

    def _fail(self, exchange: Exchange, why: Exception, seconds: float) -> None:
        if isinstance(why, Unavailable):
            exchange.refuse(why)
            return
        if not isinstance(why, WorkerGone):
            log.error("asking a worker failed", exc_info=why)
        if self.slot.shown is not None and is_live(exchange.headers):
            self.answers.count(self.slot.shown.card["release"], 500, seconds)
        exchange.refuse(
            HttpError(
                500, "worker_died", "the model's process died twice over this request", "see the server's log"
            )
        )

    def _refuse_unknown_model(self, path: str) -> None:
        found = _INFER.fullmatch(path)
        if found is None or found[1] != MODEL:
            raise HttpError(404, "unknown_model", f"there is no model at {path}", f"the model is '{MODEL}'")
        if found[2] is not None and (self.slot.active is None or found[2] != self.slot.active.card["release"]):
            raise HttpError(
                404, "unknown_version", f"version '{found[2]}' is not served", "a version is a release id"
            )

    def _refuse_if_full(self) -> None:
        long = self.waiting >= _NEVER_LONG and self.waiting * self._pace_s > self._max_wait_s
        if long or self.waiting >= self._queue:
            raise HttpError(503, "full", "too many requests are waiting", "try again in a second", RETRY)


def _is_good_prediction(plan: Plan, answer: Answer) -> bool:
    return plan.kind == frames.PREDICT and answer.status == 200


def _naming(send: Send, request: bytes) -> Send:
    """`send` for one ASGI request, whose task says the request's id in its answer and in what it logs."""
    REQUEST.set(request.decode())

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (HEADER, request)]
        await send(message)

    return named


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
