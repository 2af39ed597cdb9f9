"""Every file is opened before the first epoch: what is wrong with it is named and counted.

What was found is kept (`engine.tasks.images.cache`), so a file is opened again only when its size, times or inode
have changed. Torch-free.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import Busy
from engine.store.locks import hold
from engine.tasks.images.cache import UNSETTLED, Decoded, DecodedMemory, Kept, Shelf, Verdicts, stats_of
from engine.tasks.images.listing import Entry, Listing
from engine.tasks.images.preprocess import ImageError, Preprocess

_BLOCK = 256  # files looked at ahead: a million submitted futures would outweigh the images
_MISNAMED = "misnamed"  # a fault that hinders nobody
_RACY_NS = 2_000_000_000  # a file this young may change once more without its time showing it
_FORMATS = {
    "JPEG": ((b"\xff\xd8\xff",), (".jpg", ".jpeg", ".jpe", ".jfif")),
    "PNG": ((b"\x89PNG\r\n\x1a\n",), (".png",)),
    "GIF": ((b"GIF87a", b"GIF89a"), (".gif",)),
    "BMP": ((b"BM",), (".bmp",)),
    "TIFF": ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), (".tif", ".tiff")),
    "WebP": ((b"RIFF",), (".webp",)),
}

Progress = Callable[[int, int], None]


@dataclass
class Fault:
    kind: str  # one of `engine.tasks.report.KINDS`
    reason: str
    used: bool = False  # trained on all the same


@dataclass
class Checked:
    """What every file of a listing turned out to be."""

    verdicts: Verdicts
    decoded: Decoded
    faults: dict[int, Fault]  # by the entry's number
    notes: list[str]

    def good(self, count: int) -> np.ndarray:
        """Numbers of the entries that are trained on, int64."""
        return np.array([i for i in range(count) if i not in self.faults or self.faults[i].used], np.int64)


def check_images(
    listing: Listing,
    preprocess: Preprocess,
    cache_bytes: int,
    *,
    shelf: Shelf | None = None,
    on_disk: bool = True,
    threads: int = 0,
    on_progress: Progress | None = None,
) -> Checked:
    """Look at all listed files, where that has not been done before.

    Args:
        cache_bytes: how many bytes of decoded pixels to keep, at most.
        shelf: where findings are kept from one call to the next; None: nowhere.
        on_disk: keep the pixels there too, else in memory.
        threads: 0 takes one a core; Pillow decodes outside Python's lock.
        on_progress: called with (done, all) from time to time; may raise to stop.
    """
    rows = cache_bytes // (3 * preprocess.img_size**2)
    look = _Look(listing, preprocess, rows, threads or os.cpu_count() or 1, on_progress or _unheard)
    notes: list[str] = []
    verdicts, decoded = _kept(look, shelf, on_disk, notes) if shelf else look.in_memory(None)
    return Checked(verdicts, decoded, _faults(listing.entries, verdicts), notes)


def _kept(look: _Look, shelf: Shelf, on_disk: bool, notes: list[str]) -> tuple[Verdicts, Decoded]:
    path = shelf.path(look.listing.base, look.preprocess)
    side = look.preprocess.img_size
    try:
        kept = shelf.open(path, side)
        if not look.covered_by(kept, on_disk):
            with _alone(path.with_suffix(".lock"), look):
                kept = shelf.open(path, side)  # another process may have been quicker
                if not look.covered_by(kept, on_disk):
                    kept = look.written(shelf, path, kept, on_disk)
    except OSError as error:
        notes.append(f"what the check found is not kept for the next time ({error.strerror}: {shelf.folder})")
        return look.in_memory(None)
    assert kept
    return look.within_limit(kept) if on_disk else look.in_memory(kept)


def _alone(lock: Path, look: _Look) -> AbstractContextManager[object]:
    """The lock of one data set; while another process looks at it, wait for what it finds."""
    stack = ExitStack()
    while True:
        look.on_progress(0, len(look.names))  # raises where this process is to stop
        try:
            stack.enter_context(hold(lock, "data check", wait=True, timeout_s=0.2))
        except Busy:
            continue
        return stack


@dataclass
class _Seen:
    """What one look at a file showed. `pixels` is None where they are not wanted, or there are none."""

    digest: bytes = bytes(32)
    looks: bytes = bytes(16)
    fault: tuple[str, str] | None = None
    pixels: np.ndarray | None = None
    lasting: bool = True  # looking again would show the same


class _Look:
    """One check of one listing; `rows` is how many decoded images are kept at most."""

    def __init__(
        self, listing: Listing, preprocess: Preprocess, rows: int, threads: int, on_progress: Progress
    ) -> None:
        self.listing, self.preprocess = listing, preprocess
        self.names = [entry.name for entry in listing.entries]
        self.rows, self.threads, self.on_progress = min(rows, len(self.names)), threads, on_progress
        self.memory: DecodedMemory | None = None
        self.began_ns = time.time_ns()
        self.stats = _stats(listing.base, self.names)

    def covered_by(self, kept: Kept | None, on_disk: bool) -> bool:
        """Whether what is kept is about these files as they are, with the pixels that are to be kept."""
        return (
            kept is not None
            and kept.names == self.names
            and np.array_equal(kept.verdicts.stats, self.stats)
            and (not on_disk or kept.verdicts.limit >= self.rows)
        )

    def written(self, shelf: Shelf, path: Path, kept: Kept | None, on_disk: bool) -> Kept | None:
        """Look, and keep what is found at `path`; of what is kept there now, what still holds is taken over."""
        image_bytes = 3 * self.preprocess.img_size**2
        rows = shelf.room(self.rows * image_bytes) // image_bytes if on_disk else 0
        verdicts = Verdicts.blank(len(self.names), self.rows if on_disk else 0)
        with shelf.writer(path, self.names, verdicts, rows * image_bytes) as stream:
            if on_disk:
                self._fill(verdicts, kept, rows, lambda row, pixels: stream.write(pixels.data))
            else:
                self._fill(verdicts, kept, self.rows, self._memory().keep)
                verdicts.rows[:] = -1  # they are not in this file
        return shelf.open(path, self.preprocess.img_size)

    def within_limit(self, kept: Kept) -> tuple[Verdicts, Decoded]:
        """A file made under a larger limit holds more than is asked for now."""
        kept.verdicts.rows[kept.verdicts.rows >= self.rows] = -1
        return kept.verdicts, kept.decoded

    def in_memory(self, kept: Kept | None) -> tuple[Verdicts, Decoded]:
        """The verdicts, looked for unless they are kept, and a memory that holds the images, or fills as they come."""
        if kept:
            verdicts = kept.verdicts
            whole = np.array([_whole(verdicts.faults.get(i)) for i in range(len(self.names))], bool)
            rows = np.where(whole, np.cumsum(whole) - 1, -1)
            verdicts.rows = np.where(rows < self.rows, rows, -1)
        else:
            verdicts = Verdicts.blank(len(self.names), 0)
            self._fill(verdicts, None, self.rows, self._memory().keep)
        return verdicts, self._memory()

    def _memory(self) -> DecodedMemory:
        if self.memory is None:
            self.memory = DecodedMemory(self.rows, self.preprocess.img_size)
        return self.memory

    def _fill(
        self, verdicts: Verdicts, kept: Kept | None, rows: int, keep: Callable[[int, np.ndarray], object]
    ) -> None:
        """A verdict for each file, in order, and its pixels to `keep(row, pixels)` while there are rows."""
        before, row = self._before(kept), 0
        verdicts.stats[:] = self.stats
        verdicts.stats[self.stats[:, 1:3].max(1) > self.began_ns - _RACY_NS] = UNSETTLED
        with ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(self.names), _BLOCK):
                block = range(start, min(start + _BLOCK, len(self.names)))
                for i, seen in zip(
                    block, pool.map(lambda i: self._one(i, kept, before, rows), block), strict=True
                ):
                    verdicts.digests[i] = np.frombuffer(seen.digest, np.uint8)
                    verdicts.looks[i] = np.frombuffer(seen.looks, np.uint8)
                    if seen.fault:
                        verdicts.faults[i] = seen.fault
                    if not seen.lasting:
                        verdicts.stats[i] = UNSETTLED
                    if seen.pixels is not None and row < rows:
                        keep(row, seen.pixels)
                        verdicts.rows[i] = row
                        row += 1
                self.on_progress(block.stop, len(self.names))

    def _before(self, kept: Kept | None) -> np.ndarray:
        """For each file its number in what is kept, -1 where that is not about the file as it is; int64 [n]."""
        before = np.full(len(self.names), -1, np.int64)
        if kept:
            numbers = {name: number for number, name in enumerate(kept.names)}
            for i, name in enumerate(self.names):
                number = numbers.get(name, -1)
                if number >= 0 and np.array_equal(kept.verdicts.stats[number], self.stats[i]):
                    before[i] = number
        return before

    def _one(self, i: int, kept: Kept | None, before: np.ndarray, rows: int) -> _Seen:
        number = int(before[i])
        if kept and number >= 0:
            old = kept.verdicts
            fault, pixels = old.faults.get(number), None
            if old.rows[number] >= 0:
                pixels = np.empty((self.preprocess.img_size, self.preprocess.img_size, 3), np.uint8)
                kept.decoded.read(int(old.rows[number]), pixels)
            # without its pixels it is looked at again, unless the rows are long used up
            if pixels is not None or not _whole(fault) or i > rows + len(old.faults):
                return _Seen(old.digests[number].tobytes(), old.looks[number].tobytes(), fault, pixels)
        return look_at(self.listing.base / self.names[i], self.preprocess)


def look_at(path: Path, preprocess: Preprocess) -> _Seen:
    """Read, hash and decode one file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return _Seen(fault=("corrupt", "no such file"))
    except OSError as error:
        return _Seen(fault=("corrupt", f"cannot be read ({error.strerror})"), lasting=False)
    seen = _Seen(hashlib.sha256(content).digest())
    if not content:
        seen.fault = ("empty", "the file has no bytes")
        return seen
    try:
        pixels = preprocess.pixels(content)
    except ImageError as error:
        seen.fault = ("corrupt", str(error))
        return seen
    seen.looks, seen.pixels = hashlib.sha256(pixels.data).digest()[:16], pixels
    meant, found = _format_of_name(path.suffix.lower()), _format_of(content)
    if meant and found and meant != found:
        seen.fault = (_MISNAMED, f"its name says {meant}, its content is {found}")
    return seen


