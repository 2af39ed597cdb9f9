"""Image classification as a task of the trainer: augmentation on the device, soft labels, macro-F1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config import Settings
from engine.tasks.images.augment import augment, mix, recipe_of
from engine.tasks.images.batches import train_batches, val_batches
from engine.tasks.images.data import DataSet, load_data
from engine.tasks.images.length import DIGITS_EPOCHS, default_epochs
from engine.tasks.images.metrics import Tally
from engine.tasks.images.models import build_model
from engine.tasks.images.zoo import check_side


def load_task(settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> ImageTask:
    """Read and check the data that the settings name.

    Raises:
        UsageError: it cannot be trained on.
    """
    cache = settings.workspace / "cache" / "images"
    data = load_data(settings.data, settings.training.seed, cache=cache, on_progress=on_progress)
    return ImageTask(settings, data)


def _balanced_weights(labels: np.ndarray, classes: int) -> Tensor:
    """Weights of the classes' losses, inverse to their counts, with mean 1 over the samples, float32 [K]."""
    counts = np.bincount(labels, minlength=classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.from_numpy(weights.astype(np.float32))


class ImageTask:
    """Classifies the images of a `DataSet`; see `engine.tasks.task.Task`."""

    name = "images"
    unit = "images"

    def __init__(self, settings: Settings, data: DataSet) -> None:
        self._settings, self.data = settings, data
        self._level = settings.data.augment
        self._recipe = recipe_of(self._level, settings.training)
        self.classes = data.classes
        self.report, self.fingerprint = data.report, data.fingerprint
        self.train_samples, self.val_samples = len(data.train), len(data.val)
        self._class_weights: Tensor | None = None
        if settings.training.class_weights == "balanced":
            self._class_weights = _balanced_weights(data.train.labels, len(data.classes))

    def default_epochs(self) -> int:
        return DIGITS_EPOCHS if self._settings.data.kind == "digits" else default_epochs(self.train_samples)

    def describe(self) -> str:
        return f"{len(self.classes)} classes, {self.data.preprocess.img_size} px"

    def build_model(self, *, pretrained: bool) -> nn.Module:
        wanted, side = self._settings.model, self.data.preprocess.img_size
        model = build_model(wanted.name, len(self.classes), pretrained=pretrained, settings=wanted.settings)
        for seen in (side, self._settings.data.train_size or side):
            check_side(model, wanted.name, seen)
        return model

    def train_batches(
        self, epoch: int, batch_size: int, *, start: int, workers: int, process: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Tensor, ...]]:
        """Pixels uint8 [B, S, S, 3], labels int64 [B], draws float32 [B, DRAWS]."""
        training = self._settings.training
        return train_batches(
            self.data.train,
            self._level,
            training.seed,
            epoch,
            batch_size,
            sampling=training.sampling,
            start=start,
            workers=workers,
            process=process,
        )

    def val_batches(self, batch_size: int, *, workers: int) -> Iterator[tuple[Tensor, ...]]:
        """Images float32 [B, 3, S, S] as the server would feed them, labels int64 [B]."""
        return val_batches(self.data.val, batch_size, workers=workers)

    def prepare(self, batch: tuple[Tensor, ...], *, training: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalised images float32 [B, 3, S, S] (in training of `data.train_size`, where that is set); own labels,
        and in training the mixed-in ones with shares."""
        if not training:
            images, labels = batch
            return images.contiguous(memory_format=torch.channels_last), (labels,)
        pixels, labels, draws = batch
        images = pixels.permute(0, 3, 1, 2).float().div_(255)
        images = augment(self._recipe, images, draws, self._settings.data.train_size)
        images, shares = mix(self._recipe, images, draws)
        preprocess = self.data.preprocess
        mean, std = (
            torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std)
        )
        images = (images - mean) / std
        return images.contiguous(memory_format=torch.channels_last), (labels, labels.roll(1), shares)

    def loss(self, outputs: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        """Cross-entropy of the own and the mixed-in label, by their shares (Zhang et al. 2018, arXiv:1710.09412)."""
        own_labels, other_labels, shares = targets
        smooth = self._settings.training.label_smoothing
        own = F.cross_entropy(outputs, own_labels, label_smoothing=smooth, reduction="none")
        other = F.cross_entropy(outputs, other_labels, label_smoothing=smooth, reduction="none")
        own_shares, other_shares = shares, 1 - shares
        if self._class_weights is not None:
            weights = self._class_weights.to(outputs.device)
            own_shares, other_shares = own_shares * weights[own_labels], other_shares * weights[other_labels]
        return (own_shares * own + other_shares * other).mean()

    def tally(self) -> Tally:
        return Tally(len(self.classes))

    def card(self) -> dict[str, Any]:
        model = self._settings.model
        return {
            "architecture": {"name": model.name, "settings": dict(model.settings)},
            "classes": list(self.classes),
            "preprocess": self.data.preprocess.to_dict(),
        }
