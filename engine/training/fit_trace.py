"""One training step without its numbers: which memory lives when, from the shapes alone.

The net, a batch, forward, loss and backward pass run on torch's `meta` device, where tensors have shapes and
strides but no storage, and a dispatch mode follows every storage from the operation that makes it until the last
tensor that uses it dies. A device's kernels are those of the CPU or GPU in their choice of what is saved for
backward; what a kernel allocates and frees inside itself is not seen here (`engine.training.fit` adds what it can
cost).
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.config import Settings
from engine.tasks.images.augment import DRAWS
from engine.tasks.images.models import build_model
from engine.tasks.images.names import OWN
from engine.tasks.images.preprocess import Preprocess
from engine.tasks.images.task import ImageTask
from engine.training.fit_heap import Step, heap_bytes
from engine.training.optim import freeze

# random fills need no numbers here, and torch's Python versions of them import its compiler, a second's work
_FILLS = frozenset(("normal_", "uniform_", "bernoulli_", "erfinv_", "exponential_", "trunc_normal_"))
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
    with _without_compiler() if own else contextlib.nullcontext():
        return _trace(settings, classes, batch, whole, precision, device, threshold)


def _trace(
    settings: Settings, classes: int, batch: int, whole: int, precision: str, device: str, threshold: int
) -> Traced:
    with torch.device("meta"), _NoFills():
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
        with _Kernels(device, "fp32"):  # augmentation is no part of autocast
            inputs, targets = task.prepare((pixels, labels, draws), training=True)
        prepared = len(recorder.events)
        with _Kernels(device, precision):
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
    with torch.no_grad(), _Kernels(device, precision), judging:
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


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """Keep torch's Python operators from importing its compiler, which takes longer than the whole trace.

    Each asks it, when first called, to be left out of compilation; nothing is compiled here.
    """
    if "torch._dynamo" in sys.modules:
        yield
        return
    stand_in: Any = ModuleType("torch._dynamo")
    stand_in.disable = lambda function, *_, **__: function
    sys.modules["torch._dynamo"] = torch._dynamo = stand_in
    try:
        yield
    finally:
        del sys.modules["torch._dynamo"], torch._dynamo


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


class _NoFills(TorchFunctionMode):
    """Leaves random initialisation out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _FILLS:
            return _first(args, kwargs)
        return func(*args, **(kwargs or {}))


def _first(args: Any, kwargs: Any) -> Any:
    return args[0] if args else next(iter(kwargs.values()))


class _Kernels(TorchFunctionMode):
    """Takes the kernels that the real device takes, where `meta` would take others.

    Attention goes to the fused kernel of the device (torch chooses it when the mask learns nothing); with autocast
    the matrix operations get copies in half precision, each weight once a step, as `torch.autocast` keeps them.
    """

    def __init__(self, device: str, precision: str) -> None:
        super().__init__()
        self._device, self._half = device, _HALVES.get(precision)
        self._cast: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _FILLS:
            return _first(args, kwargs)
        if self._half is not None and name in _MATRIX:
            args = tuple(self._lower(part) for part in args)
            kwargs = {key: self._lower(part) for key, part in kwargs.items()}
        elif self._half is not None and name in _FULL:
            args = tuple(_raise(part) for part in args)
        if func is F.scaled_dot_product_attention and self._device in ("cpu", "cuda"):
            mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
            if not kwargs.get("dropout_p") and (mask is None or not mask.requires_grad):
                return _FUSED(*args[:3], 0.0, kwargs.get("is_causal", False), attn_mask=mask, scale=kwargs.get("scale"))[0]  # fmt: skip
        return func(*args, **kwargs)

    def _lower(self, part: Any) -> Any:
        if not isinstance(part, Tensor) or part.dtype != torch.float32:
            return part
        if not isinstance(part, nn.Parameter):
            return part.to(self._half)
        if id(part) not in self._cast:
            self._cast[id(part)] = (part, part.to(self._half))
        return self._cast[id(part)][1]


_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
# of torch's lists for autocast: these in half precision, those in full
_MATRIX = frozenset(
    ("conv1d", "conv2d", "conv3d", "linear", "matmul", "bmm", "mm", "addmm", "baddbmm", "__matmul__", "__rmatmul__",
     "scaled_dot_product_attention")
)  # fmt: skip
_FULL = frozenset(("mse_loss", "cross_entropy", "nll_loss", "cosine_similarity", "norm"))


def _raise(part: Any) -> Any:
    half = isinstance(part, Tensor) and part.dtype in (torch.bfloat16, torch.float16)
    return part.float() if half else part


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
        if name in _FILLS:
            return args[0]
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
