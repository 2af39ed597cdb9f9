"""The contract's endpoints and the errors of one request."""

from __future__ import annotations

import io
import zlib

import httpx
import numpy as np
import pytest
from PIL import Image

from engine.release.bundle import Release
from tests.serving.conftest import Served
from tests.serving.releases import MEAN, SIZE, STD, WEIGHTS, image

RED, GREEN = (220, 20, 20), (20, 220, 20)


def error(answer: httpx.Response, status: int, kind: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()["error"]
    assert set(found) == {"kind", "message", "hint"}
    assert found["kind"] == kind, found
    return str(found["message"])


def test_predict_says_what_and_from_which_release(live: Served, release: Release) -> None:
    answer = live.predict(image(GREEN, form="PNG"))
    assert answer.status_code == 200
    found = answer.json()
    assert set(found) == {"label", "index", "confidence", "top_k", "release", "latency_ms"}
    assert (found["label"], found["index"], found["release"]) == ("a-green", 1, release.id)
    assert found["latency_ms"] > 0
    colour = (np.array(GREEN, np.float32) / 255 - MEAN) / STD
    logits = WEIGHTS @ colour
    expected = np.exp(logits) / np.exp(logits).sum()
    assert found["confidence"] == pytest.approx(expected[1], abs=1e-4)
    assert [one["index"] for one in found["top_k"]] == np.argsort(-expected, kind="stable").tolist()
    assert sum(one["confidence"] for one in found["top_k"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("asked", "given"), [("1", 1), ("2", 2), ("4", 4), ("5", 4), ("999999", 4)])
def test_top_k_is_no_more_than_the_classes(live: Served, asked: str, given: int) -> None:
    assert len(live.predict(image(), params={"top_k": asked}).json()["top_k"]) == given


@pytest.mark.parametrize("asked", ["0", "-1", "five", "", "1.5", "1e3", "９"])
def test_bad_top_k(live: Served, asked: str) -> None:
    error(live.predict(image(), params={"top_k": asked}), 422, "bad_top_k")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_image_formats(live: Served, form: str) -> None:
    assert live.predict(image(RED, form=form)).json()["label"] == "a-red"


def test_multipart(live: Served) -> None:
    answer = live.http.post("/predict", files={"note": ("n.txt", b"x"), "file": ("a.jpg", image(GREEN))})
    assert answer.json()["label"] == "a-green"
    error(live.http.post("/predict", files={"picture": ("a.jpg", image())}), 422, "no_file")
    error(live.http.post("/predict", files={"file": ("a.jpg", b"")}), 400, "empty")
    error(live.http.post("/predict", files={"file": ("a.txt", b"words")}), 415, "not_image")
    kind = {"content-type": "multipart/form-data"}
    error(live.predict(b"--x\r\n", headers=kind), 422, "bad_multipart")
    kind = {"content-type": "multipart/form-data; boundary=x"}
    error(live.predict(b"nonsense", headers=kind), 422, "bad_multipart")
    cut = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + image()
    error(live.predict(cut, headers=kind), 422, "truncated")


def test_what_is_no_image(live: Served) -> None:
    error(live.predict(b"these are words"), 415, "not_image")
    error(live.predict(b'{"a": 1}', headers={"content-type": "application/json"}), 415, "not_image")
    error(live.predict(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), 415, "not_image")
    error(live.predict(b""), 400, "empty")
    error(live.predict(image()[:-40] if len(image()) > 400 else image()[:300]), 422, "truncated")
    error(live.predict(image(), headers={"content-encoding": "gzip"}), 415, "encoded_body")


def test_a_bomb_is_refused_by_its_header(live: Served) -> None:
    header = io.BytesIO()
    Image.new("1", (8, 8)).save(header, "PNG")
    png = bytearray(header.getvalue())
    png[16:24] = (60_000).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    assert "60000x60000" in error(live.predict(bytes(png)), 413, "too_large")
    assert live.predict(image()).status_code == 200


def test_model(live: Served, release: Release) -> None:
    found = live.http.get("/model").json()
    assert found["slot"] == "asis"
    assert (found["release"], found["sha256"], found["md5"]) == (release.id, "1" * 64, "2" * 32)
    assert (found["cycle"], found["epoch"], found["accuracy"]) == (3, 7, 0.87)
    assert found["architecture"] == "colours"
    assert found["classes"] == ["a-red", "a-green", "a-blue", "a-neither"]
    assert found["input"]["shape"] == [-1, 3, SIZE, SIZE]
    assert found["input"]["preprocess"] == {"img_size": SIZE, "resize": "squash", "mean": MEAN, "std": STD}
    assert "T" in found["loaded_at"]


def test_health_and_methods(live: Served) -> None:
    for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"):
        assert live.http.get(path).status_code == 200
        assert live.http.head(path).content == b""
    answer = live.http.get("/predict")
    error(answer, 405, "wrong_method")
    assert answer.headers["allow"] == "POST"
    answer = live.http.post("/model")
    error(answer, 405, "wrong_method")
    assert "GET" in answer.headers["allow"]
    error(live.http.get("/nothing"), 404, "unknown_path")
    error(live.http.get("/model/"), 404, "unknown_path")
    assert live.http.head("/predict").status_code == 405


def test_an_empty_slot(empty: Served) -> None:
    assert empty.http.get("/health/live").status_code == 200
    error(empty.http.get("/health/ready"), 503, "empty")
    error(empty.http.get("/model"), 404, "empty")
    error(empty.predict(image()), 503, "empty")
    assert isinstance(empty.http.get("/v2/models/understudy").json()["error"], str)
    answer = empty.http.post("/v2/models/understudy/infer", json={})
    assert answer.status_code == 503
    assert isinstance(answer.json()["error"], str)
    assert empty.http.get("/v2/health/ready").status_code == 503
    stats = empty.stats()
    assert (stats["state"], stats["release"], stats["worker_pid"]) == ("empty", None, None)


def test_metrics(live: Served, release: Release) -> None:
    live.predict(image())
    live.predict(b"words")
    text = live.http.get("/metrics").text
    for line in (
        'understudy_requests_total{endpoint="/predict",slot="asis",status="200"}',
        'understudy_errors_total{endpoint="/predict",slot="asis",status="415"}',
        'understudy_request_seconds_bucket{endpoint="/predict",le="0.01",slot="asis"}',
        'understudy_batch_size_bucket{le="1.0",slot="asis"}',
        'understudy_queue_depth{slot="asis"} 0.0',
        f'release="{release.id}"',
        'understudy_swaps_total{slot="asis"} 0.0',
        'understudy_worker_restarts_total{slot="asis"} 0.0',
        'understudy_ready{slot="asis"} 1.0',
    ):
        assert line in text, line


def test_stats(live: Served, release: Release) -> None:
    live.predict(image())
    stats = live.stats()
    assert (stats["pid"], stats["port"], stats["state"]) == (live.process.pid, live.port, "live")
    assert stats["release"] == release.id
    assert stats["problem"] is None
    assert stats["requests"] > 0
    assert 0 < stats["p50_ms"] <= stats["p99_ms"]
    assert {"since", "errors", "swaps", "worker_pid", "started_at"} <= set(stats)


def test_documentation_is_complete_and_of_its_own(live: Served) -> None:
    page = live.http.get("/docs")
    assert page.status_code == 200
    assert "http" not in page.text.replace("http-equiv", "")
    for part in ("docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"):
        assert part in page.text
        assert live.http.get(f"/{part}").status_code == 200
    error(live.http.get("/docs/../../secret"), 404, "unknown_path")
    error(live.http.get("/docs/index.html"), 404, "unknown_path")
    described = live.http.get("/openapi.json").json()
    assert {"/predict", "/model", "/health/live", "/health/ready", "/metrics", "/docs", "/v2"} <= set(
        described["paths"]
    )
    assert described["openapi"].startswith("3.0")  # what the bundled Swagger UI reads
    predict = described["paths"]["/predict"]["post"]
    assert set(predict["responses"]) >= {"200", "400", "413", "415", "422", "503"}
    known = described["components"]["schemas"]
    for name, schema, value in (
        ("Prediction", known["Prediction"], live.predict(image()).json()),
        ("Model", known["Model"], live.http.get("/model").json()),
    ):
        assert set(schema["required"]) == set(value), name
    for reference in str(described).split("#/components/schemas/")[1:]:
        assert reference.split("'")[0] in known
