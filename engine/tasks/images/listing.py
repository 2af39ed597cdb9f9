"""What images there are: class folders, `train/` and `val/` of class folders, or a CSV of image and label.

Only names are read here; `engine.tasks.images.check` opens the files. Torch-free.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import UsageError

EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".webp",
        ".avif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tga",
    ]
)
_IMAGE_COLUMNS = ("image", "path", "file", "filename", "file_name", "filepath", "image_path", "img", "id")
_LABEL_COLUMNS = ("label", "class", "target", "category", "class_name", "y")
_PART_COLUMNS = ("split", "part", "subset", "fold", "set")
_PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(slots=True)
class Entry:
    """One image as it is listed. `part` is `train`, `val`, or "" where the seed has to decide."""

    name: str  # relative to the listing's base, for people and the report
    label: str
    part: str = ""


@dataclass
class Listing:
    base: Path  # what the names are relative to
    entries: list[Entry] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # files that are not images by their name
    bare: list[tuple[str, str]] = field(default_factory=list)  # part and name of class folders without an image
    warnings: list[str] = field(default_factory=list)


def list_images(root: Path | None) -> Listing:
    """The images below `root`, in a stable order.

    Raises:
        UsageError: no root, it is not there, or it holds no images in a known layout.
    """
    if root is None:
        raise UsageError(
            "data.root is not set", "give data.root=DIR with class folders in it, or data=digits", kind="no_data"
        )
    if root.is_file():
        return _list_csv(root)
    if not root.is_dir():
        raise UsageError(f"no data at {root}", "check data.root", kind="no_data")
    try:
        listing = _list_folder(root)
    except PermissionError as error:
        raise UsageError(f"cannot read {error.filename}", "check its rights", kind="no_data") from None
    if not listing.entries:
        raise UsageError(
            f"no images in {root}",
            "put them into class folders (cat/1.jpg, dog/2.jpg), or those into train/ and val/",
            kind="no_data",
        )
    return listing


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))


def _list_folder(root: Path) -> Listing:
    folders = {path.name: path for path in _visible(root) if path.is_dir()}
    train = next((folders[name] for name in ("train", "training") if name in folders), None)
    val = next((folders[name] for name in ("val", "valid", "validation") if name in folders), None)
    if train is None:
        listing = _list_classes(root, root, "")
        if not listing.entries:
            tables = [path for path in _visible(root) if path.suffix.lower() == ".csv"]
            if len(tables) == 1:
                return _list_csv(tables[0])
        return listing
    listing = _list_classes(root, train, "train" if val else "")
    if val:
        more = _list_classes(root, val, "val")
        if not more.entries:
            listing.warnings.append(f"{val.name}/ holds no images; a part of {train.name}/ validates instead")
            for entry in listing.entries:
                entry.part = ""
        listing.entries += more.entries
        listing.ignored += more.ignored
        listing.bare += more.bare
    return listing


def _list_classes(root: Path, folder: Path, part: str) -> Listing:
    listing = Listing(root)
    for place in _visible(folder):
        if not place.is_dir():
            listing.ignored.append(str(place.relative_to(root)))
            continue
        before = len(listing.entries)
        for name in _files(str(place), f"{place.relative_to(root)}/"):
            if os.path.splitext(name)[1].lower() in EXTENSIONS:  # noqa: PTH122 - a Path each would take longer than all else
                listing.entries.append(Entry(name, place.name, part))
            else:
                listing.ignored.append(name)
        if len(listing.entries) == before:
            listing.bare.append((part, place.name))
    return listing


def _files(folder: str, prefix: str) -> Iterator[str]:
    """The files below `folder`, in the order of their paths; hidden ones and links to folders are passed over."""
    with os.scandir(folder) as scan:
        found = sorted(scan, key=lambda one: one.name)
    for one in found:
        if one.name.startswith("."):
            continue
        if not one.is_dir():
            yield prefix + one.name
        elif not one.is_symlink():
            yield from _files(one.path, f"{prefix}{one.name}/")


def _list_csv(table: Path) -> Listing:
    if table.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise UsageError(
            f"data.root is {table.name}, which is no folder and no CSV",
            "give data.root=DIR with class folders in it, or a .csv of image and label",
            kind="no_data",
        )
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            sample = stream.read(4096)
            stream.seek(0)
            delimiter = max(",;\t", key=sample.partition("\n")[0].count)
            rows = [[cell.strip() for cell in row] for row in csv.reader(stream, delimiter=delimiter) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"cannot read {table} as CSV ({error})",
            "data.root is a folder of class folders, or a UTF-8 CSV with the columns image and label",
            kind="no_data",
        ) from None
    if not rows:
        raise UsageError(f"{table} is empty", "write a line a picture: path,label", kind="no_data")
    base = table.resolve().parent
    head = [cell.lower() for cell in rows[0]]
    image = next((head.index(name) for name in _IMAGE_COLUMNS if name in head), None)
    label = next((head.index(name) for name in _LABEL_COLUMNS if name in head), None)
    part = next((head.index(name) for name in _PART_COLUMNS if name in head), None)
    if image is not None and label is not None:
        rows = rows[1:]
    elif image is None and label is None:
        image, label, part = 0, 1, None
        # a first line that names no file, with others that do, is a header in words we do not know
        others = rows[1:20]
        if not (base / rows[0][0]).exists() and any((base / row[0]).exists() for row in others):
            rows = rows[1:]
    else:
        missing = "image" if image is None else "label"
        raise UsageError(f"{table} has no column '{missing}'", "name its columns image and label", kind="no_data")
    if not rows:
        raise UsageError(f"{table} lists no images", "write a line a picture: path,label", kind="no_data")

    def cell(row: list[str], column: int | None) -> str:
        return row[column] if column is not None and column < len(row) else ""

    entries = [Entry(cell(row, image), cell(row, label), _PARTS.get(cell(row, part).lower(), "")) for row in rows]
    entries = [entry for entry in entries if entry.part != "test"]
    if any(entry.part == "val" for entry in entries):
        for entry in entries:
            entry.part = entry.part or "train"
    else:
        for entry in entries:
            entry.part = ""
    return Listing(base, entries)
