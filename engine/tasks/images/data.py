"""A data set ready for training: classes, the two parts, preprocessing, the report and a fingerprint.

Torch-free at import. Digits, class folders and CSV lists all end in the same `DataSet`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.config.schema import Data
from engine.errors import Failed, UsageError
from engine.tasks.images.cache import Decoded, DecodedMemory, Shelf, Verdicts, stats_of
from engine.tasks.images.check import Checked, check_images
from engine.tasks.images.digits import CLASSES, heldout_digits, training_digits
from engine.tasks.images.listing import Entry, Listing, list_images
from engine.tasks.images.preprocess import ImageError, Preprocess
from engine.tasks.report import KINDS

__all__ = ["DataSet", "Part", "heldout_digits", "load_data"]


@dataclass
class Part:
    """The images of one part. Those that have a row are decoded already, or will be once; the others each time."""

    base: Path
    names: list[str]  # relative to the base
    labels: np.ndarray  # int64 [n]
    digests: np.ndarray  # uint8 [n, 32], SHA-256 of each file as it was checked
    stats: np.ndarray  # int64 [n, 4], of each file then (`Verdicts`)
    rows: np.ndarray  # int64 [n], -1: none
    decoded: Decoded
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_decoded(self) -> bool:
        """Whether no image has to be decoded, but for the first time."""
        return bool((self.rows >= 0).all())

    def pixels(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decoded, resized pixels, uint8 [len(indices), S, S, 3].

        Raises:
            Failed: a file has changed since it was checked.
        """
        pixels = np.empty((len(indices), *self.shape), np.uint8)
        self.fill(indices, pixels)
        return pixels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image's pixels."""
        return self.preprocess.img_size, self.preprocess.img_size, 3

    def fill(self, indices: Sequence[int] | np.ndarray, pixels: np.ndarray) -> None:
        """`pixels` into an array that is there; several threads may do so."""
        for place, index in enumerate(indices):
            row = int(self.rows[index])
            if row >= 0 and self.decoded.read(row, pixels[place]):
                continue
            pixels[place] = self._decode(int(index))
            if row >= 0:
                self.decoded.keep(row, pixels[place])

    def _decode(self, index: int) -> np.ndarray:
        path = f"{self.base}{os.sep}{self.names[index]}"
        try:
            with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - a Path would take longer than the reading
                same = stats_of(os.fstat(stream.fileno())) == tuple(self.stats[index].tolist())
                content = stream.readall()
            # a file that looks as it was when it was checked is believed, as the check itself believes it
            if not same and hashlib.sha256(content).digest() != self.digests[index].tobytes():
                raise ValueError("it has other content")
            return self.preprocess.pixels(content)
        except (OSError, ImageError, ValueError) as error:
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
    cache: Path | None = None,
    threads: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> DataSet:
    """Read, check and split the data that the settings name.

    Args:
        seed: decides the split where the data has none of its own.
        cache: the folder that keeps what the check finds and the decoded images; None: nothing is kept.
        threads: of the check, 0: one a core.

    Raises:
        UsageError: nothing there, nothing usable, or fewer than two classes.
    """
    preprocess = Preprocess(
        settings.img_size, settings.resize, _rgb("mean", settings.mean), _rgb("std", settings.std)
    )
    if settings.kind == "digits":
        return _digits(preprocess, settings.val_fraction, seed)
    listing = list_images(settings.root)
    checked = check_images(
        listing,
        preprocess,
        settings.cache_bytes,
        shelf=Shelf(cache, settings.cache_bytes) if cache else None,
        on_disk=settings.cache == "disk",
        threads=threads,
        on_progress=on_progress,
    )
    good = checked.good(len(listing.entries))
    if not len(good):
        first = next(iter(checked.faults))
        raise UsageError(
            f"none of the {len(listing.entries)} files in {settings.root} can be used",
            f"for example {listing.entries[first].name}: {checked.faults[first].reason}",
            kind="no_data",
        )
    entries = [listing.entries[i] for i in good]
    classes = sorted({entry.label for entry in entries})
    if len(classes) < 2:
        raise UsageError(
            f"there is only one class, '{classes[0]}', in {settings.root}",
            "a classifier needs images of two classes at least",
            kind="no_data",
        )
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[entry.label] for entry in entries], np.int64)
    parts = np.array([entry.part for entry in entries], "<U5")
    open_ = np.flatnonzero(parts == "")
    if len(open_):
        parts[open_] = np.where(split(labels[open_], settings.val_fraction, seed), "val", "train")
    if not np.any(parts == "val"):
        raise UsageError(
            "there are too few images to validate with", "add images, or a val/ folder", kind="no_data"
        )

    def part(name: str) -> Part:
        chosen = np.flatnonzero(parts == name)
        return Part(
            listing.base,
            [entries[i].name for i in chosen],
            labels[chosen],
            checked.verdicts.digests[good[chosen]],
            checked.verdicts.stats[good[chosen]],
            checked.verdicts.rows[good[chosen]],
            checked.decoded,
            preprocess,
        )

    digests = checked.verdicts.digests[good]
    print_ = _fingerprint((str(parts[i]), entry.label, digests[i].tobytes()) for i, entry in enumerate(entries))
    report = _report(listing, checked, classes, labels, parts == "val", print_)
    return DataSet(classes, part("train"), part("val"), preprocess, report, print_)


