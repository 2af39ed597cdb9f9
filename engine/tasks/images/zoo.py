"""timm's models by name, imported only when one is asked for.

torchvision's wheel is built for CUDA: beside a CPU torch its import fails because the operators `nms`
and `qnms` were never declared, and timm imports torchvision. Declaring the two names first is enough,
for timm's nets use neither; it is done only after a plain import has failed.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import torch
from torch import nn

from engine.errors import UsageError, nearest
from engine.tasks.images.names import OWN

_NAMES = ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
          "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # fmt: skip
_declared: list[Any] = []  # the library's declarations live as long as this object


def load_timm() -> ModuleType:
    """The timm module.

    Raises:
        UsageError: it is not installed, or does not import beside this torch.
    """
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name not in ("timm", "torchvision"):
            raise
        raise UsageError(
            "this model needs timm, which is not installed",
            "install the zoo extra: pip install 'understudy[zoo]'",
            kind="missing_extra",
        ) from None
    except (RuntimeError, ImportError):
        pass
    if not _declared:
        library = torch.library.Library("torchvision", "DEF")
        for name in _NAMES:
            library.define(name)
        _declared.append(library)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]  # the failed import left half-made modules behind
    try:
        return importlib.import_module("timm")
    except (RuntimeError, ImportError) as error:
        raise UsageError(
            f"timm does not import beside torch {torch.__version__} ({error})",
            "install matching versions of torch, torchvision and timm",
            kind="missing_extra",
        ) from error


def build(name: str, num_classes: int, *, pretrained: bool, settings: dict[str, Any]) -> nn.Module:
    """The timm model `name` with `num_classes` outputs.

    Raises:
        UsageError: timm is missing, does not know the name, or its weights cannot be fetched.
    """
    try:
        timm = load_timm()
    except UsageError as error:
        raise UsageError(f"model '{name}' is not built in, and {error.message}",
                         f"{error.hint}; built in: {', '.join(OWN)}", kind=error.kind) from None  # fmt: skip
    if name not in timm.list_models():
        close = nearest(name, [*OWN, *timm.list_models()])
        raise UsageError(f"unknown model '{name}'", close, kind="unknown_model")
    if pretrained:
        return _pretrained(timm, name, num_classes, settings)
    try:
        return timm.create_model(name, num_classes=num_classes, **settings)
    except TypeError as error:
        raise UsageError(
            f"model {name} cannot be built ({error})", "see model.settings", kind="bad_model"
        ) from error


def _pretrained(timm: ModuleType, name: str, num_classes: int, settings: dict[str, Any]) -> nn.Module:
    if not timm.list_pretrained(name):
        raise UsageError(f"timm has no published weights for {name}", "leave model.pretrained=false")
    try:
        return timm.create_model(name, pretrained=True, num_classes=num_classes, **settings)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise UsageError(
            f"cannot fetch the published weights of {name} ({type(error).__name__}: {reason})",
            "connect to the internet once (they are kept), or train with model.pretrained=false",
            kind="no_weights",
        ) from error
