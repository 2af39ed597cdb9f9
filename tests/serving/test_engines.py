"""The engines give the same answers; torch is used where it is asked for, or where there is an accelerator."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import Failed
from engine.release.bundle import Manifest, Origin, Release, write_release
from engine.serving import engines
from engine.serving.engines import build_engine
from engine.serving.onnx_engine import OnnxEngine
from engine.serving.runtime import Model
from tests.serving.releases import image

SIZE, CLASSES = 32, 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release with weights, as admission makes it."""
    import torch
    from safetensors.torch import save

    from engine.release.convert import Probabilities, _traced  # the quick exporter
    from engine.tasks.images.models import build_model

    torch.manual_seed(3)
    net = build_model("litecnn", CLASSES).eval()
    onnx = _traced(Probabilities(net).eval(), torch.zeros(2, 3, SIZE, SIZE)).SerializeToString()
    return _write(tmp_path_factory.mktemp("engines"), onnx, save(net.state_dict()))


def _write(folder: Path, onnx: bytes, weights: bytes, **changes: Any) -> Release:
    fields: dict[str, Any] = {
        "architecture": {"name": "litecnn", "settings": {}},
        "classes": [f"c{index}" for index in range(CLASSES)],
        "input": {"name": "image", "dtype": "FP32", "shape": [-1, 3, SIZE, SIZE]},
        "preprocess": {"img_size": SIZE, "resize": "squash", "mean": [0.5] * 3, "std": [0.25] * 3},
        "parameters": 1,
        "checkpoint": Origin(name="a.pth", sha256="1" * 64, md5="2" * 32, bytes=1, cycle=1, epoch=1, accuracy=0.5),
    }
    return write_release(folder, Manifest(**(fields | changes)), onnx, weights)


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(21, 3, SIZE, SIZE)).astype(np.float32)


def test_torch_answers_as_onnx_does_alone_and_together(made: Release, batch: np.ndarray) -> None:
    onnx = OnnxEngine(made)
    torch = build_engine(made, "torch", "cpu", 0.01)
    assert (torch.name, torch.precision) == ("torch", "fp32")
    expected = onnx(batch)
    np.testing.assert_allclose(onnx(batch[:1], alone=True), expected[:1], atol=1e-5)
    np.testing.assert_allclose(torch(batch), expected, atol=1e-5)
    found: list[np.ndarray] = [np.empty(0)] * len(batch)

    def ask(index: int) -> None:
        found[index] = torch(batch[index : index + 1])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(batch))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-5)


def test_the_same_prediction_and_a_card_that_says_what_runs(made: Release) -> None:
    answers = []
    for runtime in ("onnx", "torch"):
        model = Model(made, 1_000_000, runtime=runtime, device="cpu")  # type: ignore[arg-type]
        model.warm_up()
        assert (model.card()["runtime"], model.card()["precision"]) == (runtime, "fp32")
        found = model.predict(image(), 3)
        answers.append((found.top, round(found.confidence, 4)))
    assert answers[0] == answers[1]


def test_auto_stays_with_onnx_where_there_is_no_accelerator(
    made: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build_engine(made, "auto", "cpu", 0.0).name == "onnx"
    monkeypatch.setattr(engines, "_accelerator_likely", lambda device: True)
    monkeypatch.setattr("engine.devices.detect._probe", lambda kind: (kind == "cpu", "a stand-in"))
    assert build_engine(made, "auto", "auto", 0.0).name == "onnx", "torch found none"


def test_half_precision_only_where_it_passes_the_releases_check() -> None:
    from engine.serving.torch_engine import passing_precision

    expected = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]], np.float32)

    def device(error: float) -> Any:
        return lambda precision: expected + (error if precision == "fp16" else 0)

    assert passing_precision(("fp16", "fp32"), device(5e-5), expected) == "fp16"
    assert passing_precision(("fp16", "fp32"), device(5e-3), expected) == "fp32"
    assert passing_precision(("fp16", "fp32"), device(float("nan")), expected) == "fp32"
    assert passing_precision(("fp16",), device(0.01), expected) is None


def test_weights_that_are_not_the_onnx_files_are_refused(made: Release, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save

    from engine.tasks.images.models import build_model

    torch.manual_seed(99)
    other = _write(tmp_path, made.onnx(), save(build_model("litecnn", CLASSES).state_dict()))
    with pytest.raises(Failed, match="answers otherwise"):
        build_engine(other, "torch", "cpu", 0.0)
    bare = _write(tmp_path, made.onnx(), b"")
    with pytest.raises(Failed, match="does not run with torch"):
        build_engine(bare, "torch", "cpu", 0.0)
    quantized = _write(tmp_path, made.onnx(), made.weights(), precision="int8")
    with pytest.raises(Failed, match="int8 has no torch form"):
        build_engine(quantized, "torch", "cpu", 0.0)
