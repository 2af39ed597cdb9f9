"""From a torch module to what a slot serves: ONNX with probabilities, or a task's values, as output. Imports torch.

The bytes depend on the weights and the net alone: names of files, stack traces and other traces of the
machine are taken out, so equal checkpoints give equal releases.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch

OPSET = 18
INPUT, OUTPUT = "image", "probabilities"
CLOSENESS = 1e-4  # fp32: largest difference between torch and the converted model, of the largest value or of 1
AGREEMENT = 0.97  # int8: least share of images on which both name the same class


class Probabilities(torch.nn.Module):
    """A net of logits with the softmax that turns them into probabilities."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.net(image), 1)


def to_onnx(net: torch.nn.Module, shape: Sequence[int], source: str = INPUT, target: str = OUTPUT) -> bytes:
    """The net as an ONNX file: `source` FP32 [batch, *shape] → `target` FP32 [batch, ...].

    Where `target` is `probabilities`, the net's logits get their softmax. torch.export first; where it cannot follow the net, the older tracing exporter.

    Raises:
        Exception: neither exporter can express the net; the caller says so.
    """
    module = (Probabilities(net) if target == OUTPUT else net).eval()
    example = torch.zeros(2, *shape)
    names = source, target
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = _exported(module, example, names)
        except Exception:  # noqa: BLE001 - whatever torch.export raises, tracing may still succeed
            model = _traced(module, example, names)
    _strip(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _exported(module: torch.nn.Module, example: torch.Tensor, names: tuple[str, str]) -> onnx.ModelProto:
    program: Any = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        input_names=names[:1],
        output_names=names[1:],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        opset_version=OPSET,
        verbose=False,
    )
    model = onnx.ModelProto()
    model.CopyFrom(program.model_proto)
    if model.graph.input[0].type.tensor_type.shape.dim[0].dim_value:
        raise ValueError("the number of images became fixed")
    return model


def _traced(
    module: torch.nn.Module, example: torch.Tensor, names: tuple[str, str] = (INPUT, OUTPUT)
) -> onnx.ModelProto:
    stream = io.BytesIO()
    torch.onnx.export(
        module,
        (example,),
        stream,
        dynamo=False,
        input_names=names[:1],
        output_names=names[1:],
        dynamic_axes={name: {0: "batch"} for name in names},
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


def disagreement(wanted: np.ndarray, answers: np.ndarray, precision: str = "fp32") -> str | None:
    """How a converted model's answers, one row an input, differ more than its precision allows, or None.

    An fp32 model must be close in every number. Quantised weights move every number a little, so an int8
    model must name the same class on enough images, and its numbers must be finite.
    """
    if not np.isfinite(answers).all():
        return "gives NaN or Inf"
    if precision == "fp32":
        difference, allowed = float(np.abs(answers - wanted).max()), CLOSENESS * scale_of(wanted)
        return None if difference <= allowed else f"by {difference:.2g}, {allowed:.2g} is allowed"
    share = float((answers.argmax(1) == wanted.argmax(1)).mean())
    return None if share >= AGREEMENT else f"the same class on {share:.2%} of images, {AGREEMENT:.0%} are needed"


def scale_of(wanted: np.ndarray) -> float:
    """What a difference is measured by: 1 for probabilities, the largest value where values are larger."""
    return max(1.0, float(np.abs(wanted).max()))
