"""Real checkpoints of a tiny net, right and wrong, for tests of admission."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from engine.tasks.images.models import build_model

CLASSES = ["cat", "dog", "owl"]
SETTINGS: dict[str, Any] = {"widths": [8, 16], "depths": [1, 1]}
SIDE = 16


class Touch:
    """Unpickled, it would make a file: the attack that must not work."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.path}",)


def weights(seed: int = 0, classes: int = len(CLASSES), **settings: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    net = build_model("litecnn", classes, settings=settings or SETTINGS)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
    return net.state_dict()


def card(classes: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "task": "images",
        "architecture": {"name": "litecnn", "settings": SETTINGS},
        "classes": classes or CLASSES,
        "preprocess": {"img_size": SIDE, "resize": "crop", "mean": [0.5] * 3, "std": [0.5] * 3},
        "cycle": 2,
        **fields,
    }


def content(seed: int = 0, classes: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    """A checkpoint's dict as training writes it; `fields` replace or add top-level entries."""
    return {
        "model_state_dict": weights(seed, len(classes or CLASSES)),
        "epoch": 3,
        "accuracy": 0.9,
        "loss": 0.25,
        "understudy": card(classes),
        **fields,
    }


def save(path: Path, value: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path, **options)
    return path


def flip_byte_of_a_tensor(path: Path) -> None:
    """Change one byte in the middle of the largest tensor's data, as a bad disk would."""
    with zipfile.ZipFile(path) as archive:
        member = max((m for m in archive.infolist() if "/data/" in m.filename), key=lambda m: m.file_size)
    raw = bytearray(path.read_bytes())
    name = member.filename.encode()
    start = raw.index(name, member.header_offset) + len(name)
    raw[start + 64 + member.file_size // 2] ^= 0x40
    path.write_bytes(raw)