def _whole(fault: tuple[str, str] | None) -> bool:
    return fault is None or fault[0] == _MISNAMED


def _format_of_name(suffix: str) -> str | None:
    return next((name for name, (_, suffixes) in _FORMATS.items() if suffix in suffixes), None)


def _format_of(content: bytes) -> str | None:
    return next((name for name, (starts, _) in _FORMATS.items() if content.startswith(starts)), None)


def _stats(base: Path, names: list[str]) -> np.ndarray:
    """Size, mtime_ns, ctime_ns and inode of each file, zeros where there is none; int64 [n, 4]."""
    stats = np.zeros((len(names), 4), np.int64)
    prefix = f"{base}{os.sep}"
    for i, name in enumerate(names):
        try:
            stats[i] = stats_of(os.stat(prefix + name))  # noqa: PTH116 - Paths would take longer than the calls
        except (OSError, ValueError):
            continue
    return stats


def _unheard(done: int, count: int) -> None:
    """Nobody wants to know how far it is."""


def _faults(entries: list[Entry], verdicts: Verdicts) -> dict[int, Fault]:
    """What is wrong, by the entry's number: each file by itself, then what they are to one another."""
    faults = {}
    for i, (kind, reason) in verdicts.faults.items():
        misnamed = kind == _MISNAMED
        faults[i] = Fault("mislabelled" if misnamed else kind, reason, used=misnamed)
    for i, entry in enumerate(entries):
        if not entry.label and _used(faults, i):
            faults[i] = Fault("mislabelled", "it has no label")
    looks = [digest.tobytes() for digest in verdicts.looks]
    _find_mislabelled(entries, looks, faults)
    _find_duplicates(entries, looks, verdicts, faults)
    return dict(sorted(faults.items()))


