"""Nets whose channels were taken out: rebuilt from their architecture and the widths that are left. Imports torch.

A card keeps the widths under `architecture.settings.pruned`: module name -> the shape of its weight. So a pruned net
trains, resumes, is admitted and served like any other, and no host but the one that pruned needs a pruning library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from engine.errors import UsageError

KEY = "pruned"
_KINDS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d)


def widths(net: nn.Module, original: nn.Module) -> dict[str, list[int]]:
    """The modules of `net` whose weights are smaller than those of `original`, with the shapes that they have.

    Raises:
        UsageError: something else was made smaller than what can be rebuilt.
    """
    before = {name: tuple(value.shape) for name, value in original.state_dict().items()}
    changed = {name for name, value in net.state_dict().items() if tuple(value.shape) != before.get(name)}
    found = {}
    for name, module in net.named_modules():
        own = {key for key in changed if key.rpartition(".")[0] == name}
        if not own:
            continue
        if not isinstance(module, _KINDS) or module.weight is None:
            raise UsageError(
                f"'{name}' is a {type(module).__name__}, which cannot be kept pruned", "export without pruning"
            )
        found[name] = list(module.weight.shape)
        changed -= own
    if changed:
        raise UsageError(f"'{min(changed)}' cannot be kept pruned", "export without pruning")
    return found


def shrink(net: nn.Module, shapes: Mapping[str, Sequence[int]]) -> nn.Module:
    """Give the modules named in `shapes` weights of those shapes; what is in them is left to a state dict.

    Raises:
        UsageError: no such module, or a shape that it cannot have.
    """
    modules = dict(net.named_modules())
    for name, given in shapes.items():
        module = modules.get(name)
        if not isinstance(module, _KINDS):
            raise UsageError(
                f"there is no layer '{name}' to make smaller", "its card does not fit its architecture"
            )
        shape = tuple(int(size) for size in given)
        whole = tuple(module.weight.shape)
        if len(shape) != len(whole) or not all(0 < a <= b for a, b in zip(shape, whole, strict=True)):
            raise UsageError(f"'{name}' cannot have the shape {list(shape)}", f"it is at most {list(whole)}")
        _resize(module, shape)
    return net


def _resize(module: nn.Module, shape: tuple[int, ...]) -> None:
    like: dict[str, Any] = {"dtype": module.weight.dtype, "device": module.weight.device}
    module.weight = nn.Parameter(torch.ones(shape, **like))
    if module.bias is not None:
        module.bias = nn.Parameter(torch.zeros(shape[0], **like))
    if isinstance(module, nn.Conv2d):
        if module.groups == module.in_channels:  # depthwise: a group a channel
            module.groups, inputs = shape[0], shape[0]
        else:
            inputs = shape[1] * module.groups
        module.out_channels, module.in_channels = shape[0], inputs
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = shape
    else:
        assert isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)
        module.num_features = shape[0]
        if module.running_mean is not None:
            module.running_mean, module.running_var = torch.zeros(shape, **like), torch.ones(shape, **like)
