"""Tiny releases made by hand: colour classifiers of a few kilobytes, no torch."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from engine.release.bundle import Manifest, Origin, Release, release_path, write_release
from engine.release.slots import write_pointer
from engine.store.workspace import Workspace

SIZE = 16
MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
WEIGHTS = np.array([[2, -1, -1], [-1, 2, -1], [-1, -1, 2], [0.1, 0.1, 0.1]], np.float32)


def colour_net(bias: float = 0.0) -> bytes:
    """ONNX: mean colour, one linear layer, softmax; class 0 red, 1 green, 2 blue, 3 neither."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 4])],
        [
            numpy_helper.from_array(WEIGHTS, "weight"),
            numpy_helper.from_array(np.array([0, 0, 0, bias], np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def make_release(workspace: Workspace, prefix: str = "a", *, net: bytes | None = None, **changes: Any) -> Release:
    """A release whose class names start with `prefix`, so that every answer shows where it came from."""
    fields: dict[str, Any] = {
        "architecture": {"name": "colours", "settings": {}},
        "classes": [f"{prefix}-{name}" for name in ("red", "green", "blue", "neither")],
        "input": {"name": "image", "dtype": "FP32", "shape": [-1, 3, SIZE, SIZE]},
        "preprocess": {"img_size": SIZE, "resize": "squash", "mean": MEAN, "std": STD},
        "parameters": 16,
        "checkpoint": Origin(
            name=f"{prefix}.pth", sha256="1" * 64, md5="2" * 32, bytes=1234, cycle=3, epoch=7, accuracy=0.87
        ),
    }
    workspace.releases.mkdir(parents=True, exist_ok=True)
    return write_release(workspace.releases, Manifest(**(fields | changes)), net or colour_net(), b"")


def point(workspace: Workspace, slot: str, release: Release) -> None:
    write_pointer(workspace, slot, release, "test")


def damage(workspace: Workspace, release: Release) -> None:
    path = release_path(workspace, release.id)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def image(
    colour: tuple[int, int, int] = (220, 20, 20), size: tuple[int, int] = (64, 48), form: str = "JPEG"
) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, form)
    return stream.getvalue()