def _used(faults: dict[int, Fault], i: int) -> bool:
    return i not in faults or faults[i].used


def _find_mislabelled(entries: list[Entry], looks: list[bytes], faults: dict[int, Fault]) -> None:
    """The same picture under two labels: one is wrong and nobody here knows which, so all of them go."""
    labels: dict[bytes, set[str]] = {}
    for i, entry in enumerate(entries):
        if _used(faults, i):
            labels.setdefault(looks[i], set()).add(entry.label)
    for i in range(len(entries)):
        if _used(faults, i) and len(labels[looks[i]]) > 1:
            names = " and ".join(sorted(labels[looks[i]]))
            faults[i] = Fault("mislabelled", f"the same image is labelled {names}")
    known = {entry.label for i, entry in enumerate(entries) if entry.part != "val" and _used(faults, i)}
    for i, entry in enumerate(entries):
        if entry.part == "val" and entry.label not in known and _used(faults, i):
            faults[i] = Fault("mislabelled", f"its class '{entry.label}' has no training image")


def _find_duplicates(
    entries: list[Entry], looks: list[bytes], verdicts: Verdicts, faults: dict[int, Fault]
) -> None:
    """The first of equal images stays; one in both parts stays in validation alone, which must be honest."""
    first: dict[bytes, int] = {}
    for i in sorted(range(len(entries)), key=lambda i: entries[i].part != "val"):
        if not _used(faults, i):
            continue
        original = first.setdefault(looks[i], i)
        if original == i:
            continue
        other = entries[original]
        same_bytes = np.array_equal(verdicts.digests[i], verdicts.digests[original])
        reason = f"the same {'image' if same_bytes else 'picture, in other bytes,'} as {other.name}"
        if other.part == "val" != entries[i].part:
            reason += ", which validates"
        faults[i] = Fault("duplicates", reason)
