"""The OpenAPI 3.0 description of a slot's HTTP, the same on both ports (3.0: what the bundled Swagger UI reads)."""

from __future__ import annotations

from typing import Any

from engine import __version__

MODEL = "understudy"


def document(title: str, card: dict[str, Any] | None = None) -> dict[str, Any]:
    """The whole description.

    Args:
        title: the slot's, "AS-IS" or "TO-BE".
        card: what `/model` says of the release; None describes a slot for images.
    """
    given: dict[str, Any] = card["input"] if card else {"noun": "image", "media_types": ["image/*"]}
    return {
        "openapi": "3.0.3",
        "info": {
            "title": f"Understudy {title}",
            "version": __version__,
            "description": "One release behind one port. A swap of the release fails no request: "
            "each answer is wholly of one release and names it.",
        },
        "paths": {
            "/predict": {"post": _predict(given["noun"], given["media_types"])},
            "/model": {
                "get": _get("The release that answers here", "Model", {404: "The slot is empty", 503: "Loading"})
            },
            "/health/live": {"get": _get("Whether the server runs", "Live")},
            "/health/ready": {"get": _get("Whether a release answers", "Ready", {503: "None does; the reason"})},
            "/metrics": {"get": _text("Prometheus metrics", "text/plain")},
            "/openapi.json": {"get": _text("This description", "application/json")},
            "/docs": {"get": _text("This description, to browse and try", "text/html")},
            "/v2": {"get": _get("Server metadata (Open Inference Protocol v2)", "V2Server")},
            "/v2/health/live": {"get": _get("Whether the server runs", "Live")},
            "/v2/health/ready": {"get": _get("Whether a release answers", "Ready", {503: "None does"}, v2=True)},
            **_v2_paths("/v2/models/{name}", [_NAME]),
            **_v2_paths("/v2/models/{name}/versions/{version}", [_NAME, _VERSION]),
        },
        "components": {"schemas": {**_SCHEMAS, **(_of_release(card) if card else {})}},
    }


def _of_release(card: dict[str, Any]) -> dict[str, Any]:
    """The schemas that a release's task changes: what an answer has besides, how bodies become inputs."""
    answer = _object(**_PREDICTION, **card["answer_schema"])
    answer["required"] = [name for name in answer["required"] if name != "top_k" or not card["answer_schema"]]
    if card["task"] == "images":
        return {"Prediction": answer}
    given = {"type": "object", "description": "Of its own for each task."}
    return {"Prediction": answer, "Model": _object(**_MODEL, input=_object(**_INPUT, preprocess=given))}


_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": f"Always `{MODEL}`.",
    "schema": {"type": "string", "enum": [MODEL]},
}
_VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "The id of the release that is served.",
    "schema": {"type": "string"},
}
_BINARY = {"type": "string", "format": "binary"}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _errors(errors: dict[int, str], v2: bool = False) -> dict[str, Any]:
    schema = _ref("V2Error" if v2 else "Error")
    found: dict[str, Any] = {
        str(status): {"description": text, "content": _json(schema)} for status, text in errors.items()
    }
    if "503" in found:
        found["503"]["headers"] = _RETRY_AFTER
    return found


def _get(summary: str, schema: str, errors: dict[int, str] | None = None, *, v2: bool = False) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": _json(_ref(schema))},
            **_errors(errors or {}, v2),
        },
    }


def _text(summary: str, kind: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary, "content": {kind: {}}}}}


_BODY_ERRORS = {
    400: "The body is empty",
    405: "Wrong method",
    408: "Headers or body came too slowly",
    413: "Too many bytes, or too many pixels",
    500: "The model's process died twice over this request",
    503: "The slot is empty or loading, or too many requests wait",
}


def _predict(noun: str, media_types: list[str]) -> dict[str, Any]:
    body = {"schema": _BINARY}
    return {
        "summary": f"Answer one {noun}",
        "parameters": [
            {
                "name": "top_k",
                "in": "query",
                "description": "How many classes to list; no more than there are.",
                "schema": {"type": "integer", "minimum": 1, "default": 5},
            }
        ],
        "requestBody": {
            "required": True,
            "description": f"The {noun} itself, or a form with the field `file`.",
            "content": {
                **dict.fromkeys([*media_types, "application/octet-stream"], body),
                "multipart/form-data": {
                    "schema": {"type": "object", "required": ["file"], "properties": {"file": _BINARY}}
                },
            },
        },
        "responses": {
            "200": {"description": "What it is", "content": _json(_ref("Prediction"))},
            **_errors(
                {
                    **_BODY_ERRORS,
                    415: f"No {noun}",
                    422: f"A truncated or unfit {noun}, a form without `file`, a bad top_k",
                }
            ),
        },
    }


