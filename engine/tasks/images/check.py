"""Every file is opened before the first epoch: what cannot be used is named, counted and left out.

Torch-free. The decoded pixels are kept as far as the cache goes, so looking costs no second decoding.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.tasks.images.listing import Entry, Listing
from engine.tasks.images.preprocess import ImageError, Preprocess

KINDS = ("corrupt", "empty", "mislabelled", "duplicates")


@dataclass
class Checked:
    """What is left, in the listing's order, with each file's SHA-256 and (where they fit) pixels."""

    entries: list[Entry]
    hashes: list[bytes]
    pixels: list[np.ndarray | None]
    report: dict[str, Any]


@dataclass
class _Seen:
    hash: bytes = b""
    pixels: np.ndarray | None = None
    fault: tuple[str, str] | None = None  # kind, reason


def check_images(
    listing: Listing,
    preprocess: Preprocess,
    cache_bytes: int,
    threads: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Open, hash and decode all listed files.

    Args:
        cache_bytes: how many bytes of decoded pixels to keep, at most.
        threads: 0 takes one a core; Pillow decodes outside Python's lock.
        on_progress: called with (done, all) from time to time; may raise to stop.

    Returns:
        The good images and the report: `checked` = `ok` + `corrupt` + `empty` + `mislabelled` +
        `duplicates`, with every file left out named in `left_out` ({path, kind, reason}).
    """
    entries = listing.entries
    image_bytes = 3 * preprocess.img_size**2
    keep = min(len(entries), cache_bytes // image_bytes)
    seen: list[_Seen] = []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        # bounded look-ahead: a million submitted futures would outweigh the images
        for start in range(0, len(entries), 256):
            block = range(start, min(start + 256, len(entries)))
            seen += pool.map(lambda i: _look(entries[i], preprocess, i < keep), block)
            if on_progress:
                on_progress(len(seen), len(entries))
    _find_mislabelled(entries, seen)
    _find_duplicates(entries, seen)
    good = [i for i, one in enumerate(seen) if one.fault is None]
    left_out = [
        {"path": entry.name, "kind": one.fault[0], "reason": one.fault[1]}
        for entry, one in zip(entries, seen, strict=True)
        if one.fault
    ]
    report: dict[str, Any] = {"checked": len(entries), "ok": len(good)}
    report |= {kind: sum(item["kind"] == kind for item in left_out) for kind in KINDS}
    report |= {"left_out": left_out, "ignored": listing.ignored, "warnings": list(listing.warnings)}
    return Checked(
        [entries[i] for i in good], [seen[i].hash for i in good], [seen[i].pixels for i in good], report
    )


def _look(entry: Entry, preprocess: Preprocess, keep: bool) -> _Seen:
    try:
        content = entry.path.read_bytes()
    except FileNotFoundError:
        return _Seen(fault=("corrupt", "no such file"))
    except OSError as error:
        return _Seen(fault=("corrupt", f"cannot be read ({error.strerror})"))
    seen = _Seen(hashlib.sha256(content).digest())
    if not content:
        seen.fault = ("empty", "the file has no bytes")
        return seen
    try:
        pixels = preprocess.pixels(content)
    except ImageError as error:
        seen.fault = ("corrupt", str(error))
        return seen
    if not entry.label:
        seen.fault = ("mislabelled", "it has no label")
        return seen
    seen.pixels = pixels if keep else None
    return seen


def _find_mislabelled(entries: list[Entry], seen: list[_Seen]) -> None:
    """The same picture under two labels: one is wrong and nobody here knows which, so all of them go."""
    labels: dict[bytes, set[str]] = {}
    for entry, one in _good(entries, seen):
        labels.setdefault(one.hash, set()).add(entry.label)
    for _, one in _good(entries, seen):
        if len(labels[one.hash]) > 1:
            names = " and ".join(sorted(labels[one.hash]))
            one.fault = ("mislabelled", f"the same image is labelled {names}")
    known = {entry.label for entry, _ in _good(entries, seen) if entry.part != "val"}
    for entry, one in _good(entries, seen):
        if entry.part == "val" and entry.label not in known:
            one.fault = ("mislabelled", f"its class '{entry.label}' has no training image")


def _find_duplicates(entries: list[Entry], seen: list[_Seen]) -> None:
    """The first of equal images stays; one in both parts stays in validation alone, which must be honest."""
    first: dict[bytes, str] = {}
    ordered = sorted(_good(entries, seen), key=lambda pair: pair[0].part != "val")
    for entry, one in ordered:
        if one.hash in first:
            one.fault = ("duplicates", f"the same image as {first[one.hash]}")
        else:
            first[one.hash] = entry.name


def _good(entries: list[Entry], seen: list[_Seen]) -> Iterable[tuple[Entry, _Seen]]:
    return [(entry, one) for entry, one in zip(entries, seen, strict=True) if one.fault is None]
