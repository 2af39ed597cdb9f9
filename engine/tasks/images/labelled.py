"""The labelled images of a comparison: class folders, their test part, a CSV, or the embedded held-out digits."""

from __future__ import annotations

from pathlib import Path

from engine.config import Settings
from engine.errors import UsageError
from engine.store.workspace import Workspace
from engine.tasks.images.listing import list_images
from engine.tasks.labelled import Labelled, LabelledSet

EMBEDDED = "embedded held-out digits"
_TEST = ("test", "testing", "heldout")
_TRAIN = ("train", "training")


def labelled_images(settings: Settings, data: Path | None = None) -> LabelledSet:
    """The labelled images of `data`, else of `ab.data`, else (with data=digits) the embedded held-out digits.

    A folder of class folders, or one with `train/` beside `test/` or `val/` (of which the test part is taken,
    else the validation part), or a CSV of image and label.

    Raises:
        UsageError: no such set, nothing readable, or no images in it.
    """
    root = data or settings.ab.data
    if root is None:
        if settings.data.kind != "digits":
            raise UsageError(
                "no labelled images: ab.data is not set",
                "set ab.data (or give --data DIR) to class folders that no training has seen",
                kind="no_data",
            )
        return LabelledSet("digits", EMBEDDED, _images(_digits(Workspace(settings.workspace)))[0])
    root = root.expanduser().absolute()
    if not root.exists():
        raise UsageError(f"no labelled images at {root}", "check --data or ab.data", kind="no_data")
    if root.is_file() and root.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise UsageError(f"{root} is neither a folder nor a CSV", "give a folder of class folders", kind="no_data")
    held_out = _held_out(root)
    images, part = _images(held_out or root)
    notes = []
    if held_out:
        notes.append(f"images of {held_out.name}/ only")
    elif part == "val":
        notes.append("images of the validation part only: training chose its best epoch by them")
    if not images:
        raise UsageError(f"no labelled images in {root}", "put them into class folders", kind="no_data")
    return LabelledSet(str(root.resolve()), str(root), images, listed=root.is_file(), notes=notes)


def _digits(workspace: Workspace) -> Path:
    folder = workspace.data / "digits_test"
    if not folder.is_dir():
        from engine.tasks.images.digits import heldout_digits  # scikit-learn and numpy, once in a workspace's life

        heldout_digits(folder)
    return folder


def _held_out(root: Path) -> Path | None:
    if not root.is_dir() or not any((root / name).is_dir() for name in _TRAIN):
        return None
    return next((root / name for name in _TEST if (root / name).is_dir()), None)


def _images(root: Path) -> tuple[list[Labelled], str]:
    listing = list_images(root)
    part = "val" if any(entry.part == "val" for entry in listing.entries) else ""
    return [
        Labelled(listing.base / entry.name, entry.name, entry.label)
        for entry in listing.entries
        if not part or entry.part == part
    ], part
