"""Which weights learn, and the optimiser that moves them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache

import torch
from torch import nn

from engine.config.schema import Training
from engine.errors import UsageError


def build_optimizer(model: nn.Module, settings: Training, device: str) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101) or SGD with momentum over the weights that learn.

    Weight decay spares norms, biases and what the net itself names in `no_weight_decay()` (timm's position
    embeddings): they have no scale to shrink (He et al. 2018, arXiv:1812.01187, section 3.1).
    """
    spared = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()
    learning = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    decayed = [weight for name, weight in learning if weight.ndim > 1 and name not in spared]
    plain = [weight for name, weight in learning if weight.ndim <= 1 or name in spared]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    fused = device in ("cpu", "cuda")
    if settings.optimizer == "adamw":
        return _without_compiler(torch.optim.AdamW)(groups, lr=settings.learning_rate, fused=fused)
    nesterov = settings.nesterov and settings.momentum > 0
    return _without_compiler(torch.optim.SGD)(
        groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=nesterov, fused=fused
    )


@cache
def _without_compiler(optimizer: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The same optimiser without the wrappers that import torch's compiler, 1.5 s before the first step.

    They keep `torch.compile` from tracing the optimiser, which is never compiled here.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    methods["step"] = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), methods)


def freeze(model: nn.Module, wanted: Sequence[str]) -> list[nn.Module]:
    """Stop weights from learning.

    Args:
        wanted: `backbone` (all but the last layer), a number of leading parts (the net's children in order,
            chains of layers opened), or globs of weight names such as `layer1.*`.

    Returns:
        The modules whose weights are all frozen: to be kept in evaluation mode, so that their batch norms
        keep their statistics too.

    Raises:
        UsageError: a word names no weight, or nothing would be left to learn.
    """
    weights = dict(model.named_parameters())
    parts = [part for part in _parts(model, "") if any(name.startswith(part) for name in weights)]
    for word in wanted:
        if word.isdigit() or word == "backbone":
            count = int(word) if word.isdigit() else len(parts) - 1
            chosen = [name for name in weights if name.startswith(tuple(parts[:count]))]
        else:
            chosen = [name for name in weights if fnmatchcase(name, word)]
        if not chosen and word != "0":
            raise UsageError(
                f"training.freeze: no weight is called '{word}'",
                f"weights are called like {', '.join(list(weights)[:3])}; or give backbone, or a number of parts",
            )
        for name in chosen:
            weights[name].requires_grad_(False)
    if not any(weight.requires_grad for weight in weights.values()):
        raise UsageError("training.freeze leaves nothing to learn", "freeze less, for instance backbone")
    return [module for module in model.modules() if _all_frozen(module)]


def _all_frozen(module: nn.Module) -> bool:
    weights = list(module.parameters())
    return bool(weights) and not any(weight.requires_grad for weight in weights)


def _parts(module: nn.Module, prefix: str) -> Iterator[str]:
    """Name prefixes of the module's children in order; a Sequential or a ModuleList is opened."""
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _parts(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}."
