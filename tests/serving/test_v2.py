"""The Open Inference Protocol v2, in JSON and with binary tensors, against numpy."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from engine.release.bundle import Release
from tests.serving.conftest import Served
from tests.serving.releases import SIZE, WEIGHTS

PATH = "/v2/models/understudy/infer"
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)


def expected(batch: np.ndarray) -> np.ndarray:
    logits = batch.mean(axis=(2, 3)) @ WEIGHTS.T
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def tensor(batch: np.ndarray, **changes: Any) -> dict[str, Any]:
    return {
        "name": "image",
        "datatype": "FP32",
        "shape": list(batch.shape),
        "data": batch.ravel().tolist(),
    } | changes


def binary(live: Served, batch: np.ndarray, *, size: int | None = None, **request: Any) -> httpx.Response:
    raw = batch.astype("<f4").tobytes()
    given: dict[str, Any] = {"name": "image", "datatype": "FP32", "shape": list(batch.shape)}
    given["parameters"] = {"binary_data_size": len(raw) if size is None else size}
    head = json.dumps({"inputs": [given], **request}).encode()
    return live.http.post(PATH, content=head + raw, headers={LENGTH: str(len(head))})


def error(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["error"], str)
    return str(answer.json()["error"])


def test_metadata(live: Served, release: Release) -> None:
    server = live.http.get("/v2").json()
    assert set(server) == {"name", "version", "extensions"}
    model = live.http.get("/v2/models/understudy").json()
    assert model["versions"] == [release.id]
    assert model["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 3, SIZE, SIZE]}]
    assert model["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 4]}]
    assert live.http.get("/v2/models/understudy/ready").status_code == 200
    assert live.http.get(f"/v2/models/understudy/versions/{release.id}/ready").status_code == 200
    for path in ("/v2/models/other", "/v2/models/other/ready", "/v2/models/understudy/versions/1", "/v2/nothing"):
        error(live.http.get(path), 404)
    error(live.http.post("/v2/models/other/infer", json={}), 404)
    error(live.http.get(PATH), 405)


def test_json_both_ways(live: Served, batch: np.ndarray, release: Release) -> None:
    answer = live.http.post(PATH, json={"id": "seven", "inputs": [tensor(batch)]})
    assert answer.status_code == 200, answer.text
    assert LENGTH not in answer.headers
    found = answer.json()
    assert (found["model_name"], found["model_version"], found["id"]) == ("understudy", release.id, "seven")
    (output,) = found["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [3, 4])
    np.testing.assert_allclose(np.reshape(output["data"], (3, 4)), expected(batch), atol=1e-5)
    nested = live.http.post(f"/v2/models/understudy/versions/{release.id}/infer",
                            json={"inputs": [tensor(batch, data=batch.tolist())]})  # fmt: skip
    assert nested.json()["outputs"] == found["outputs"]


def test_binary_in_json_out(live: Served, batch: np.ndarray) -> None:
    output = binary(live, batch).json()["outputs"][0]
    np.testing.assert_allclose(np.reshape(output["data"], (3, 4)), expected(batch), atol=1e-5)


@pytest.mark.parametrize(
    "wish",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]},
    ],
)
def test_binary_both_ways(live: Served, batch: np.ndarray, wish: dict[str, Any]) -> None:
    answer = binary(live, batch, **wish)
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers[LENGTH])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert output["parameters"]["binary_data_size"] == len(answer.content) - length == 3 * 4 * 4
    found = np.frombuffer(answer.content[length:], "<f4").reshape(output["shape"])
    np.testing.assert_allclose(found, expected(batch), atol=1e-6)


def test_a_large_batch_is_answered_row_by_row(live: Served) -> None:
    batch = np.random.default_rng(6).normal(size=(21, 3, SIZE, SIZE)).astype(np.float32)
    output = binary(live, batch).json()["outputs"][0]
    assert output["shape"] == [21, 4]
    np.testing.assert_allclose(np.reshape(output["data"], (21, 4)), expected(batch), atol=1e-5)


def test_bad_requests(live: Served, batch: np.ndarray) -> None:
    bad: list[tuple[Any, str]] = [
        ([], "object"),
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [tensor(batch), tensor(batch)]}, "inputs"),
        ({"inputs": [tensor(batch, name="picture")]}, "picture"),
        ({"inputs": [tensor(batch, datatype="UINT8")]}, "UINT8"),
        ({"inputs": [tensor(batch, shape=[3, 3, SIZE, SIZE + 1])]}, "shape"),
        ({"inputs": [tensor(batch, shape=[3, 3 * SIZE * SIZE])]}, "shape"),
        ({"inputs": [tensor(batch, shape=[-1, 3, SIZE, SIZE])]}, "shape"),
        ({"inputs": [tensor(batch, shape=[2, 3, SIZE, SIZE])]}, "values"),
        ({"inputs": [tensor(batch, shape=[2**62, 3, SIZE, SIZE])]}, "values"),
        ({"inputs": [tensor(batch, data=["a"])]}, "numbers"),
        ({"inputs": [tensor(batch, data=[[1], [1, 2]])]}, "numbers"),
        ({"inputs": [tensor(batch, data=[1e39] * batch.size)]}, "finite"),
        ({"inputs": [{key: value for key, value in tensor(batch).items() if key != "data"}]}, "data"),
        ({"inputs": [tensor(batch)], "outputs": [{"name": "logits"}]}, "logits"),
        ({"inputs": [tensor(batch)], "id": 7}, "id"),
    ]
    for request, word in bad:
        assert word in error(live.http.post(PATH, json=request), 422)
    error(live.http.post(PATH, content=b"{"), 400)
    error(live.http.post(PATH, content=b""), 400)
    error(live.http.post(PATH, content=b"[" * 100_000), 400)
    error(binary(live, batch, size=17), 422)
    error(live.http.post(PATH, content=b"{}", headers={LENGTH: "99"}), 422)
    error(live.http.post(PATH, content=b"{}", headers={LENGTH: "many"}), 422)
    error(live.http.post(PATH, content=bytes(400_000)), 413)
    assert live.http.get("/health/ready").status_code == 200
