"""`submission.csv`: answers in the rows, columns and manner of somebody's sample. Torch-free."""

from __future__ import annotations

import csv
import io
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from engine.errors import UsageError
from engine.tasks.images.listing import EXTENSIONS

_IMAGE_COLUMNS = ("id", "image", "image_id", "file", "filename", "file_name", "path", "name", "img")
_TARGET_COLUMNS = ("target", "label", "class", "category", "prediction", "pred", "y")

Values = Literal["label", "index", "probabilities"]


@dataclass(frozen=True)
class Sheet:
    """A table that waits for its answers.

    Attributes:
        header, rows: as they were read.
        image: the column that names the image; `targets`: those that are filled, one, or one a class.
        values: what is written: the class's name, its index, or each class's probability.
        files: the image of each row.
        delimiter, newline, bom: how the sample was written.
    """

    header: list[str]
    rows: list[list[str]]
    image: int
    targets: list[int]
    values: Values
    files: list[Path]
    delimiter: str = ","
    newline: str = "\n"
    bom: bool = False


def images_below(folder: Path) -> list[Path]:
    """The images below `folder`, in the order of their names.

    Raises:
        UsageError: no folder, or none in it.
    """
    if not folder.is_dir():
        raise UsageError(f"no folder at {folder}", "give --data the folder of the images", kind="no_data")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not found:
        raise UsageError(f"no images in {folder}", "give --data the folder of the images", kind="no_data")
    return found


def plain_sheet(folder: Path) -> Sheet:
    """A row an image, `image,label`, where there is no sample."""
    files = images_below(folder)
    rows = [[path.relative_to(folder).as_posix(), ""] for path in files]
    return Sheet(["image", "label"], rows, 0, [1], "label", files)


def sample_sheet(sample: Path, folder: Path, classes: Sequence[str], wanted: str, *, extra: bool) -> Sheet:
    """The sample's own rows and columns, each row with its image in `folder`.

    An image is named by its path below the folder, its name, or its name without the ending.

    Args:
        wanted: `label`, `index`, `probabilities`; `auto` takes probabilities where every class is a column, an index
            where the sample's own values are whole numbers and no class is called so, else the label.
        extra: images that the sample does not name are no error.

    Raises:
        UsageError: not a table of images; rows without an image, or images without a row: the first are named.
    """
    try:
        raw = sample.read_bytes()
        text = raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"no sample at {sample}", "check --sample", kind="not_found") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the sample {sample} ({error})", "save it as a CSV in UTF-8") from None
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    table = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    if len(table) < 2 or len(table[0]) < 2:
        raise UsageError(
            f"the sample {sample} has no rows of an image and a label", "give it a header and a line an image"
        )
    header, rows = table[0], table[1:]
    image = next((i for i, name in enumerate(header) if name.strip().lower() in _IMAGE_COLUMNS), 0)
    if short := next((row for row in rows if len(row) != len(header)), None):
        raise UsageError(
            f"a row of {sample} has {len(short)} cells, its header {len(header)}: {','.join(short)}",
            "mend the sample",
        )
    targets, values = _targets(header, rows, image, classes, wanted, sample)
    files = _match(sample, [row[image] for row in rows], folder, extra=extra)
    newline = "\r\n" if "\r\n" in text else "\n"
    return Sheet(header, rows, image, targets, values, files, delimiter, newline, raw.startswith(BOM_UTF8))


def filled(
    sheet: Sheet, classes: Sequence[str], answers: Sequence[np.ndarray | None], fallback: str | None
) -> bytes:
    """The finished table.

    Args:
        answers: each row's probabilities; None where its image could not be used: then `fallback` is its label,
            and where there is none its cells are empty.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=sheet.delimiter, lineterminator=sheet.newline)
    writer.writerow(sheet.header)
    for given, answer in zip(sheet.rows, answers, strict=True):
        row = list(given)
        if answer is None and fallback is not None:
            answer = np.eye(len(classes), dtype=np.float32)[list(classes).index(fallback)]
        for column in sheet.targets:
            if answer is None:
                row[column] = ""
            elif sheet.values == "probabilities":
                row[column] = f"{answer[list(classes).index(sheet.header[column].strip())]:.6g}"
            else:
                best = int(answer.argmax())
                row[column] = classes[best] if sheet.values == "label" else str(best)
        writer.writerow(row)
    return (BOM_UTF8 if sheet.bom else b"") + stream.getvalue().encode()


def _targets(
    header: list[str], rows: list[list[str]], image: int, classes: Sequence[str], wanted: str, sample: Path
) -> tuple[list[int], Values]:
    named = {name.strip(): i for i, name in enumerate(header) if i != image}
    if wanted == "probabilities" or (wanted == "auto" and all(name in named for name in classes)):
        if lacking := [name for name in classes if name not in named]:
            raise UsageError(
                f"the sample {sample} has no column for the class '{lacking[0]}'", "use --values label"
            )
        return [named[name] for name in classes], "probabilities"
    others = [i for i in range(len(header)) if i != image]
    target = next((i for i in others if header[i].strip().lower() in _TARGET_COLUMNS), others[-1])
    if wanted in ("label", "index"):
        return [target], "label" if wanted == "label" else "index"
    numbers = all(row[target].strip().isdecimal() for row in rows)
    return [target], "index" if numbers and not any(name.isdecimal() for name in classes) else "label"


def _match(sample: Path, names: list[str], folder: Path, *, extra: bool) -> list[Path]:
    files = images_below(folder)
    ways: list[dict[str, Path]] = []
    for key in (lambda p: p.relative_to(folder).as_posix(), lambda p: p.name, lambda p: p.stem):
        counts = Counter(key(path) for path in files)
        ways.append({key(path): path for path in files if counts[key(path)] == 1})
    found = [next((way[name] for way in ways if name in way), None) for name in map(_as_path, names)]
    if missing := [name for name, path in zip(names, found, strict=True) if path is None]:
        raise UsageError(
            f"{len(missing)} of {len(names)} rows of {sample} have no image in {folder}: {_some(missing)}",
            "give --data the folder of exactly these images",
            kind="missing_images",
        )
    left = sorted(set(files) - {path for path in found if path})
    if left and not extra:
        raise UsageError(
            f"images in {folder} without a row in {sample} ({len(left)}): {_some([path.name for path in left])}",
            "remove them, or say that it is meant: --ignore-extra",
            kind="extra_images",
        )
    return [path for path in found if path]


def _as_path(name: str) -> str:
    return PurePosixPath(name.strip().replace("\\", "/")).as_posix()


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
