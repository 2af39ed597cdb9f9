"""The source as a person checks it: right path, right name, size, rights, hash changed or not."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from engine.checkpoints.naming import Candidate, choose
from engine.config import Settings
from engine.errors import UnderstudyError
from engine.release.slots import read_pointer
from engine.store.workspace import SLOTS, TITLES, Workspace
from engine.sync.factory import open_source
from engine.sync.source import Source, Unreadable
from engine.watch.checkup.check import Check, size

NORMAL_BYTES = (4_000_000, 12_000_000)  # the documents' size of a LiteCNN checkpoint


def source(workspace: Workspace, settings: Settings) -> Iterator[Check]:
    if settings.source.kind == "ssh":
        yield from _key(settings)
    try:
        with open_source(settings) as place:
            entries = place.listing()
            yield Check("source", f"{place.name}: {len(entries)} files seen")
            choice = choose(entries, time.time())
            for warning in choice.warnings:
                yield Check("source order", warning, "warn")
            if not choice.candidates:
                passed = f"; {choice.skipped[0]['path']}: {choice.skipped[0]['reason']}" if choice.skipped else ""
                yield Check("checkpoint", f"none to take yet{passed}", "note")
                return
            yield from _candidate(workspace, settings, place, choice.candidates[0])
    except UnderstudyError as error:
        yield Check("source", error.message, "fail", error.hint)


def _key(settings: Settings) -> Iterator[Check]:
    key = settings.source.key
    if key is None:
        yield Check("source key", "your agent and your usual keys are tried")
        return
    try:
        mode = stat.S_IMODE(key.expanduser().stat().st_mode)
    except OSError as error:
        yield Check("source key", f"{key}: {error.strerror}", "fail", "set source.key to a private key")
        return
    if mode & 0o077:
        yield Check("source key", f"{key} can be read by others ({mode:o})", "fail", f"chmod 600 {key}")
    else:
        yield Check("source key", f"{key} is private")


def _candidate(workspace: Workspace, settings: Settings, place: Source, best: Candidate) -> Iterator[Check]:
    name = PurePosixPath(best.path).name
    cycle = "the combined one" if best.cycle is None else f"cycle {best.cycle}"
    yield Check("checkpoint", f"{best.path} ({cycle}) is the one that sync takes")
    low, high = NORMAL_BYTES
    if best.bytes == 0:
        yield Check("checkpoint size", f"{name} is empty", "fail", "save it again")
    elif low <= best.bytes <= high:
        yield Check("checkpoint size", f"{size(best.bytes)}, normal")
    else:
        grown = "; one grown too large can be saved without its optimizer" if best.bytes > high else ""
        yield Check("checkpoint size", f"{size(best.bytes)}; a LiteCNN has 4 to 12 MB{grown}", "note")
    yield from _rights(settings, place, best)
    yield from _hash(workspace, place, best)


def _rights(settings: Settings, place: Source, best: Candidate) -> Iterator[Check]:
    if settings.source.kind != "local":
        if best.problem:
            yield Check(
                "checkpoint rights", f"{best.path}: {best.problem}", "fail", f"chmod 644 {best.path} there"
            )
        return
    path = Path(place.root) / best.path
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        yield Check("checkpoint rights", f"{path}: {error.strerror}", "fail", "mend the folder's rights")
        return
    if not os.access(path, os.R_OK):
        yield Check("checkpoint rights", f"{path} cannot be read ({mode:o})", "fail", f"chmod 644 {path}")
    elif not mode & stat.S_IROTH:
        yield Check(
            "checkpoint rights", f"readable here, but not by everybody ({mode:o})", "note", f"chmod 644 {path}"
        )
    else:
        yield Check("checkpoint rights", f"readable ({mode:o})")


def _hash(workspace: Workspace, place: Source, best: Candidate) -> Iterator[Check]:
    try:
        seen, md5 = place.look(best.path), place.md5(best.path)
    except Unreadable as error:
        yield Check("checkpoint hash", f"{best.path} cannot be read: {error}", "fail", "mend it at the source")
        return
    for slot in SLOTS:
        try:
            pointer = read_pointer(workspace, slot)
        except UnderstudyError:
            continue  # the slots' own check says so
        if pointer and pointer.checkpoint.sha256 == seen.sha256:
            yield Check("checkpoint hash", f"{md5[:8]}, not changed: {TITLES[slot]} holds it")
            return
    yield Check("checkpoint hash", f"{md5[:8]} is new; the next sync takes it", "note")
