"""The labelled images of a comparison, and the order in which they are drawn.

The order is a pure function of the seed and the images' names: each image is ranked by the SHA-256 of both,
so adding images to the set moves no other image's turn against its neighbours.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from engine.config import Settings
from engine.errors import Failed, UsageError
from engine.store.files import sha256_file
from engine.store.workspace import Workspace
from engine.tasks.images.listing import list_images

EMBEDDED = "embedded held-out digits"
_TEST = ("test", "testing", "heldout")
_TRAIN = ("train", "training")


@dataclass(frozen=True)
class Labelled:
    """One labelled image; `name` is its path in the set, `sha256` that of its bytes ("" until they were read)."""

    path: Path
    name: str
    label: str
    sha256: str = ""


@dataclass
class LabelledSet:
    """A set as it is listed: `key` says which set it is (for pooling), `shown` names it for people."""

    key: str
    shown: str
    images: list[Labelled]
    listed: bool = False  # a CSV names the labels, else the folders do
    notes: list[str] = field(default_factory=list)
    excluded: dict[str, int] = field(default_factory=dict)  # labels that not both releases know: images


def labelled_set(workspace: Workspace, settings: Settings, data: Path | None = None) -> LabelledSet:
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
        return LabelledSet("digits", EMBEDDED, _images(_digits(workspace))[0])
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
    return LabelledSet(str(root.resolve()), str(root), images, root.is_file(), notes)


def known_to_both(labelled: LabelledSet, asis: Iterable[str], tobe: Iterable[str]) -> LabelledSet:
    """Only the images whose label both releases know; the other labels are counted in `excluded`.

    An image in nested folders takes the deepest name that both know.

    Raises:
        UsageError: no image is left.
    """
    known = set(asis) & set(tobe)
    kept: list[Labelled] = []
    excluded: Counter[str] = Counter()
    for image in labelled.images:
        folders = [image.label, *(() if labelled.listed else PurePosixPath(image.name).parent.parts)]
        label = next((name for name in reversed(folders) if name in known), None)
        if label is None:
            excluded[image.label] += 1
        else:
            kept.append(Labelled(image.path, image.name, label))
    if not kept:
        theirs = ", ".join(sorted(excluded)[:6])
        ours = ", ".join(sorted(known)[:6]) or "none"
        raise UsageError(
            f"no image of {labelled.shown} has a label that both releases know",
            f"give class folders of theirs with --data DIR or ab.data (its labels: {theirs}; known to both: {ours})",
            kind="no_data",
        )
    return replace(labelled, images=kept, excluded=dict(sorted(excluded.items())))


def draw(images: list[Labelled], seed: int, *, stratified: bool = False) -> list[Labelled]:
    """All images in the seed's order; stratified, every beginning of it holds each label in proportion."""

    def rank(image: Labelled) -> bytes:
        return hashlib.sha256(f"{seed}:{image.name}".encode()).digest()

    ordered = sorted(images, key=rank)
    if not stratified:
        return ordered
    totals = Counter(image.label for image in ordered)
    turns: Counter[str] = Counter()
    placed = []
    for image in ordered:
        placed.append(((turns[image.label] + 0.5) / totals[image.label], rank(image), image))
        turns[image.label] += 1
    return [image for _, _, image in sorted(placed, key=lambda entry: entry[:2])]


def take(ordered: list[Labelled], count: int, seen: set[str] | None = None) -> list[Labelled]:
    """The first `count` images of different content, with their hashes; those not in `seen` come first.

    The same bytes under two labels are a contradiction, and all of them are left out.

    Raises:
        UsageError: an image cannot be read.
    """
    labels: dict[str, str] = {}
    contradictory: set[str] = set()
    fresh: dict[str, Labelled] = {}
    known: dict[str, Labelled] = {}
    for image in ordered:
        if len(fresh) - len(contradictory & fresh.keys()) >= count:
            break
        try:
            sha256 = sha256_file(image.path)
        except OSError as error:
            raise UsageError(
                f"cannot read {image.path} ({error.strerror})", "check the file or leave it out", kind="no_data"
            ) from None
        if labels.setdefault(sha256, image.label) != image.label:
            contradictory.add(sha256)
        elif sha256 not in fresh and sha256 not in known:
            (known if seen and sha256 in seen else fresh)[sha256] = Labelled(
                image.path, image.name, image.label, sha256
            )
    chosen = [image for image in (*fresh.values(), *known.values()) if image.sha256 not in contradictory]
    return chosen[:count]


def read_image(image: Labelled) -> bytes:
    """The bytes that were drawn.

    Raises:
        Failed: they changed or went since.
    """
    try:
        content = image.path.read_bytes()
    except OSError as error:
        raise Failed(
            f"cannot read {image.path} any more ({error.strerror})", "compare again", kind="moved"
        ) from None
    if hashlib.sha256(content).hexdigest() != image.sha256:
        raise Failed(f"{image.path} changed during the comparison", "compare again", kind="moved")
    return content


def fingerprint(images: Iterable[Labelled]) -> str:
    """One SHA-256 of these images' contents and labels, whatever their names and order."""
    lines = sorted(f"{image.sha256} {image.label}\n" for image in images)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


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
    entries = list_images(root).entries
    part = "val" if any(entry.part == "val" for entry in entries) else ""
    return [
        Labelled(entry.path, entry.name, entry.label) for entry in entries if not part or entry.part == part
    ], part