def _report(
    listing: Listing, checked: Checked, classes: list[str], labels: np.ndarray, validates: np.ndarray, print_: str
) -> dict[str, Any]:
    """The data report (`engine.tasks.report`), with the images of each class."""
    report: dict[str, Any] = {"checked": len(listing.entries), "ok": len(listing.entries) - len(checked.faults)}
    report |= {kind: [] for kind in KINDS}
    for i, fault in checked.faults.items():
        item: dict[str, Any] = {"path": listing.entries[i].name, "reason": fault.reason}
        report[fault.kind].append(item | {"used": True} if fault.used else item)
    train = np.bincount(labels[~validates], minlength=len(classes)).tolist()
    val = np.bincount(labels[validates], minlength=len(classes)).tolist()
    counts = {name: {"train": train[c], "val": val[c]} for c, name in enumerate(classes)}
    return report | {
        "train": sum(train),
        "val": sum(val),
        "classes": classes,
        "images": counts,
        "class_problems": _class_problems(listing, counts),
        "ignored": listing.ignored,
        "warnings": listing.warnings + checked.notes,
        "fingerprint": print_,
    }


def _class_problems(listing: Listing, counts: dict[str, dict[str, int]]) -> list[dict[str, str]]:
    """Classes with too few images, or in one part alone: {class, problem, reason}."""
    found = []
    for part, name in listing.bare:
        place = f"{part}/{name}" if part else name
        found.append((name, "no_images", f"class folder {place}/ holds no images"))
    lost = {entry.label for entry in listing.entries if entry.label} - counts.keys()
    found += [(name, "no_images", f"class '{name}' has no usable training image") for name in sorted(lost)]
    for name, count in counts.items():
        if count["train"] + count["val"] == 1:
            found.append((name, "one_image", f"class '{name}' has one image: nothing validates it"))
        elif not count["val"]:
            found.append((name, "only_in_train", f"class '{name}' has no validation image"))
        elif count["train"] == 1:
            found.append((name, "one_image", f"class '{name}' has one training image"))
    return [{"class": name, "problem": problem, "reason": reason} for name, problem, reason in found]


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
    hashes = [hashlib.sha256(image.tobytes()).digest() for image in images]
    validates = split(labels, fraction, seed)
    decoded = DecodedMemory(len(images), preprocess.img_size)
    for row, image in enumerate(images):
        decoded.keep(row, preprocess.fit(image.convert("RGB")))
    parts = np.where(validates, "val", "train")
    print_ = _fingerprint((str(parts[i]), CLASSES[labels[i]], hashes[i]) for i in range(len(images)))
    listing = Listing(Path(), [Entry(name, CLASSES[label]) for name, label in zip(names, labels, strict=True)])
    verdicts = Verdicts.blank(len(images), len(images))
    report = _report(listing, Checked(verdicts, decoded, {}, []), list(CLASSES), labels, validates, print_)

    def part(chosen: np.ndarray) -> Part:
        chosen_names = [names[i] for i in chosen]
        found = verdicts.digests[chosen], verdicts.stats[chosen]
        return Part(Path(), chosen_names, labels[chosen], *found, chosen, decoded, preprocess)

    train, val = part(np.flatnonzero(~validates)), part(np.flatnonzero(validates))
    return DataSet(list(CLASSES), train, val, preprocess, report, print_)


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
