"""Taking weights out of a net: whole channels (structured), or single numbers (unstructured). Imports torch.

Structured: the channels with the smallest L2 norm over all layers that must lose them together (Li et al. 2017,
arXiv:1608.08710; the groups of layers by torch-pruning, Fang et al. 2023, arXiv:2301.12900). Unstructured: the
smallest numbers become 0 (Han et al. 2015, arXiv:1506.02626); that by itself saves neither time nor space.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.checkpoints.files import CARD, save_checkpoint_file
from engine.errors import Failed, UsageError
from engine.export.subject import Subject
from engine.tasks.images.models import SMALL_SIDE
from engine.tasks.pruned import KEY, widths
from engine.tasks.task import load_kind

ROUND_TO = 8  # so many channels fill a vector of the int8 kernels
_WHOLE = ("go", "motion")  # tasks whose nets are built from one width of all layers, not from one of each


def prune(subject: Subject, sparsity: float, path: Path, *, structured: bool = True) -> dict[str, Any]:
    """Write the pruned net as a checkpoint that trains, deploys and exports like any other.

    Args:
        sparsity: share of each layer's channels, or of all numbers, that goes; 0 to 1.

    Returns:
        `parameters` before and after, `zeros` (share), `macs` before and after for one input.

    Raises:
        UsageError: torch-pruning is missing, or the task's nets cannot lose channels (structured).
        Failed: the net cannot be pruned.
    """
    task = subject.card["task"]
    if structured and task in _WHOLE:
        raise UsageError(
            f"channels cannot be taken out of a net of the task {task}",
            "set export.pruning_method=unstructured, or export without pruning",
            kind="cannot_prune",
        )
    kind = load_kind(task, subject.trusted)
    net = copy.deepcopy(bare(subject))
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    card = card_of(subject)
    example = torch.from_numpy(subject.medium.golden()[:1])
    before = _figures(net, example)
    if structured:
        original = kind.net(card)
        _structured(net, _traceable(example), sparsity, len(subject.card["classes"]))
        settings = {**card["architecture"].get("settings", {})}
        settings[KEY] = {**settings.get(KEY, {}), **widths(net, original)}
        card = {**card, "architecture": {**card["architecture"], "settings": settings}}
        _same(lambda: kind.net(card), net, example)
    else:
        _unstructured(net, sparsity)
    save_net(net, subject, card, path)
    after = _figures(net, example)
    return {name: [before[name], after[name]] for name in ("parameters", "macs")} | {"zeros": after["zeros"]}


def card_of(subject: Subject) -> dict[str, Any]:
    """What a checkpoint of this net says of itself."""
    return {name: subject.card[name] for name in ("task", "architecture", "classes", "preprocess")}


def bare(subject: Subject) -> nn.Module:
    """The net without the softmax that a release adds."""
    module = subject.module
    return module.net if subject.medium.output == "probabilities" else module


def save_net(net: nn.Module, subject: Subject, card: dict[str, Any], path: Path) -> None:
    """Write a net made from a subject as a checkpoint: light, with a card."""
    origin = subject.card["checkpoint"]
    save_checkpoint_file(
        path,
        {
            "model_state_dict": {name: value.detach().contiguous() for name, value in net.state_dict().items()},
            "epoch": origin["epoch"],
            CARD: {"format": 1, **card, "cycle": origin["cycle"], "run": origin["run"]},
        },
    )


def _structured(net: nn.Module, example: torch.Tensor, sparsity: float, classes: int) -> None:
    try:
        import torch_pruning
    except ModuleNotFoundError:
        raise UsageError(
            "structured pruning needs torch-pruning, which is not installed",
            "install the edge extra: pip install 'understudy[edge]'",
            kind="missing_extra",
        ) from None
    heads = [
        module for module in net.modules() if isinstance(module, nn.Linear) and module.out_features == classes
    ]
    try:
        pruner = torch_pruning.pruner.BasePruner(
            net,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=sparsity,
            ignored_layers=heads,
            round_to=ROUND_TO,
        )
        pruner.step()
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise Failed(
            f"channels of this net cannot be taken out ({type(error).__name__}: {reason})",
            "export without pruning",
            kind="cannot_prune",
        ) from error


def _traceable(example: torch.Tensor) -> torch.Tensor:
    """Small images are enlarged for the tracing: litecnn's stem is then the module that torch-pruning looks for."""
    if example.ndim != 4 or min(example.shape[-2:]) >= SMALL_SIDE:
        return example
    return nn.functional.interpolate(example, (SMALL_SIDE, SMALL_SIDE))


def _unstructured(net: nn.Module, sparsity: float) -> None:
    from torch.nn.utils import prune as pruning

    places: list[Any] = [(m, "weight") for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    pruning.global_unstructured(places, pruning_method=pruning.L1Unstructured, amount=sparsity)
    for module, name in places:
        pruning.remove(module, name)


def _same(build: Callable[[], nn.Module], net: nn.Module, example: torch.Tensor) -> None:
    """Make sure that the widths alone rebuild the net."""
    reason = ""
    try:
        rebuilt = build()
        rebuilt.load_state_dict(net.state_dict())
    except Exception as error:  # noqa: BLE001 - a task of one's own that takes no widths fails in its own way
        reason = f" ({type(error).__name__}: {' '.join(str(error).split())[:160]})"
    else:
        with torch.inference_mode():
            difference = (rebuilt.eval()(example) - net.eval()(example)).abs().max()
        if float(difference) <= 1e-4:
            return
    raise Failed(
        f"the pruned net cannot be rebuilt from its widths{reason}", "export without pruning", kind="cannot_prune"
    )


def _figures(net: nn.Module, example: torch.Tensor) -> dict[str, Any]:
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        net.eval()(example)
    values = [parameter.detach().numpy() for parameter in net.parameters()]
    count = sum(value.size for value in values)
    zeros = sum(int(np.count_nonzero(value == 0)) for value in values)
    return {"parameters": count, "macs": counter.get_total_flops() // 2, "zeros": round(zeros / count, 4)}
