"""Labelled positions for a comparison: of each game one, drawn by the seed; the label is the move that was played."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from engine.config import Settings
from engine.errors import UsageError
from engine.tasks.go.board import point_names
from engine.tasks.go.inventory import take_inventory
from engine.tasks.go.medium import record_text
from engine.tasks.go.records import BadRecord, read_record
from engine.tasks.go.shards import Shard, held_out, read_shard
from engine.tasks.labelled import Labelled, LabelledSet

Rows = Sequence[tuple[int, int]]


def labelled_positions(settings: Settings, data: Path | None, seed: int, size: int) -> LabelledSet:
    """One position a game of `data` or `ab.data` (SGF files, folders, archives), else of the held-out games.

    A game of `data` that this workspace trains on is left out. Another seed draws other positions: another set.

    Raises:
        UsageError: there is no such game.
    """
    folder = settings.go.shards or settings.workspace / "go" / "shards"
    root = data or settings.ab.data
    judges, fraction = settings.go.val_shards, settings.go.val_fraction
    names, notes = point_names(size), []
    if root is None:
        key, shown = str(judges or folder), f"games of {judges}" if judges else f"held-out games of {folder}"
        games = list(_held_out_games(judges or folder, 1.0 if judges else fraction, size))
    else:
        root = root.expanduser().absolute()
        key, shown = str(root.resolve()), str(root)
        trained = _trained(folder, 0.0 if judges else fraction)
        games, left_out = [], 0
        for name, digest, setup, moves in _recorded_games(root, size):
            if digest in trained:
                left_out += 1
            else:
                games.append((name, setup, moves))
        if left_out:
            notes.append(f"{left_out:,} games left out: training has seen them")
    items = []
    for name, setup, moves in games:
        played = [index for index, (_, point) in enumerate(moves) if point != size * size]
        if played:
            index = played[_drawn(seed, name, len(played))]
            colour, point = moves[index]
            content = record_text(size, setup, moves[:index], colour)
            items.append(Labelled(None, f"{name}#{index + 1}", names[point], content=content))
    if not items:
        raise UsageError(
            f"no game of size {size} in {shown}",
            "parse games, or name others with --data or ab.data",
            kind="no_data",
        )
    return LabelledSet(f"{key}#{seed}", f"{shown}, one position each (seed {seed})", items, notes=notes)


def _drawn(seed: int, name: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") % count


def _held_out_games(folder: Path, fraction: float, size: int) -> Iterator[tuple[str, Rows, Rows]]:
    for path in sorted(folder.glob("batch_*.npz")):
        shard = read_shard(path)
        for game in np.flatnonzero(held_out(shard.digest, fraction) & (shard.size == size)).tolist():
            yield f"{int(shard.digest[game]):016x}", *_game_of(shard, game)


def _game_of(shard: Shard, game: int) -> tuple[Rows, Rows]:
    """Setup stones and moves as (colour, point)."""
    stones = slice(shard.setup_start[game], shard.setup_start[game + 1])
    moves = slice(shard.move_start[game], shard.move_start[game + 1])
    return (
        list(zip(shard.setup_colours[stones].tolist(), shard.setup[stones].tolist(), strict=True)),
        list(zip(shard.colours[moves].tolist(), shard.moves[moves].tolist(), strict=True)),
    )


def _trained(folder: Path, fraction: float) -> set[int]:
    """Digests of the games that this workspace's trainings see."""
    found: set[int] = set()
    for path in folder.glob("batch_*.npz"):
        digest = read_shard(path).digest
        found.update(digest[~held_out(digest, fraction)].tolist())
    return found


def _recorded_games(root: Path, size: int) -> Iterator[tuple[str, int, Rows, Rows]]:
    with take_inventory([root]) as found:
        for digest, (name, _) in found.games.items():
            try:
                record = read_record(found.text(digest))
            except (BadRecord, OSError, ValueError):
                continue  # `go parse` names it; a comparison takes what both nets can be asked
            if record.size == size:
                moves = [(colour, point) for colour, point in record.moves.tolist()]
                setup = [(colour, point) for colour, point in record.setup.tolist()]
                yield name, int.from_bytes(record.digest, "little"), setup, moves
