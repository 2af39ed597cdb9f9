"""timm's train.py as far as an epoch goes, for a measurement beside our trainer.

The script itself is not part of timm's package. This follows it step by step (timm 1.0, train.py: `create_dataset`,
`create_loader`, `create_optimizer_v2`, then `train_one_epoch`) with what it does at its defaults on a CPU, so without
prefetcher: random resized crops, flips, colour jitter, label smoothing, a log line every 50 updates. What a
measurement sets besides is what ours has too: AdamW, channels last, the workers of a machine with two cores.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path

import torch

from engine.tasks.images.zoo import load_timm

LOG_INTERVAL = 50


class TimmEpochs:
    """Epochs of `model_name` on root/train; `advance` goes on with them step by step."""

    def __init__(
        self, root: Path, model_name: str, *, side: int, batch_size: int, workers: int, threads: int
    ) -> None:
        timm = load_timm()
        data, loss, optim, utils = (
            importlib.import_module(f"timm.{name}") for name in ("data", "loss", "optim", "utils")
        )
        torch.set_num_threads(threads)
        dataset = data.create_dataset("", root=str(root), split="train", is_training=True, batch_size=batch_size)
        self.loader = data.create_loader(
            dataset,
            input_size=(3, side, side),
            batch_size=batch_size,
            is_training=True,
            scale=(0.08, 1.0),
            ratio=(3 / 4, 4 / 3),
            hflip=0.5,
            color_jitter=0.4,
            interpolation="random",
            num_workers=workers,
            device=torch.device("cpu"),
            use_prefetcher=False,
        )
        classes = len(dataset.reader.class_to_idx)
        self.model = timm.create_model(model_name, num_classes=classes).to(memory_format=torch.channels_last)
        self.optimizer = optim.create_optimizer_v2(self.model, opt="adamw", lr=1e-3, weight_decay=0.05)
        self.loss = loss.LabelSmoothingCrossEntropy(smoothing=0.1)
        self.losses, self.speed = utils.AverageMeter(), utils.AverageMeter()
        self.model.train()
        self._batches = iter(self.loader)

    def advance(self, steps: int) -> list[float]:
        """Seconds of each of the next steps, their data included."""
        seconds = []
        began = time.perf_counter()
        for number in range(steps):
            batch = next(self._batches, None)
            if batch is None:
                self._batches = iter(self.loader)
                batch = next(self._batches)
            images, labels = batch
            images = images.contiguous(memory_format=torch.channels_last)
            loss = self.loss(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.losses.update(loss.item(), len(images))
            if number % LOG_INTERVAL == 0:
                self.speed.update(len(images) / (time.perf_counter() - began))
            seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
        return seconds
