"""Go as a kind of work; see `engine.tasks.task.Kind`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from engine.config import Settings
    from engine.tasks.go.medium import GoMedium
    from engine.tasks.go.task import GoTask


def load(settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> GoTask:
    from engine.tasks.go.task import load_task

    return load_task(settings, on_progress)


def medium(card: dict[str, Any]) -> GoMedium:
    from engine.tasks.go.medium import GoMedium

    return GoMedium(int(card["preprocess"]["board_size"]), list(card["classes"]))


def net(card: dict[str, Any]) -> nn.Module:
    from engine.tasks.go.net import build_net

    return build_net(str(card["architecture"]["name"]), int(card["preprocess"]["board_size"]))
