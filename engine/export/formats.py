"""A subject written in each format, with preprocessing, class names and provenance inside the file.

| format | file | what |
|---|---|---|
| `onnx` | `model.onnx` | fp32, any batch; ONNX Runtime and most edge engines |
| `fp16` | `model_fp16.onnx` | half the size; input and output stay fp32; for accelerators: CPUs compute it in fp32 |
| `int8` | `model_quantized.onnx` | see `engine.export.quantize` |
| `pt2` | `model.pt2` | torch.export, for torch and AOTInductor |
| `torchscript` | `model_scripted.pt` | the documents' format; torch calls it deprecated |
| `triton` | `triton/understudy/` | a model repository, see `engine.export.triton` |
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from engine.export import triton
from engine.export.session import open_session
from engine.export.subject import Subject

if TYPE_CHECKING:
    import torch

FILES = {
    "onnx": "model.onnx",
    "fp16": "model_fp16.onnx",
    "int8": "model_quantized.onnx",
    "pt2": "model.pt2",
    "torchscript": "model_scripted.pt",
    "triton": triton.FILE,
}
INSTEAD = {"onnx": "pt2", "pt2": "torchscript"}  # what is written where a format cannot express the net


def with_metadata(model: bytes, metadata: dict[str, str]) -> bytes:
    """The ONNX file with `metadata` in its `metadata_props`."""
    proto = onnx.load_from_string(model)
    del proto.metadata_props[:]
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    return bytes(proto.SerializeToString(deterministic=True))


def half(model: bytes) -> bytes:
    """The ONNX file with fp16 weights and sums; input and output stay fp32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights below fp16's smallest number become that: said of each
        smaller = convert_float_to_float16(onnx.load_from_string(model), keep_io_types=True)
    return bytes(smaller.SerializeToString(deterministic=True))


def exported_program(subject: Subject) -> bytes:
    """`torch.export`'s archive with a free batch; any exception of torch's where it cannot follow the net."""
    import torch

    example = torch.zeros(2, *subject.medium.shape)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(subject.module, (example,), dynamic_shapes=({0: batch},))
        stream = io.BytesIO()
        torch.export.save(program, stream, extra_files=dict(subject.metadata()))
    return stream.getvalue()


def scripted(subject: Subject) -> bytes:
    """TorchScript by tracing, by compiling where a trace answers another batch differently."""
    import torch

    example = torch.from_numpy(subject.medium.golden()[:2])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated is said once, by the verb
        try:
            module: Any = torch.jit.trace(subject.module, example, check_trace=False)
            if module(example[:1]).shape[0] != 1:
                raise RuntimeError("the batch became fixed")
        except Exception:  # noqa: BLE001 - whatever tracing raises, compiling may still succeed
            module = torch.jit.script(subject.module)
        stream = io.BytesIO()
        torch.jit.save(torch.jit.freeze(module), stream, _extra_files=dict(subject.metadata()))
    return stream.getvalue()


class OnnxRunner:
    """An exported ONNX file as something that answers batches, on `threads` threads (0: one a core)."""

    def __init__(self, content: bytes, input_name: str, threads: int) -> None:
        self._name, self._session = input_name, open_session(content, threads)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._name: batch})[0]


class TorchRunner:
    """A torch module, an exported program or TorchScript, on `threads` threads (0: as torch has them)."""

    def __init__(self, module: Any, threads: int) -> None:
        import torch

        self._module, self._threads = module, threads or torch.get_num_threads()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        import torch

        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            answer: torch.Tensor = self._module(torch.from_numpy(batch))
        return answer.numpy()


def runner(kind: str, content: bytes, input_name: str, threads: int) -> OnnxRunner | TorchRunner:
    """What answers batches from the bytes of an exported file of this format."""
    if kind in ("onnx", "triton", "fp16", "int8"):
        return OnnxRunner(content, input_name, threads)
    import torch

    stream = io.BytesIO(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: Any = torch.export.load(stream).module() if kind == "pt2" else torch.jit.load(stream)
    return TorchRunner(module, threads)
