"""Which checkpoint of a source is wanted: the documents' places, names, priority and cycles.

`checkpoints_combined/LiteCNNPro_best.pth` goes first; else the newest by time among
`checkpoints_cycle<N>/{best_model_cycle<N>.pth, best_model.pth, LiteCNNPro_best.pth}`. Pure functions over a
listing; nothing here touches a disk or imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

COMBINED_FOLDER = "checkpoints_combined"
COMBINED_NAME = "LiteCNNPro_best.pth"
COMBINED = f"{COMBINED_FOLDER}/{COMBINED_NAME}"
CYCLE_FOLDER_PREFIX = "checkpoints_cycle"
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".h5")
FUTURE_S = 300.0  # a modification time further ahead than this says that the source's clock is wrong

_CYCLE_FOLDER = re.compile(r"checkpoints_cycle(\d+)")
_CYCLE_NAME = re.compile(r"best_model_cycle(\d+)\.pth")
_INTERMEDIATE = re.compile(r"(checkpoint_)?epoch_?\d+.*", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """One file that a source showed.

    Attributes:
        path: relative to the source's root, with forward slashes; a folder that cannot be listed ends in one.
        bytes: its size.
        modified: its modification time, seconds since the epoch.
        problem: why it cannot be read or is no regular file, or None.
    """

    path: str
    bytes: int
    modified: float
    problem: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A file at a place and with a name that is looked for; `cycle` is None for the combined one.

    `problem` says why it cannot be taken all the same: it is no regular file, or cannot be read.
    """

    path: str
    cycle: int | None
    bytes: int
    modified: float
    problem: str | None = None


@dataclass
class Choice:
    """Candidates, best first; what was seen and is none, with reasons; what a person should be told."""

    candidates: list[Candidate] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def cycle_folder(cycle: int) -> str:
    """The folder that cycle N's checkpoints go to: `checkpoints_cycleN`."""
    return f"{CYCLE_FOLDER_PREFIX}{cycle}"


def best_name(cycle: int) -> str:
    """The name that training gives cycle N's best checkpoint: `best_model_cycleN.pth`."""
    return f"best_model_cycle{cycle}.pth"


def folder_cycle(folder: str) -> int | None:
    """N of a folder named `checkpoints_cycle<N>`, else None."""
    found = _CYCLE_FOLDER.fullmatch(folder)
    return int(found[1]) if found else None


def next_cycle(folders: Iterable[str]) -> int:
    """The next free cycle number beside these folder names; 1 where there is none yet."""
    return max((cycle for name in folders if (cycle := folder_cycle(name)) is not None), default=0) + 1


def is_checkpoint_folder(folder: str) -> bool:
    """Whether a top-level folder is one whose whole content is listed: `checkpoints_*`."""
    return folder.startswith("checkpoints_")


