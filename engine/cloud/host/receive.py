"""Takes in files that come over a channel: code as a snapshot under its content's name, data as a folder kept alike.

Home says what there is, the host what it lacks, and only that is sent, each file's bytes one after the other; what has
arrived of a file that broke off is kept, and the next sending goes on behind it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, BinaryIO

from .job import JobFolder, held, read, write

_CHUNK = 1 << 20
_OTHER_S = 300.0  # for another upload to the same place
_STALE_S = 7 * 86400.0
_KEPT = 3  # snapshots that no job needs, kept for what the next one has in common with them


class Refused(Exception):
    """What was asked for cannot be done; the text says why, `kind` is the word for programs."""

    def __init__(self, message: str, kind: str = "failed") -> None:
        super().__init__(message)
        self.kind = kind


def receive(root: Path, wanted: dict[str, Any], coming: BinaryIO, going: BinaryIO) -> dict[str, Any]:
    """Take in what home has.

    Args:
        wanted: `place` (below `root`), `files` (list of `[path, size, tag, mode]`), and `kind`: for `code` the tag is
            the content's SHA-256, for `data` the modification time in nanoseconds.

    Returns:
        `{"sent": files that came, "bytes": theirs}`.
    """
    place = _below(root, str(wanted["place"]))
    for path, _, _, _ in wanted["files"]:
        _below(place, path)
    take = _receive_code if wanted["kind"] == "code" else _receive_data
    with held(root / "incoming" / f"{place.name}.lock", _OTHER_S) as mine:
        if not mine:
            raise Refused(f"somebody else is uploading {wanted['place']}", "busy")
        answer = take(root, place, wanted["files"], coming, going)
    for part in (root / "incoming").glob("*.part"):
        if time.time() - part.stat().st_mtime > _STALE_S:  # of files that changed at home before they were whole
            part.unlink(missing_ok=True)
    return answer


def _receive_code(root: Path, place: Path, files: list[Any], coming: BinaryIO, going: BinaryIO) -> dict[str, Any]:
    if place.exists():
        _ask(going, [])
        return {"sent": 0, "bytes": 0}
    at_hand = _known_contents(place.parent)
    making = root / "incoming" / place.name
    lacking = []
    for number, (path, _, sha256, mode) in enumerate(files):
        target = making / path
        target.parent.mkdir(parents=True, exist_ok=True)
        sources = [target, *at_hand.get(sha256, ())]
        found = next((source for source in sources if source.is_file() and _sha256(source) == sha256), None)
        if found is None:
            target.unlink(missing_ok=True)
            lacking.append(number)
        elif found != target:
            shutil.copyfile(found, target)
            target.chmod(mode)
    total = _take(lacking, files, making, coming, going)
    for number in lacking:
        path, _, sha256, mode = files[number]
        if _sha256(making / path) != sha256:
            (making / path).unlink()
            raise Refused(f"{path} did not arrive as it was sent")
        (making / path).chmod(mode)
    place.parent.mkdir(parents=True, exist_ok=True)
    making.rename(place)
    write(place.with_suffix(".json"), json.dumps({sha256: path for path, _, sha256, _ in files}))
    _forget_old(root, place)
    return {"sent": len(lacking), "bytes": total}


def _receive_data(root: Path, place: Path, files: list[Any], coming: BinaryIO, going: BinaryIO) -> dict[str, Any]:
    alone = [path for path, _, _, _ in files] == ["."]  # one file, not a folder
    lacking = [number for number, (path, size, tag, _) in enumerate(files) if _facts(place / path) != (size, tag)]
    extra = set() if alone or not place.is_dir() else _names(place) - {path for path, _, _, _ in files}
    if lacking or extra:
        for job in jobs(root):
            if job.kept() and str(place.relative_to(root)) in (read(job.order) or {}).get("data", ()):
                raise Refused(f"job '{job.name}' trains on {place}, and it has changed at home", "busy")
    # one number of bytes to begin with for each file: a part is named by what it is to become
    total = _take(lacking, files, place, coming, going, parts=root / "incoming")
    for path in extra:
        (place / path).unlink()
    return {"sent": len(lacking), "bytes": total, "removed": len(extra)}


def _take(
    lacking: list[int],
    files: list[Any],
    place: Path,
    coming: BinaryIO,
    going: BinaryIO,
    parts: Path | None = None,
) -> int:
    """Ask for the files that are lacking and write them down; how many bytes came.

    Args:
        parts: where a file lies until it is whole; then it gets its name, and its tag as its time.
    """
    begun = [0] * len(lacking)
    scratch = [place / files[number][0] for number in lacking]
    if parts is not None:
        parts.mkdir(parents=True, exist_ok=True)
        for index, number in enumerate(lacking):
            path, size, tag, _ = files[number]
            name = hashlib.sha256(f"{place}\0{path}\0{size}\0{tag}".encode()).hexdigest()
            scratch[index] = parts / f"{name}.part"
            if scratch[index].exists():
                begun[index] = min(scratch[index].stat().st_size, size)
    _ask(going, [[number, offset] for number, offset in zip(lacking, begun)])  # noqa: B905 - Python 3.9
    total = 0
    for index, number in enumerate(lacking):
        path, size, tag, mode = files[number]
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch[index].open("r+b" if begun[index] else "wb") as stream:
            stream.seek(begun[index])
            left = size - begun[index]
            while left:
                chunk = coming.read(min(left, _CHUNK))
                if not chunk:
                    raise Refused("the sending broke off", "broken_off")
                stream.write(chunk)
                left -= len(chunk)
            stream.truncate()
        total += size - begun[index]
        if parts is not None:
            os.utime(scratch[index], ns=(tag, tag))
            scratch[index].chmod(mode)
            scratch[index].replace(target)
    return total


def _ask(going: BinaryIO, wanted: list[Any]) -> None:
    going.write(json.dumps({"wanted": wanted}).encode() + b"\n")
    going.flush()


def send(root: Path, wanted: dict[str, Any], going: BinaryIO) -> None:
    """Send a run's files home: for each a line `{path, size, modified_ns}`, then its bytes.

    Args:
        wanted: `run`, and `have`: `{path: [size, modification time in ns]}` of what home has already.
    """
    folder = _below(root / "workspace" / "runs", str(wanted["run"]))
    # last.json names the newest resume states: after them, so that it knows those that went before
    for path in sorted(_names(folder) if folder.is_dir() else (), key=lambda path: (path == "last.json", path)):
        if (folder / path).name.startswith(".") or path.endswith(".lock"):
            continue
        try:
            with (folder / path).open("rb") as stream:
                facts = os.fstat(stream.fileno())
                if wanted["have"].get(path) == [facts.st_size, facts.st_mtime_ns]:
                    continue
                line = {"path": path, "size": facts.st_size, "modified_ns": facts.st_mtime_ns}
                going.write(json.dumps(line).encode() + b"\n")
                left = facts.st_size
                while left:
                    chunk = stream.read(min(left, _CHUNK)) or bytes(min(left, _CHUNK))
                    going.write(chunk)
                    left -= len(chunk)
        except FileNotFoundError:
            continue  # replaced meanwhile: the next time
    going.flush()


def jobs(root: Path) -> list[JobFolder]:
    try:
        return [JobFolder(root, path.name) for path in (root / "jobs").iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []


def _below(root: Path, path: str) -> Path:
    """`root / path`, which must lie below `root`."""
    if path.startswith("/") or ".." in Path(path).parts:
        raise Refused(f"{path} leads out of {root}", "usage")
    return root / path


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def _facts(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts.st_size, facts.st_mtime_ns


def _known_contents(folder: Path) -> dict[str, list[Path]]:
    """Files of earlier snapshots by their SHA-256."""
    found: dict[str, list[Path]] = {}
    for listing in folder.glob("*.json"):
        for sha256, path in (read(listing) or {}).items():
            found.setdefault(sha256, []).append(listing.with_suffix("") / path)
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _forget_old(root: Path, newest: Path) -> None:
    """Drop the oldest snapshots that no job needs."""
    needed = {str((read(job.order) or {}).get("code")) for job in jobs(root)} | {newest.name}
    old = [path for path in newest.parent.glob("*.json") if path.stem not in needed]
    for listing in sorted(old, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(listing.with_suffix(""), ignore_errors=True)
        listing.unlink(missing_ok=True)
