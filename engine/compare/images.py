"""Which labelled requests of a set a comparison takes, and in which order. An image here is any task's request.

The order is a pure function of the seed and the images' names: each image is ranked by the SHA-256 of both,
so adding images to the set moves no other image's turn against its neighbours.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from engine.errors import Failed, UsageError
from engine.store.files import sha256_file
from engine.tasks.labelled import Labelled, LabelledSet


def known_to_both(labelled: LabelledSet, asis: Iterable[str], tobe: Iterable[str]) -> LabelledSet:
    """Only the images whose label both releases know; the other labels are counted in `excluded`.

    An image in nested folders takes the deepest name that both know. A set whose labels are no classes stays whole.

    Raises:
        UsageError: no image is left.
    """
    if not labelled.classes:
        return labelled
    known = set(asis) & set(tobe)
    kept: list[Labelled] = []
    excluded: Counter[str] = Counter()
    for image in labelled.images:
        folders = [image.label, *(() if labelled.listed else PurePosixPath(image.name).parent.parts)]
        label = next((name for name in reversed(folders) if name in known), None)
        if label is None:
            excluded[image.label] += 1
        else:
            kept.append(replace(image, label=label))
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
            sha256 = _digest(image)
        except OSError as error:
            raise UsageError(
                f"cannot read {image.path} ({error.strerror})", "check the file or leave it out", kind="no_data"
            ) from None
        if labels.setdefault(sha256, image.label) != image.label:
            contradictory.add(sha256)
        elif sha256 not in fresh and sha256 not in known:
            (known if seen and sha256 in seen else fresh)[sha256] = replace(image, sha256=sha256)
    chosen = [image for image in (*fresh.values(), *known.values()) if image.sha256 not in contradictory]
    return chosen[:count]


def read_image(image: Labelled) -> bytes:
    """The bytes that were drawn.

    Raises:
        Failed: they changed or went since.
    """
    try:
        content = image.read()
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


def _digest(image: Labelled) -> str:
    if image.content is not None or image.path is None:
        return hashlib.sha256(image.content or b"").hexdigest()
    return sha256_file(image.path)
