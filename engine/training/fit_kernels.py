"""What torch's `meta` device does otherwise than the real one, or slower than a forecast can wait for.

Its operators are Python where the device's are compiled: some take other kernels, and some import a second's worth of
modules to work out a shape that is plain.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# random fills need no numbers here, and torch's Python versions of them import its compiler, a second's work
FILLS = frozenset(("normal_", "uniform_", "bernoulli_", "erfinv_", "exponential_", "trunc_normal_"))
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
# of torch's lists for autocast: these in half precision, those in full
_MATRIX = frozenset(
    ("conv1d", "conv2d", "conv3d", "linear", "matmul", "bmm", "mm", "addmm", "baddbmm", "__matmul__", "__rmatmul__",
     "scaled_dot_product_attention")
)  # fmt: skip
_FULL = frozenset(("mse_loss", "cross_entropy", "nll_loss", "cosine_similarity", "norm"))
# what torch's Python operators import to be ready for shapes that are symbols, and what they ask of it with plain ones
_STAND_INS: dict[str, dict[str, Any]] = {
    "torch._dynamo": {"disable": lambda function, *_, **__: function},
    "sympy": {"Basic": type("Basic", (), {})},
    "torch.fx.experimental.symbolic_shapes": {
        "guard_or_false": bool,
        "guard_or_true": bool,
        "guard_size_oblivious": bool,
        "expect_true": bool,
        "guarding_hint_or_throw": lambda size: size,
        "has_guarding_hint": lambda _: True,
        "statically_known_true": bool,
        "is_nested_int": lambda _: False,
        "sym_and": lambda *parts: all(parts),
        "sym_or": lambda *parts: any(parts),
        "sym_eq": lambda one, other: one == other,
        "free_unbacked_symbols": lambda _: set(),
    },
}


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Keep torch's Python operators from importing its compiler, which takes longer than the whole trace.

    What is loaded already is used as it is, and what is asked for anything else is loaded after all.
    """
    for name, attributes in _STAND_INS.items():
        if name not in sys.modules:
            _put(name, _StandIn(name, attributes))
    try:
        yield
    finally:
        _remove(_STAND_INS)


class _StandIn(ModuleType):
    """A module with some of its attributes; whoever wants another one gets that of the real module."""

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        super().__init__(name)
        self.__dict__.update(attributes)

    def __getattr__(self, attribute: str) -> Any:
        of_a_package = attribute == "__path__" and "." not in self.__name__  # a part of it is imported
        if attribute.startswith("__") and not of_a_package:
            raise AttributeError(attribute)
        _remove(
            {self.__name__, "sympy", "torch.fx.experimental.symbolic_shapes"}
        )  # the last imports the one before
        return getattr(importlib.import_module(self.__name__), attribute)


def _remove(names: Iterable[str]) -> None:
    for name in names:
        if isinstance(sys.modules.get(name), _StandIn):
            _put(name, None)


def _put(name: str, module: ModuleType | None) -> None:
    """Have `import` find this module under a name, or look for it itself."""
    package, _, last = name.rpartition(".")
    if module is not None:
        sys.modules[name] = module
        if package:
            setattr(sys.modules[package], last, module)
        return
    del sys.modules[name]
    if package:
        delattr(sys.modules[package], last)


def shaped(name: str, arguments: Any) -> Any:
    """The results of an operator whose Python version takes long, by its name; None: let it work them out itself."""
    return _SHAPED[name](*arguments) if name in _SHAPED else None


def _batch_norm(
    inputs: Tensor, _weight: Any, _bias: Any, _mean: Any, _var: Any, training: bool, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    statistics = inputs.shape[1] if training else 0
    return torch.empty_like(inputs), *(inputs.new_empty(statistics, dtype=torch.float32) for _ in range(2))


def _batch_norm_backward(_outputs: Tensor, inputs: Tensor, weight: Tensor | None, *others: Any) -> Any:
    wanted = others[-1]
    found = [inputs, weight, weight]
    return tuple(
        None if one is None or not asked else torch.empty_like(one)
        for one, asked in zip(found, wanted, strict=True)
    )


def _sampled(inputs: Tensor, grid: Tensor, *_: Any) -> Tensor:
    return inputs.new_empty((*inputs.shape[:2], *grid.shape[1:3]))


_SHAPED: dict[str, Callable[..., Any]] = {
    "relu": torch.empty_like,
    "threshold_backward": lambda outputs, *_: torch.empty_like(outputs),
    "sigmoid_backward": lambda outputs, *_: torch.empty_like(outputs),
    "grid_sampler_2d": _sampled,
    "native_batch_norm": _batch_norm,
    "native_batch_norm_backward": _batch_norm_backward,
}


class NoFills(TorchFunctionMode):
    """Leaves random initialisation out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in FILLS:
            return _first(args, kwargs)
        return func(*args, **(kwargs or {}))


def _first(args: Any, kwargs: Any) -> Any:
    return args[0] if args else next(iter(kwargs.values()))


class Kernels(TorchFunctionMode):
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
        if name in FILLS:
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


def _raise(part: Any) -> Any:
    half = isinstance(part, Tensor) and part.dtype in (torch.bfloat16, torch.float16)
    return part.float() if half else part
