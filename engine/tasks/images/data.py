"""A data set ready for training: classes, the two parts, preprocessing, the report and a fingerprint.

Torch-free at import. Digits, class folders and CSV lists all end in the same `DataSet`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.config.schema import Data
from engine.errors import Failed, UsageError
from engine.tasks.images.check import KINDS, check_images
from engine.tasks.images.digits import CLASSES, heldout_digits, training_digits
from engine.tasks.images.listing import list_images
from engine.tasks.images.preprocess import ImageError, Preprocess

__all__ = ["DataSet", "Part", "heldout_digits", "load_data"]


@dataclass
class Part:
    """The images of one part. Those that fit the cache are decoded already, the others on demand."""

    names: list[str]
    labels: np.ndarray  # int64 [n]
    paths: list[Path | None]
    cached: list[np.ndarray | None]
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.names)

    @property
    def in_memory(self) -> bool:
        return all(pixels is not None for pixels in self.cached)

    def pixels(self, index: int) -> np.ndarray:
        """Decoded, resized pixels, uint8 [S, S, 3].

        Raises:
            Failed: the file changed since it was checked.
        """
        cached = self.cached[index]
        if cached is not None:
            return cached
        path = self.paths[index]
        assert path is not None
        try:
            return self.preprocess.pixels(path.read_bytes())
        except (OSError, ImageError) as error:
            raise Failed(
                f"{path} was good before the first epoch and is no more ({error})",
                "leave the data alone while it is trained on",
                kind="data_changed",
            ) from None


@dataclass
class DataSet:
    classes: list[str]
    train: Part
    val: Part
    preprocess: Preprocess
    report: dict[str, Any]
    fingerprint: str  # SHA-256 of every image's content, label and part


def load_data(
    settings: Data,
    seed: int,
    *,
    threads: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> DataSet:
    """Read, check and split the data that the settings name.

    Args:
        seed: decides the split where the data has none of its own.
        threads: of the check, 0: one a core.

    Raises:
        UsageError: nothing there, nothing usable, or fewer than two classes.
    """
    preprocess = Preprocess(
        settings.img_size, settings.resize, _rgb("mean", settings.mean), _rgb("std", settings.std)
    )
    if settings.kind == "digits":
        return _digits(preprocess, settings.val_fraction, seed)
    checked = check_images(list_images(settings.root), preprocess, settings.cache_bytes, threads, on_progress)
    report = checked.report
    if not checked.entries:
        first = report["left_out"][0]
        raise UsageError(
            f"none of the {report['checked']} files in {settings.root} can be used",
            f"for example {first['path']}: {first['reason']}",
            kind="no_data",
        )
    classes = sorted({entry.label for entry in checked.entries})
    if len(classes) < 2:
        raise UsageError(
            f"there is only one class, '{classes[0]}', in {settings.root}",
            "a classifier needs images of two classes at least",
            kind="no_data",
        )
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[entry.label] for entry in checked.entries], np.int64)
    parts = np.array([entry.part for entry in checked.entries], "<U5")
    open_ = np.flatnonzero(parts == "")
    if len(open_):
        parts[open_] = np.where(split(labels[open_], settings.val_fraction, seed), "val", "train")
    for name in ("train", "val"):
        absent = [c for c, number in numbers.items() if not np.any((parts == name) & (labels == number))]
        if absent:
            report["warnings"].append(f"no {name} image of: {', '.join(absent)}")
    if not np.any(parts == "val"):
        raise UsageError(
            "there are too few images to validate with", "add images, or a val/ folder", kind="no_data"
        )

    def part(name: str) -> Part:
        chosen = np.flatnonzero(parts == name)
        return Part(
            [checked.entries[i].name for i in chosen],
            labels[chosen],
            [checked.entries[i].path for i in chosen],
            [checked.pixels[i] for i in chosen],
            preprocess,
        )

    print_ = _fingerprint(
        (str(parts[i]), entry.label, checked.hashes[i]) for i, entry in enumerate(checked.entries)
    )
    report |= {"train": int(np.sum(parts == "train")), "val": int(np.sum(parts == "val")), "classes": classes}
    report["fingerprint"] = print_
    return DataSet(classes, part("train"), part("val"), preprocess, report, print_)


def split(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """True for the samples that validate: `fraction` of each class, at least one, never a class's only one."""
    stream = np.random.Generator(np.random.Philox(key=[seed & ((1 << 64) - 1), 1 << 63]))
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = stream.permutation(np.flatnonzero(labels == label))
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        chosen[members[:count]] = True
    return chosen


def _digits(preprocess: Preprocess, fraction: float, seed: int) -> DataSet:
    images, labels, names = training_digits()
    pixels = [preprocess.fit(image.convert("RGB")) for image in images]
    validates = split(labels, fraction, seed)
    parts = np.where(validates, "val", "train")
    hashes = [hashlib.sha256(image.tobytes()).digest() for image in images]
    print_ = _fingerprint((str(parts[i]), CLASSES[labels[i]], hashes[i]) for i in range(len(images)))
    report: dict[str, Any] = {"checked": len(images), "ok": len(images)} | dict.fromkeys(KINDS, 0)
    report |= {"left_out": [], "ignored": [], "warnings": []}
    report |= {"train": int(np.sum(~validates)), "val": int(np.sum(validates)), "classes": list(CLASSES)}
    report["fingerprint"] = print_

    def part(chosen: np.ndarray) -> Part:
        return Part(
            [names[i] for i in chosen],
            labels[chosen],
            [None] * len(chosen),
            [pixels[i] for i in chosen],
            preprocess,
        )

    return DataSet(
        list(CLASSES),
        part(np.flatnonzero(~validates)),
        part(np.flatnonzero(validates)),
        preprocess,
        report,
        print_,
    )


def _fingerprint(rows: Any) -> str:
    digest = hashlib.sha256()
    for part, label, content in sorted(rows):
        digest.update(f"{part}\0{label}\0".encode() + content)
    return digest.hexdigest()


def _rgb(key: str, values: list[float]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise UsageError(
            f"data.{key} needs three numbers, has {len(values)}", f"for example data.{key}=0.5,0.5,0.5"
        )
    if key == "std" and min(values) <= 0:
        raise UsageError("data.std must be above 0", "for example data.std=0.5,0.5,0.5")
    return values[0], values[1], values[2]
