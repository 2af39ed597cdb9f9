"""Games to shards: plan, claim, read, check, write. Killed anywhere and run again, it goes on."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engine.errors import Busy, Failed, UsageError
from engine.store.files import atomic_write, create_once
from engine.tasks.go.claims import Claims
from engine.tasks.go.inventory import Inventory, take_inventory
from engine.tasks.go.plan import Filters, Plan, Planned, extend, read_plans
from engine.tasks.go.records import BadRecord, Record, read_record
from engine.tasks.go.shards import NAME, shard_bytes

_SCRATCH = re.compile(r"^\.(batch|plan)_\d+\..*\.part$")
_SCRATCH_AGE_S = 3600.0
_WAIT_S = 0.2
Said = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Made:
    """What one worker did: shards and games, and the shards that it left to others."""

    shards: int = 0
    games: int = 0
    missing: tuple[str, ...] = ()


Hands = Callable[[Path, list[Plan], Inventory, Said], list[Made]]


def parse(
    paths: Sequence[str | Path],
    folder: Path,
    *,
    filters: Filters,
    games_per_shard: int,
    games: int | None = None,
    workers: int | None = None,
    say: Said = lambda line: None,
    hands: Hands | None = None,
) -> dict[str, Any]:
    """Make every shard that is still missing; other workers on the folder share the work.

    Args:
        paths: folders, SGF files and archives; none: only go on with what is planned and lies there no more.
        games: plan at most so many in all.
        workers: processes; None is one a core.
        hands: who makes what is left instead of them: other computers.

    Returns:
        The contract's object of `go parse`.

    Raises:
        UsageError: a path is wrong, or the folder's filters are others.
        Failed: a shard cannot be written.
    """
    if games_per_shard < 1:
        raise UsageError(f"go.games_per_shard = {games_per_shard}", "use 1 or more; 500 is usual")
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    with take_inventory(paths) as found:
        if not found.games and not read_plans(folder):
            raise UsageError("no game was found", "name folders, .sgf files or archives of games")
        plans = extend(folder, found, filters, games_per_shard, games)
        total = sum(len(plan.shards) for plan in plans)
        left = sum(not is_made(folder, shard) for plan in plans for shard in plan.shards)
        say(f"{len(found.games):,} games in {found.files:,} files; {total - left} of {total} shards are made")
        if hands and left:
            made = hands(folder, plans, found, say)
        else:
            made = _all_hands(folder, plans, found, max(1, min(workers or os.cpu_count() or 1, left)), say)
    Claims(folder).clear(lambda name: (folder / f"{name}.npz").exists())
    missing = sorted({name for one in made for name in one.missing})
    if missing:
        say(f"{len(missing)} planned games are not among these paths (the first: {missing[0]}); their shards wait")
    seconds = time.monotonic() - began
    parsed = sum(one.games for one in made)
    return {
        **summary(folder, found.skipped),
        "parsed": parsed,
        "waiting": sum(not is_made(folder, shard) for plan in plans for shard in plan.shards),
        "games_per_s": round(parsed / seconds, 1) if parsed else None,
        "seconds_s": round(seconds, 3),
    }


def _all_hands(folder: Path, plans: list[Plan], found: Inventory, count: int, say: Said) -> list[Made]:
    """This process and `count` - 1 children make what is left; a child that dies leaves its claim to the others."""
    if count == 1:
        return [work(folder, plans, found, say=say)]
    children = []
    for _ in range(count - 1):
        mine, theirs = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.Process(
            target=_child, args=(theirs, folder, plans, found, os.getpid()), daemon=True
        )
        child.start()
        theirs.close()
        children.append((child, mine))
    made = [work(folder, plans, found, say=say)]
    for child, mine in children:
        try:
            made.append(mine.recv())
        except EOFError:
            say("a worker process was killed; its shard was made by another")
        child.join()
    return made


def _child(answer: Connection, folder: Path, plans: list[Plan], found: Inventory, parent: int) -> None:
    answer.send(work(folder, plans, found, parent=parent))


def work(
    folder: Path, plans: list[Plan], found: Inventory, *, parent: int | None = None, say: Said = lambda line: None
) -> Made:
    """Make shards until none is left, or the process `parent` is gone; waits for those of others."""
    claims = Claims(folder)
    shards = games = 0
    missing: dict[int, str] = {}
    while parent is None or os.getppid() == parent:
        left = [
            (shard, plan.filters)
            for plan in plans
            for shard in plan.shards
            if shard.number not in missing and not is_made(folder, shard)
        ]
        if not left:
            break
        progressed = False
        for shard, filters in left:
            if parent is not None and os.getppid() != parent:
                break
            absent = next((name for digest, name in shard.games if digest not in found.games), None)
            if absent is not None:
                missing[shard.number] = absent
                continue
            with claims.claim(shard_name(shard)) as mine:
                if not mine or is_made(folder, shard):
                    continue
                kept = _make(folder, shard, filters, found)
            progressed = True
            shards, games = shards + 1, games + len(shard.games)
            say(f"{NAME.format(shard.number)}: {kept} of {len(shard.games)} games")
        if not progressed and parent is None:
            time.sleep(_WAIT_S)
        elif not progressed:
            break
    return Made(shards, games, tuple(missing.values()))


def summary(folder: Path, skipped: Sequence[dict[str, str]] = ()) -> dict[str, Any]:
    """What the folder's finished shards hold, and every game that none holds with its reason."""
    notes = [_note(path) for path in sorted(folder.glob("batch_*.json")) if path.with_suffix(".npz").exists()]
    return {
        "games": sum(note["games"] for note in notes),
        "skipped": [*skipped, *(one for note in notes for one in note["skipped"])],
        "positions": sum(note["positions"] for note in notes),
        "shards": len(notes),
        "bytes": sum(path.stat().st_size for path in folder.glob("batch_*.npz")),
    }


