"""One training step without its numbers: which memory lives when, from the shapes alone.

The net, a batch, forward, loss and backward pass run on torch's `meta` device, where tensors have shapes and
strides but no storage, and a dispatch mode follows every storage from the operation that makes it until the last
tensor that uses it dies. A device's kernels are those of the CPU or GPU in their choice of what is saved for
backward; what a kernel allocates and frees inside itself is not seen here (`engine.training.fit` adds what it can
cost).
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.config import Settings
from engine.tasks.images.augment import DRAWS
from engine.tasks.images.models import build_model
from engine.tasks.images.names import OWN
from engine.tasks.images.preprocess import Preprocess
from engine.tasks.images.task import ImageTask
from engine.training.fit_heap import Step, heap_bytes
from engine.training.fit_kernels import FILLS, Kernels, NoFills, shaped, without_compiler
from engine.training.optim import freeze


@dataclass(frozen=True)
class Traced:
    """Bytes of one net and one step of it with `batch` samples at a time.

    `weights` and `buffers` stay, `learning` are the weights that have a gradient; `live` is the most that lives at
    one time of a step, gradients included, `judged` while a batch is validated. `heap` is what a CPU's allocator
    gets to with all of that, weights and the optimiser's states included.
    """

    batch: int
    weights: int
    buffers: int
    learning: int
    live: int
    judged: int
    heap: int


def trace(
    settings: Settings, classes: int, batch: int, whole: int, precision: str, device: str, threshold: int
) -> Traced:
    """Follow one step of the image task that the settings name.

    Args:
        batch: samples that go through the net at a time.
        whole: samples of an optimiser step.
        precision: `fp32`, `bf16` or `fp16`.
        threshold: a CPU's allocator maps pieces from so many bytes on by themselves.

    Raises:
        UsageError: the model cannot be built.
    """
    own = settings.model.name in OWN  # timm imports the compiler itself
    with without_compiler() if own else contextlib.nullcontext():
        return _trace(settings, classes, batch, whole, precision, device, threshold)


def _trace(
    settings: Settings, classes: int, batch: int, whole: int, precision: str, device: str, threshold: int
) -> Traced:
    with torch.device("meta"), NoFills():
        wanted = settings.model
        model = build_model(wanted.name, classes, settings=wanted.settings)
    model.train()
    freeze(model, settings.training.freeze)
    kept = [*model.parameters(), *model.buffers()]
    recorder = _Recorder(kept)
    side = settings.data.img_size
    task = _task(settings, classes)
    with recorder:
        pixels = torch.empty(whole, side, side, 3, dtype=torch.uint8, device="meta")
        labels = torch.empty(whole, dtype=torch.long, device="meta")
        draws = torch.empty(whole, DRAWS, device="meta")
        with Kernels(device, "fp32"):  # augmentation is no part of autocast
            inputs, targets = task.prepare((pixels, labels, draws), training=True)
        prepared = len(recorder.events)
        with Kernels(device, precision):
            loss = task.loss(model(inputs[:batch]).float(), tuple(target[:batch] for target in targets))
            loss.backward()
    accumulated = recorder.taken_by(p.grad for p in model.parameters())
    del inputs, targets, loss, pixels, draws
    training = settings.training
    states = 2 if training.optimizer == "adamw" else int(training.momentum > 0)
    learning = [_bytes(p) for p in model.parameters() if p.requires_grad]
    step = Step(recorder.events[:prepared], recorder.events[prepared:], accumulated, -(-whole // batch))
    model.eval()
    judging = _Recorder(kept)
    with torch.no_grad(), Kernels(device, precision), judging:
        shape = (batch, 3, side, side)
        model(torch.empty(shape, device="meta").contiguous(memory_format=torch.channels_last))
    heap = heap_bytes(
        [(_bytes(tensor), tensor.ndim == 4) for tensor in kept],
        [_bytes(tensor) for tensor in model.buffers()],
        [size for size in learning for _ in range(states)],
        step,
        judging.events,
        threshold,
        averaged=bool(training.ema_decay),
    )
    return Traced(
        batch,
        weights=sum(map(_bytes, model.parameters())),
        buffers=sum(map(_bytes, model.buffers())),
        learning=sum(learning),
        live=recorder.most,
        judged=judging.most,
        heap=heap,
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _task(settings: Settings, classes: int) -> ImageTask:
    """The task's own `prepare` and `loss`, with no data behind them."""
    data = settings.data
    preprocess = Preprocess(data.img_size, data.resize, tuple(data.mean), tuple(data.std))  # type: ignore[arg-type]
    plain = settings.model_copy(deep=True)
    plain.training.class_weights = "none"  # they need labels, and are a few numbers
    facts: Any = SimpleNamespace(
        classes=[str(k) for k in range(classes)],
        report={},
        fingerprint="",
        train=(),
        val=(),
        preprocess=preprocess,
    )
    return ImageTask(plain, facts)


class _Recorder(TorchDispatchMode):
    """Notes what comes and goes, as `engine.training.fit_heap` plays it; what was there before (`kept`) is not counted.

    `most` is the most that lived at one time, bytes.
    """

    def __init__(self, kept: Iterable[Tensor]) -> None:
        super().__init__()
        self._kept = [tensor.untyped_storage() for tensor in kept]  # held: their identities must stay theirs
        self._known = dict.fromkeys((storage._cdata for storage in self._kept), 0)
        self._living = self._taken = self.most = 0
        self.events: list[int] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # skipping would import torch's compiler

    def taken_by(self, tensors: Iterable[Tensor | None]) -> frozenset[int]:
        """The numbers of the pieces that these tensors use."""
        return frozenset(self._known[t.untyped_storage()._cdata] for t in tensors if t is not None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in FILLS:
            return args[0]
        if (result := shaped(name, args)) is None:
            result = func(*args, **(kwargs or {}))
        for part in tree_leaves(result):
            if isinstance(part, Tensor):
                self._see(part.untyped_storage())
        if name in _REORDERING:
            self._pass(_bytes(args[_REORDERING[name]]))
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or not size:
            return
        self._taken += 1
        self._known[key] = self._taken
        self.events.append(size)
        weakref.finalize(storage, self._gone, key, size, self._taken)
        self._living += size
        self.most = max(self.most, self._living)

    def _gone(self, key: int, size: int, number: int) -> None:
        del self._known[key]
        self.events.append(-number)
        self._living -= size

    def _pass(self, size: int) -> None:
        """A kernel takes a piece and gives it back."""
        if size:
            self._taken += 1
            self.events += (size, -self._taken)


# a CPU's convolutions copy their weights into an order of their own: where the weights are among the arguments
_REORDERING = {"convolution": 1, "convolution_backward": 2}
