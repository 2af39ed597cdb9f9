"""The Open Inference Protocol v2's infer request: JSON, and the binary tensor data extension.

Source: the protocol's `Predict Protocol - Version 2` and Triton's `extension_binary_data`. Worker side.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from engine.serving.frames import WHOLE
from engine.serving.runtime import Model
from engine.tasks.medium import InputError

NAME = "understudy"


def infer(model: Model, body: bytes | bytearray, header_length: int) -> tuple[int, int, bytes]:
    """Answer one infer request.

    Args:
        header_length: bytes of JSON at the body's start, or WHOLE when all of it is JSON.

    Returns:
        rows of the batch, bytes of JSON at the answer's start (0: all of it is JSON), the answer.

    Raises:
        InputError: a request that is not well formed, or a tensor of another name, type or shape.
    """
    if header_length != WHOLE and header_length > len(body):
        raise _refuse("Inference-Header-Content-Length is more than the body's length")
    head = memoryview(body) if header_length == WHOLE else memoryview(body)[:header_length]
    binary = memoryview(b"") if header_length == WHOLE else memoryview(body)[header_length:]
    request = _parse(bytes(head))
    name = model.output["name"]
    wants_binary = _wants_binary(request, name)
    found = model.run(_tensor(model.input, request, binary))

    output: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(found.shape)}
    answer: dict[str, Any] = {"model_name": NAME, "model_version": model.release.id, "outputs": [output]}
    if "id" in request:
        answer["id"] = request["id"]
    if not wants_binary:
        output["data"] = found.ravel().tolist()
        return len(found), 0, json.dumps(answer).encode()
    data = np.ascontiguousarray(found, "<f4").tobytes()
    output["parameters"] = {"binary_data_size": len(data)}
    text = json.dumps(answer).encode()
    return len(found), len(text), text + data


def _refuse(message: str, status: int = 422) -> InputError:
    return InputError(status, "bad_tensor", message)


def _parse(text: bytes) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):
        raise _refuse("the request is not JSON", 400) from None
    if not isinstance(request, dict):
        raise _refuse("the request must be a JSON object")
    if "id" in request and not isinstance(request["id"], str):
        raise _refuse("'id' must be a string")
    return request


def _wants_binary(request: dict[str, Any], name: str) -> bool:
    wanted = bool(_parameters(request).get("binary_data_output", False))
    outputs = request.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise _refuse("'outputs' must be a list of objects")
    for output in outputs:
        if output.get("name") != name:
            raise _refuse(f"there is no output '{output.get('name')}': the output is '{name}'")
        if _parameters(output).get("classification"):
            raise _refuse("the classification extension is not offered: POST to /predict")
        wanted = bool(_parameters(output).get("binary_data", wanted))
    return wanted


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    found = holder.get("parameters") or {}
    if not isinstance(found, dict):
        raise _refuse("'parameters' must be an object")
    return found


def _tensor(wanted: dict[str, Any], request: dict[str, Any], binary: memoryview) -> np.ndarray:
    inputs, name = request.get("inputs"), wanted["name"]
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _refuse(f"'inputs' must be a list of one tensor, '{name}'")
    given = inputs[0]
    if given.get("name") != name:
        raise _refuse(f"there is no input '{given.get('name')}': the input is '{name}'")
    if given.get("datatype") != "FP32":
        raise _refuse(f"'{name}' must be FP32, not {given.get('datatype')}")
    shape = given.get("shape")
    if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
        raise _refuse("'shape' must be a list of positive whole numbers")
    if not shape or shape[1:] != wanted["shape"][1:]:
        raise _refuse(f"'{name}' must have the shape {wanted['shape']}, not {shape}")
    size = _parameters(given).get("binary_data_size")
    if size is not None:
        if type(size) is not int or size != 4 * int(np.prod(shape, dtype=object)) or size != len(binary):
            raise _refuse(f"'binary_data_size' {size}, the shape {shape} and {len(binary)} binary bytes disagree")
        values = np.frombuffer(binary, "<f4")
    else:
        values = _from_json(given.get("data"))
        if values.size != int(np.prod(shape, dtype=object)):
            raise _refuse(f"'data' has {values.size} values, the shape {shape} wants another number")
    if not np.isfinite(values).all():
        raise _refuse("the tensor holds values that are not finite")
    return values.reshape(shape)


def _from_json(data: Any) -> np.ndarray:
    if not isinstance(data, list):
        raise _refuse("'data' must be a list of numbers (flat or nested), or binary data must follow")
    try:
        values = np.asarray(data)
    except ValueError:
        raise _refuse("'data' must be a list of numbers, evenly nested") from None
    if values.dtype.kind not in "fiu":
        raise _refuse("'data' must hold numbers alone")
    with np.errstate(over="ignore"):
        return values.astype(np.float32).ravel()
