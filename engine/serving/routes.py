"""The plain endpoints of a slot: model, health, metrics, the v2 protocol's metadata, the documentation."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from engine import __version__
from engine.serving.metrics import CONTENT_TYPE, Metrics
from engine.serving.openapi import MODEL, document
from engine.serving.replies import error_body
from engine.serving.slot import Slot
from engine.store.workspace import TITLES

_EXTENSIONS = ["binary_tensor_data"]
_ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="docs/swagger-ui.css"><link rel="icon" href="docs/favicon-32x32.png"></head>
<body><div id="swagger-ui"></div><script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script>
</body></html>
"""
_START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'
_OWN_ALONE = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"


class _Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()


def build_router(slot: Slot, metrics: Metrics) -> Starlette:
    """An ASGI application with everything but the predictions."""
    plain = _Plain(slot, metrics)
    routes = [
        _route("/model", plain.model),
        _route("/health/live", plain.live),
        _route("/health/ready", plain.ready),
        _route("/metrics", plain.metrics_text),
        _route("/openapi.json", plain.openapi),
        _route("/docs", plain.docs),
        _route("/docs/{name}", plain.asset),
        _route("/v2", plain.v2_server),
        _route("/v2/health/live", plain.live),
        _route("/v2/health/ready", plain.ready),
        _route("/v2/models/{name}", plain.v2_model),
        _route("/v2/models/{name}/ready", plain.v2_ready),
        _route("/v2/models/{name}/versions/{version}", plain.v2_model),
        _route("/v2/models/{name}/versions/{version}/ready", plain.v2_ready),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: plain.refused})
    app.router.redirect_slashes = False
    return app


def _route(path: str, endpoint: Callable[..., Any]) -> Route:
    return Route(path, endpoint, methods=["GET"])


class _Plain:
    def __init__(self, slot: Slot, metrics: Metrics) -> None:
        self._slot, self._metrics = slot, metrics

    def _answer(self, request: Request, value: Any, status: int = 200) -> Response:
        route = request.scope.get("route")
        self._metrics.count(getattr(route, "path", "other"), status)
        return _Json(value, status)

    def _refuse(self, request: Request, status: int, kind: str, message: str, hint: str = "") -> Response:
        return self._answer(request, error_body(request.scope["path"], kind, message, hint), status)

    async def refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.scope["path"]
        if error.status_code == 405:
            response = self._refuse(request, 405, "wrong_method", f"{request.method} is not for {path}", "use GET")
        else:
            response = self._refuse(
                request, error.status_code, "unknown_path", f"there is nothing at {path}", "see /docs"
            )
        response.headers.update(error.headers or {})
        return response

    async def model(self, request: Request) -> Response:
        active = self._slot.shown
        if active is None:
            kind, message, hint = self._not_ready()
            return self._refuse(request, 404 if kind == "empty" else 503, kind, message, hint)
        card = {"slot": self._slot.name, **active.card, "loaded_at": active.loaded_at}
        return self._answer(request, card)

    async def live(self, request: Request) -> Response:
        return self._answer(request, {"live": True})

    async def ready(self, request: Request) -> Response:
        if self._slot.active is None:
            return self._refuse(request, 503, *self._not_ready())
        return self._answer(request, {"ready": True, "release": self._slot.active.card["release"]})

    async def metrics_text(self, request: Request) -> Response:
        self._metrics.count("/metrics", 200)
        return Response(self._metrics.text(), headers={"content-type": CONTENT_TYPE.decode()})

    async def openapi(self, request: Request) -> Response:
        shown = self._slot.shown
        return self._answer(request, document(TITLES[self._slot.name], shown.card if shown else None))

    async def docs(self, request: Request) -> Response:
        self._metrics.count("/docs", 200)
        page = _PAGE.format(title=f"Understudy {TITLES[self._slot.name]}")
        return HTMLResponse(page, headers={"content-security-policy": _OWN_ALONE})

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name == "start.js":
            return Response(_START, media_type="text/javascript")
        if name not in _ASSETS:
            raise HTTPException(404)
        from swagger_ui_bundle import swagger_ui_path

        self._metrics.count("/docs/{name}", 200)
        kind = mimetypes.guess_type(name)[0]
        return Response(
            (swagger_ui_path / name).read_bytes(), media_type=kind, headers={"cache-control": "max-age=86400"}
        )

    async def v2_server(self, request: Request) -> Response:
        return self._answer(request, {"name": MODEL, "version": __version__, "extensions": _EXTENSIONS})

    async def v2_model(self, request: Request) -> Response:
        if refused := self._unknown(request):
            return refused
        active = self._slot.shown
        assert active is not None
        card = active.card
        source, target = card["input"], card["output"]
        return self._answer(
            request,
            {
                "name": MODEL,
                "versions": [card["release"]],
                "platform": "onnx_onnxv1",
                "inputs": [{"name": source["name"], "datatype": "FP32", "shape": source["shape"]}],
                "outputs": [{"name": target["name"], "datatype": "FP32", "shape": target["shape"]}],
            },
        )

    async def v2_ready(self, request: Request) -> Response:
        if refused := self._unknown(request):
            return refused
        if self._slot.active is None:
            return self._refuse(request, 503, *self._not_ready())
        return self._answer(request, {"name": MODEL, "ready": True})

    def _unknown(self, request: Request) -> Response | None:
        """The refusal of a request for a model or version that is not served now."""
        name = request.path_params["name"]
        if name != MODEL:
            return self._refuse(
                request, 404, "unknown_model", f"there is no model '{name}'", f"the model is '{MODEL}'"
            )
        active = self._slot.shown
        if active is None:
            return self._refuse(request, 503, *self._not_ready())
        version = request.path_params.get("version", active.card["release"])
        if version != active.card["release"]:
            return self._refuse(request, 404, "unknown_version", f"version '{version}' is not served")
        return None

    def _not_ready(self) -> tuple[str, str, str]:
        slot = self._slot
        if slot.state == "loading":
            return "loading", f"the slot {slot.name} is loading its release", "try again in a second"
        why = slot.problem or f"the slot {slot.name} holds no release"
        return "empty", why, "deploy or promote one first"
