"""Motion as a kind of work; see `engine.tasks.task.Kind`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from engine.config import Settings
    from engine.tasks.motion.medium import MotionMedium
    from engine.tasks.motion.task import MotionTask


def load(settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> MotionTask:
    from engine.tasks.motion.task import MotionTask

    return MotionTask(settings, on_progress)


def medium(card: dict[str, Any]) -> MotionMedium:
    from engine.tasks.motion.medium import MotionMedium

    return MotionMedium(card)


def net(card: dict[str, Any]) -> nn.Module:
    from engine.tasks.motion.net import Mdm
    from engine.tasks.motion.shape import Shape

    return Mdm(Shape.from_card(card))