def _v2_paths(path: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    missing = {404: "Another model or version", 503: "No release answers"}
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "Bytes of JSON at the body's start; the tensor's little-endian bytes follow.",
        "schema": {"type": "integer"},
    }
    infer = {
        "summary": "Run the net on a batch of preprocessed inputs",
        "parameters": [length],
        "requestBody": {
            "required": True,
            "content": {
                **_json(_ref("InferRequest")),
                "application/octet-stream": {"schema": _BINARY},
            },
        },
        "responses": {
            "200": {
                "description": "Its output, one row an input",
                "headers": {"Inference-Header-Content-Length": {"schema": {"type": "integer"}}},
                "content": {**_json(_ref("InferResponse")), "application/octet-stream": {"schema": _BINARY}},
            },
            **_errors(
                {**_BODY_ERRORS, 404: "Another model or version", 422: "Another name, type or shape"}, v2=True
            ),
        },
    }
    return {
        path: {"parameters": parameters, "get": _get("Model metadata", "V2Model", missing, v2=True)},
        f"{path}/ready": {
            "parameters": parameters,
            "get": _get("Whether it answers", "V2Ready", missing, v2=True),
        },
        f"{path}/infer": {"parameters": parameters, "post": infer},
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


_TEXT, _WHOLE, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_MAYBE_WHOLE, _MAYBE_NUMBER = {**_WHOLE, "nullable": True}, {**_NUMBER, "nullable": True}
_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
_SHAPE = {"type": "array", "items": _WHOLE}
_TENSOR = _object(name=_TEXT, datatype={"type": "string", "enum": ["FP32"]}, shape=_SHAPE)
_FULL_TENSOR: dict[str, Any] = {
    **_TENSOR,
    "properties": {
        **_TENSOR["properties"],
        "data": {"type": "array", "items": {}},
        "parameters": {"type": "object", "properties": {"binary_data_size": _WHOLE}},
    },
}
_SCORE = _object(label=_TEXT, index=_WHOLE, confidence=_FRACTION)
_PREDICTION: dict[str, Any] = {
    "label": _TEXT,
    "index": _WHOLE,
    "confidence": _FRACTION,
    "top_k": {"type": "array", "items": _SCORE},
    "release": _TEXT,
    "latency_ms": _NUMBER,
}
_INPUT: dict[str, Any] = {
    "name": _TEXT,
    "dtype": _TEXT,
    "shape": _SHAPE,
    "noun": _TEXT,
    "media_types": {"type": "array", "items": _TEXT},
}
_IMAGES = _object(
    img_size=_WHOLE,
    resize={"type": "string", "enum": ["crop", "squash", "pad"]},
    mean={"type": "array", "items": _NUMBER},
    std={"type": "array", "items": _NUMBER},
)
_MODEL: dict[str, Any] = {
    "slot": {"type": "string", "enum": ["asis", "tobe"]},
    "release": _TEXT,
    "sha256": _TEXT,
    "md5": _TEXT,
    "cycle": _MAYBE_WHOLE,
    "epoch": _MAYBE_WHOLE,
    "accuracy": _MAYBE_NUMBER,
    "task": _TEXT,
    "architecture": _TEXT,
    "precision": _TEXT,
    "runtime": {"type": "string", "enum": ["onnx", "torch"]},
    "classes": {"type": "array", "items": _TEXT},
    "output": _object(name=_TEXT, dtype=_TEXT, shape=_SHAPE),
    "answer_schema": {"type": "object", "description": "JSON Schema of what an answer has besides."},
    "loaded_at": {"type": "string", "format": "date-time"},
}
_SCHEMAS: dict[str, Any] = {
    "Prediction": _object(**_PREDICTION),
    "Model": _object(**_MODEL, input=_object(**_INPUT, preprocess=_IMAGES)),
    "Live": _object(live={"type": "boolean"}),
    "Ready": _object(ready={"type": "boolean"}, release=_TEXT),
    "Error": _object(error=_object(kind=_TEXT, message=_TEXT, hint=_TEXT)),
    "V2Error": _object(error=_TEXT),
    "V2Server": _object(name=_TEXT, version=_TEXT, extensions={"type": "array", "items": _TEXT}),
    "V2Model": _object(
        name=_TEXT,
        versions={"type": "array", "items": _TEXT},
        platform=_TEXT,
        inputs={"type": "array", "items": _TENSOR},
        outputs={"type": "array", "items": _TENSOR},
    ),
    "V2Ready": _object(name=_TEXT, ready={"type": "boolean"}),
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": _TEXT,
            "parameters": {"type": "object", "properties": {"binary_data_output": {"type": "boolean"}}},
            "inputs": {"type": "array", "items": _FULL_TENSOR, "minItems": 1, "maxItems": 1},
            "outputs": {
                "type": "array",
                "items": {"type": "object", "required": ["name"], "properties": {"name": _TEXT}},
            },
        },
    },
    "InferResponse": {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "id": _TEXT,
            "outputs": {"type": "array", "items": _FULL_TENSOR},
        },
    },
}
