"""What the memory of a training goes to, part by part: the sums of a forecast. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.config import Settings
from engine.tasks.images.names import OWN

MIB = 1 << 20
# Fitted to peaks measured with torch 2.13 on a CPU (docs/memory.md says to which), beside the heap as it is played:
# importing and first use of code, what kernels take for themselves, the small pieces
CODE_OWN = 50 * MIB
CODE_ZOO = 355 * MIB
CODE_DIGITS = 83 * MIB  # scikit-learn, which brings them
HEAP_OWN, HEAP_ZOO = 1.13, 1.06
# CUDA: cuBLAS's and cuDNN's workspaces; the allocator's rounding. Not measured yet.
CUDA_WORKSPACE = 160 * MIB
CUDA_SPREAD = 1.05

# of settings, classes, micro-batch, batch, precision, device
Tracer = Callable[[Settings, int, int, int, str, str], dict[str, int]]


@dataclass(frozen=True)
class Facts:
    """What a forecast wants to know of the data: classes, training samples, bytes of decoded images in memory."""

    classes: int
    samples: int
    decoded_bytes: int = 0


def parts_of(
    settings: Settings, facts: Facts, device: str, precision: str, batch: int, micro: int, tracer: Tracer
) -> dict[str, int]:
    """What the memory goes to, in bytes; the sum is the forecast."""
    traced = tracer(settings, facts.classes, micro, batch, precision, device)
    training = settings.training
    states = 2 if training.optimizer == "adamw" else int(training.momentum > 0)
    optimizer = states * traced["learning"]
    average = traced["weights"] + traced["buffers"] if training.ema_decay else 0
    weights = traced["weights"] + 2 * traced["buffers"]  # the buffers are kept for a step that is taken again
    step = max(traced["live"], traced["judged"])
    parts = {"weights": weights, "optimizer": optimizer, "average": average, "step": step}
    pixels = settings.data.img_size**2 * 3
    ahead = 3 + training.num_workers  # the one at work, the next, and one a thread
    if device == "cpu":
        own = settings.model.name in OWN
        heap = (HEAP_OWN if own else HEAP_ZOO) * traced["heap"]
        parts["allocator"] = max(0, int(heap) - sum(parts.values()))
        parts["code"] = (CODE_OWN if own else CODE_ZOO) + (CODE_DIGITS if settings.data.kind == "digits" else 0)
        parts["data"] = facts.decoded_bytes + ahead * batch * pixels
    else:
        parts["allocator"] = int((CUDA_SPREAD - 1) * sum(parts.values())) + CUDA_WORKSPACE
    return parts
