"""Out of memory: how each device says it, and how a step is undone so that it can be taken again in smaller parts."""

from __future__ import annotations

import gc
import operator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.config.schema import Training
from engine.errors import Failed, UsageError

# CUDA, XPU and MPS say "out of memory"; then the CPU's allocator, MPS above its largest buffer, and cuBLAS and cuDNN,
# whose own allocations do not go through torch
_WORDS = (
    "out of memory",
    "can't allocate memory",
    "Invalid buffer size",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


@dataclass(frozen=True)
class Shortage:
    """A step that did not fit; `reason` is the device's sentence."""

    reason: str


class Torn(Exception):
    """Memory ran out while the weights were being changed: only the last saved state is whole."""


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def reason_of(error: BaseException) -> str:
    """The error's first sentence, short enough for a log."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(". ")[0][:200]


def spoils_norms(error: Exception) -> bool:
    """Whether a batch norm was given a single value a channel."""
    return isinstance(error, ValueError) and "more than 1 value per channel" in str(error)


def too_few(settings: Training, rows: int, processes: int) -> UsageError:
    """The settings give a batch norm one sample at a time.

    Args:
        rows: samples of a batch that a process takes.
    """
    wanted = [] if rows > 1 else [f"training.batch_size={2 * processes}"]
    if settings.micro_batch:
        rows = max(rows, 2)
        parts = next(size for size in range(2, rows + 1) if rows // -(-rows // size) >= 2)
        wanted.append(f"training.micro_batch={parts}")
    return UsageError(
        f"the net's batch norms cannot learn from one sample at a time (training.batch_size={settings.batch_size}"
        + (f" training.micro_batch={settings.micro_batch})" if settings.micro_batch else ")"),
        f"this works: {' '.join(wanted) or 'training.batch_size=2'}",
        kind="too_few_samples",
    )


def out_of_memory(device: str, size: str, reason: str) -> Failed:
    """The end of a run whose smallest possible step does not fit."""
    return Failed(
        f"out of memory on {device} with {size} ({reason})",
        "take a smaller data.img_size, then a smaller model, or another device",
        kind="out_of_memory",
    )


def release(device: str) -> None:
    """Give cached memory back, so that smaller parts find it in one piece. To be called outside `except`."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()
    elif device == "xpu":
        torch.xpu.empty_cache()


class Buffers:
    """The net's buffers (running statistics of batch norms and the like) as they were before a step.

    A forward pass changes them; a step that is taken again must find them unchanged.
    """

    def __init__(self, model: nn.Module) -> None:
        self._places = [(module._buffers, name) for module in model.modules() for name in module._buffers]
        self._live: list[Tensor | None] = []
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []

    def keep(self) -> None:
        live = [buffers[name] for buffers, name in self._places]
        if len(live) != len(self._live) or not all(map(operator.is_, live, self._live)):
            self._live, self._pairs = live, _pairs(live)
        with torch.no_grad():
            for present, kept in self._pairs:
                torch._foreach_copy_(kept, present)

    def put_back(self) -> None:
        for (buffers, name), tensor in zip(self._places, self._live, strict=True):
            buffers[name] = tensor  # a net may have put another one in its place
        with torch.no_grad():
            for present, kept in self._pairs:
                torch._foreach_copy_(present, kept)


def _pairs(live: list[Tensor | None]) -> list[tuple[list[Tensor], list[Tensor]]]:
    """The tensors and room for their copies, by type of number: one call each, where a copy a tensor would cost
    a small net some percent of its step."""
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in live:
        if tensor is not None:
            kinds.setdefault(tensor.dtype, []).append(tensor)
    return [(tensors, [torch.empty_like(tensor) for tensor in tensors]) for tensors in kinds.values()]
