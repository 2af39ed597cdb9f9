"""From a torch module to what a slot serves: ONNX with probabilities as output. Imports torch.

The bytes depend on the weights and the net alone: names of files, stack traces and other traces of the
machine are taken out, so equal checkpoints give equal releases.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import torch

OPSET = 18
INPUT, OUTPUT = "image", "probabilities"
CLOSENESS = 1e-4  # fp32: largest difference of a probability between torch and the converted model
AGREEMENT = 0.97  # int8: least share of images on which both name the same class


class Probabilities(torch.nn.Module):
    """A net of logits with the softmax that turns them into probabilities."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.net(image), 1)


def to_onnx(net: torch.nn.Module, img_size: int) -> bytes:
    """The net as an ONNX file: `image` FP32 [batch, 3, S, S] → `probabilities` FP32 [batch, classes].

    torch.export first; where it cannot follow the net, the older tracing exporter.

    Raises:
        Exception: neither exporter can express the net; the caller says so.
    """
    module = Probabilities(net).eval()
    example = torch.zeros(2, 3, img_size, img_size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = _exported(module, example)
        except Exception:  # noqa: BLE001 - whatever torch.export raises, tracing may still succeed
            model = _traced(module, example)
    _strip(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _exported(module: torch.nn.Module, example: torch.Tensor) -> onnx.ModelProto:
    program: Any = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        opset_version=OPSET,
        verbose=False,
    )
    model = onnx.ModelProto()
    model.CopyFrom(program.model_proto)
    if model.graph.input[0].type.tensor_type.shape.dim[0].dim_value:
        raise ValueError("the number of images became fixed")
    return model


def _traced(module: torch.nn.Module, example: torch.Tensor) -> onnx.ModelProto:
    stream = io.BytesIO()
    torch.onnx.export(
        module,
        (example,),
        stream,
        dynamo=False,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        opset_version=17,
    )
    return onnx.load_from_string(stream.getvalue())


def _strip(model: onnx.ModelProto) -> None:
    """Take out everything that says where and how the file was made."""
    model.producer_version = ""
    model.doc_string = ""
    del model.metadata_props[:]
    _strip_graph(model.graph)
    model.graph.name = "understudy"
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        _strip_nodes(function.node)


def _strip_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for value in [*graph.input, *graph.output]:
        value.doc_string = ""
        del value.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Any) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            attribute.doc_string = ""
            if attribute.HasField("g"):
                _strip_graph(attribute.g)
            for graph in attribute.graphs:
                _strip_graph(graph)


def golden_pixels(img_size: int) -> np.ndarray:
    """Six fixed images, uint8 [6, S, S, 3]: black, white, a gradient, noise, blocks and soft spots."""
    generator = np.random.default_rng(20260206)
    ramp = np.linspace(0, 255, img_size)
    gradient = np.stack(
        [np.add.outer(ramp, ramp) / 2, np.tile(ramp, (img_size, 1)), ramp[::-1, None] + 0 * ramp], -1
    )
    noise = generator.integers(0, 256, (img_size, img_size, 3))
    coarse = generator.integers(0, 256, (4, 4, 3))
    cell = np.minimum(np.arange(img_size) * 4 // img_size, 3)
    blocks = coarse[cell][:, cell]
    wave = np.sin(np.linspace(0, 3 * np.pi, img_size))
    spots = (127.5 + 127.5 * np.multiply.outer(wave, wave))[..., None] * np.array([1.0, 0.6, 0.3])
    black, white = np.zeros_like(noise), np.full_like(noise, 255)
    return np.stack([black, white, gradient, noise, blocks, spots]).astype(np.uint8)


def disagreement(wanted: np.ndarray, answers: np.ndarray, precision: str = "fp32") -> str | None:
    """How a converted model's probabilities [images, classes] differ more than its precision allows, or None.

    An fp32 model must be close in every number. Quantised weights move every number a little, so an int8
    model must name the same class on enough images, and its numbers must be finite.
    """
    if not np.isfinite(answers).all():
        return "gives NaN or Inf"
    if precision == "fp32":
        difference = float(np.abs(answers - wanted).max())
        return None if difference <= CLOSENESS else f"by {difference:.2g}, {CLOSENESS:g} is allowed"
    share = float((answers.argmax(1) == wanted.argmax(1)).mean())
    return None if share >= AGREEMENT else f"the same class on {share:.2%} of images, {AGREEMENT:.0%} are needed"
