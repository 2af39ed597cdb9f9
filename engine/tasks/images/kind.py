"""Image classification as a kind of work; see `engine.tasks.task.Kind`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from engine.config import Settings
    from engine.tasks.images.medium import ImageMedium
    from engine.tasks.images.task import ImageTask


def load(settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> ImageTask:
    from engine.tasks.images.task import load_task

    return load_task(settings, on_progress)


def medium(card: dict[str, Any]) -> ImageMedium:
    from engine.tasks.images.medium import ImageMedium
    from engine.tasks.images.preprocess import Preprocess

    return ImageMedium(Preprocess.from_dict(card["preprocess"]), list(card["classes"]))


def net(card: dict[str, Any]) -> nn.Module:
    from engine.tasks.images.models import build_model

    architecture = card["architecture"]
    return build_model(architecture["name"], len(card["classes"]), settings=architecture.get("settings") or None)