def printable(path: str) -> str:
    """The path with everything escaped that is no printable text (control characters, broken encodings)."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in path)


def choose(entries: Iterable[Entry], now: float) -> Choice:
    """Put a listing in order.

    Args:
        entries: every file that the source showed.
        now: the present, seconds since the epoch, by the clock of the host that looks.

    Returns:
        The candidates with the best first; every other file with the reason why it is passed over.
        Candidates after the first are in `skipped` too: they are passed over unless the first is refused.
    """
    choice = Choice()
    combined: list[Candidate] = []
    cycles: list[Candidate] = []
    for entry in sorted(entries, key=lambda item: _natural(item.path)):
        reason = _reason(entry)
        if reason is not None:
            choice.skipped.append({"path": printable(entry.path), "reason": reason})
            continue
        cycle = folder_cycle(PurePosixPath(entry.path).parts[0])
        found = Candidate(entry.path, cycle, entry.bytes, entry.modified, entry.problem)
        (combined if entry.path == COMBINED else cycles).append(found)
    ordered = _by_time(cycles, now, choice.warnings)
    if combined and ordered:
        newer = [item for item in ordered if item.modified > combined[0].modified]
        if newer:
            choice.warnings.append(
                f"{newer[0].path} is newer than {COMBINED}, which goes first as long as it is there"
            )
    choice.candidates = combined + ordered
    choice.skipped += [
        {"path": item.path, "reason": item.problem or _behind(item, choice.candidates[0], now)}
        for item in choice.candidates[1:]
    ]
    return choice


def _reason(entry: Entry) -> str | None:
    """Why the file is not a candidate, or None when it is one."""
    if entry.path.endswith("/"):
        return entry.problem or "a folder"
    *folders, name = PurePosixPath(entry.path).parts
    if not folders:
        return f"not in {COMBINED_FOLDER} or a {CYCLE_FOLDER_PREFIX}<N> folder"
    cycle = folder_cycle(folders[0])
    known = cycle is not None or folders[0] == COMBINED_FOLDER
    if len(folders) > 1 or not known:
        return f"in {'/'.join(folders)}/, not in {COMBINED_FOLDER} or a {CYCLE_FOLDER_PREFIX}<N> folder"
    if name.startswith(".") or name.endswith((".part", ".tmp")):
        return "unfinished: its name is that of a file being written"
    if not name.lower().endswith(CHECKPOINT_SUFFIXES):
        return "not a checkpoint file"
    if cycle is None:
        return None if name == COMBINED_NAME else f"only {COMBINED_NAME} is taken from {COMBINED_FOLDER}"
    named = _CYCLE_NAME.fullmatch(name)
    if named and int(named[1]) != cycle:
        return f"named for cycle {int(named[1])}, but lies in cycle {cycle}'s folder"
    if named or name in ("best_model.pth", COMBINED_NAME):
        return None
    if _INTERMEDIATE.fullmatch(name):
        return "an intermediate checkpoint, not a best one"
    return f"not a name that is looked for ({best_name(cycle)}, best_model.pth, {COMBINED_NAME})"


def _by_time(cycles: list[Candidate], now: float, warnings: list[str]) -> list[Candidate]:
    """Newest first; a tie, or a time ahead of our clock, is decided by the cycle.

    A time ahead of the clock says nothing, so such a file stands before the newest believable one only
    if its cycle is higher.
    """
    ordered = sorted(
        (item for item in cycles if item.modified <= now + FUTURE_S),
        key=lambda item: (item.modified, item.cycle or 0, _preference(item)),
        reverse=True,
    )
    ahead = sorted(
        (item for item in cycles if item.modified > now + FUTURE_S),
        key=lambda item: (item.cycle or 0, _preference(item)),
    )
    if len(ordered) > 1 and ordered[0].modified == ordered[1].modified and ordered[0].cycle != ordered[1].cycle:
        warnings.append(f"{ordered[0].path} and {ordered[1].path} have the same time; the higher cycle goes first")
    for item in ahead:
        place = next(
            (index for index, other in enumerate(ordered) if (item.cycle or 0) > (other.cycle or 0)), len(ordered)
        )
        ordered.insert(place, item)
        warnings.append(
            f"{item.path} has a time {_ahead(item, now)} in the future; check the source's clock "
            "(the cycle decides, not the time)"
        )
    return ordered


def _preference(item: Candidate) -> int:
    name = PurePosixPath(item.path).name
    return {"best_model.pth": 1, COMBINED_NAME: 0}.get(name, 2)


def _behind(item: Candidate, best: Candidate, now: float) -> str:
    if best.path == COMBINED:
        newer = "newer than it, but " if item.modified > best.modified else ""
        return f"{newer}behind {COMBINED}, which goes first as long as it is there"
    if item.modified > now + FUTURE_S:
        return f"its time is {_ahead(item, now)} in the future and its cycle is not higher than {best.path}'s"
    if best.modified > now + FUTURE_S:
        return f"of a lower cycle than {best.path}, whose time cannot be believed"
    if item.modified == best.modified and item.cycle == best.cycle:
        return f"as old as {best.path}, whose name goes first"
    if item.modified == best.modified:
        return f"as old as {best.path}, which is of a higher cycle"
    return f"older than {best.path}"


def _ahead(item: Candidate, now: float) -> str:
    minutes = (item.modified - now) / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path) if part]
