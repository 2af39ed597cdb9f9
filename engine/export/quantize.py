"""Static INT8 of an ONNX file: QDQ, weights per channel, ranges from the person's own inputs.

Weights are signed and activations unsigned bytes (U8S8), which VNNI multiplies four at a time; without VNNI
the sums of U8S8 can overflow 16 bits, so there weights get 7 bits (`reduce_range`, as ONNX Runtime advises).
Source: Jacob et al. 2018, arXiv:1712.05877; ONNX Runtime's `quantize_static`. Torch-free.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from engine.errors import Failed
from engine.export.host import has_vnni
from engine.export.session import Inputs, open_session, run_batches

Method = Literal["averaged", "percentile"]
_WEIGHTED = ("Conv", "Gemm", "MatMul", "ConvTranspose")
# what is left in floats: their outputs need more than 256 steps, and they take no time
_FLOAT_OPS = frozenset(("Softmax", "Sigmoid", "LayerNormalization", "Erf", "Exp", "Log", "ReduceMax"))


@dataclass(frozen=True)
class Calibration:
    """An ONNX file made ready for quantising, and the ranges of its tensors.

    Attributes:
        model: shapes inferred, constants folded, batch norms in their convolutions.
        layers: the names of the nodes with weights, in the order of the graph.
        ranges: ONNX Runtime's file of the tensors' ranges.
        inputs: how many inputs they were measured on.
        method: how.
    """

    model: onnx.ModelProto
    layers: list[str]
    ranges: Path
    inputs: int
    method: Method

    def quantized(self, *, keep: Sequence[str] = (), only: Sequence[str] | None = None) -> bytes:
        """The INT8 file.

        Args:
            keep: layers that stay in fp32.
            only: quantise these layers and nothing else; None: everything that can be.
        """
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        kinds = sorted({node.op_type for node in self.model.graph.node} - _FLOAT_OPS)
        with tempfile.TemporaryDirectory() as folder, _quiet():
            path = Path(folder) / "int8.onnx"
            quantize_static(
                self.model,
                path,
                None,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=not has_vnni(),
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(_WEIGHTED) if only is not None else _quantizable(kinds),
                nodes_to_quantize=list(only) if only is not None else None,
                nodes_to_exclude=list(keep),
                calibrate_method=CalibrationMethod[_METHODS[self.method][0]],
                extra_options={"ActivationSymmetric": False},
                calibration_cache_path=self.ranges,
            )
            model = onnx.load(path)
        model.graph.name = "understudy"
        return bytes(model.SerializeToString(deterministic=True))


# `averaged` over the batches, one odd image does not stretch the range of all the others; `percentile` cuts off the
# outermost of all activations, which helps where a few are far greater than the rest
_METHODS: dict[Method, tuple[str, dict[str, Any]]] = {
    "averaged": ("MinMax", {"moving_average": True, "averaging_constant": 0.05}),
    "percentile": ("Percentile", {"percentile": 99.99, "symmetric": False}),
}


def calibrate(model: bytes, batches: Iterable[Inputs], folder: Path, method: Method = "averaged") -> Calibration:
    """Measure the ranges of every tensor of an fp32 ONNX file.

    Args:
        batches: preprocessed inputs by name, a few hundred samples in all, of the kind that will be asked; read
            once, one after the other.
        folder: where the file of the ranges is put.

    Raises:
        Failed: there are no inputs, or ONNX Runtime cannot follow the model.
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data

    count = 0

    class Reader(CalibrationDataReader):
        def __init__(self, batches: Iterable[Inputs]) -> None:
            self.left = iter(batches)

        def get_next(self) -> Inputs | None:
            nonlocal count
            batch = next(self.left, None)
            count += len(next(iter(batch.values()))) if batch else 0
            return batch

    kind, how = _METHODS[method]
    try:
        with tempfile.TemporaryDirectory() as scratch, _quiet():
            ready = _prepared(model, Path(scratch))
            path = Path(scratch) / "ready.onnx"
            onnx.save(ready, path)
            calibrator = create_calibrator(
                path,
                _quantizable(sorted({node.op_type for node in ready.graph.node} - _FLOAT_OPS)),
                augmented_model_path=str(Path(scratch) / "augmented.onnx"),
                calibrate_method=CalibrationMethod[kind],
                extra_options=how,
            )
            # of histograms one call holds the activations of all its batches; of ranges it averages them
            for part in ([batch] for batch in batches) if method == "percentile" else (batches,):
                calibrator.collect_data(Reader(part))
            ranges = folder / "ranges.json"
            save_tensors_data(calibrator.compute_data(), ranges)
    except Exception as error:  # ONNX Runtime has a class of its own for each failure
        if not count:
            raise Failed(
                "there is nothing to calibrate INT8 on", "name data with --data DIR", kind="no_data"
            ) from None
        reason = " ".join(str(error).split())[:200]
        raise Failed(
            f"the model cannot be calibrated ({type(error).__name__}: {reason})",
            "export it without int8",
            kind="cannot_quantize",
        ) from error
    layers = [node.name for node in ready.graph.node if node.op_type in _WEIGHTED]
    return Calibration(ready, layers, ranges, count, method)


def sensitivity(
    calibration: Calibration, batches: Sequence[Inputs], wanted: np.ndarray, groups: int = 24
) -> list[tuple[list[str], float]]:
    """How much each group of layers harms the answers when it alone is quantised, worst first.

    Args:
        wanted: the fp32 model's outputs for `batches`, [samples, ...].
        groups: neighbouring layers are tried together, so that a deep net takes no longer than this many tries.

    Returns:
        (layers, mean squared difference of the outputs) of each group.
    """
    size = -(-len(calibration.layers) // groups)
    found = []
    for start in range(0, len(calibration.layers), size):
        layers = calibration.layers[start : start + size]
        session = open_session(calibration.quantized(only=layers))
        difference = run_batches(session, batches) - wanted
        found.append((layers, float(np.square(difference).mean())))
    return sorted(found, key=lambda pair: -pair[1])


def _prepared(model: bytes, folder: Path) -> onnx.ModelProto:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, path = folder / "source.onnx", folder / "prepared.onnx"
    source.write_bytes(model)
    quant_pre_process(str(source), str(path), skip_symbolic_shape=True)
    ready = onnx.load(path)
    taken: set[str] = set()
    for index, node in enumerate(ready.graph.node):  # a layer is told apart by its name
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)
    return ready


def _quantizable(kinds: Sequence[str]) -> list[str]:
    from onnxruntime.quantization.registry import QDQRegistry

    return [kind for kind in kinds if kind in QDQRegistry]


@contextlib.contextmanager
def _quiet() -> Iterator[Any]:
    """ONNX Runtime's quantiser speaks through the root logger and print; neither is for the person."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            yield
        finally:
            root.setLevel(level)