def reset(folder: Path) -> int:
    """Remove every shard, note, plan and claim; how many files that were.

    Raises:
        Busy: a living worker is at it.
    """
    names = re.compile(r"^\.?(batch|plan)_\d+\.")
    found = [path for path in folder.iterdir() if names.match(path.name)] if folder.is_dir() else []
    busy = Claims(folder).living() if found else []
    if busy:
        raise Busy(f"{busy[0]} is being made by another worker", "stop it first")
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def _make(folder: Path, shard: Planned, filters: Filters, found: Inventory) -> int:
    note, content = shard_of(shard, filters, found.text)
    return write_shard(folder, shard, note, content)


def shard_of(shard: Planned, filters: Filters, text: Callable[[str], bytes]) -> tuple[dict[str, Any], bytes]:
    """A shard's note and file, from the texts of its games by their digests; nothing is written.

    Raises:
        Failed: a text has changed since it was planned.
    """
    records: list[Record] = []
    skipped: list[dict[str, str]] = []
    digests: dict[bytes, str] = {}
    for digest, name in shard.games:
        try:
            record = read_record(text(digest))
        except (BadRecord, OSError) as error:
            skipped.append({"path": name, "reason": str(error)})
            continue
        except ValueError as error:
            raise Failed(f"{name}: {error}", "run go parse again") from None
        reason = filters.reason(record)
        if reason is None and record.digest in digests:
            reason = f"the same moves as {digests[record.digest]}"
        if reason is None and not record.positions:
            reason = "no moves"
        if reason is not None:
            skipped.append({"path": name, "reason": reason})
            continue
        digests[record.digest] = name
        records.append(record)
    note = {"games": len(records), "positions": sum(record.positions for record in records), "skipped": skipped}
    return note, shard_bytes(records)


def write_shard(folder: Path, shard: Planned, note: dict[str, Any], content: bytes) -> int:
    """Put a shard where all see it, its note first; how many games it holds."""
    atomic_write(folder / f"{shard_name(shard)}.json", json.dumps(note, indent=1, ensure_ascii=False) + "\n")
    create_once(folder / NAME.format(shard.number), content)
    return int(note["games"])


def shard_name(shard: Planned) -> str:
    """What it is called without an ending, and its claim by."""
    return NAME.format(shard.number).removesuffix(".npz")


def is_made(folder: Path, shard: Planned) -> bool:
    return (folder / NAME.format(shard.number)).exists()


def _note(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {
            "games": int(value["games"]),
            "positions": int(value["positions"]),
            "skipped": list(value["skipped"]),
        }
    except (ValueError, KeyError, TypeError):
        raise Failed(
            f"{path} is damaged", f"remove it and {path.with_suffix('.npz').name}, then run go parse again"
        ) from None


def _sweep(folder: Path) -> None:
    """Remove what workers that were killed left half written, once it is old."""
    for path in folder.iterdir():
        try:
            if _SCRATCH.match(path.name) and time.time() - path.stat().st_mtime > _SCRATCH_AGE_S:
                path.unlink()
        except FileNotFoundError:
            continue
