"""A shard: up to some hundred games in one compressed `batch_0001.npz`, the same bytes whoever writes it.

A shard keeps moves, not planes: about a byte and a half a position, and other planes need no new parsing. The
planes are made again when a shard is trained on (`positions`), at a few microseconds each.

| array | type | holds |
|---|---|---|
| `format` | uint8 | 1 |
| `size`, `handicap`, `result`, `black_rank`, `white_rank` | (games) uint8 or int8 | see `records.Record` |
| `komi`, `date` | (games) float32, uint32 | |
| `digest` | (games) uint64 | of size, setup and moves |
| `moves`, `colours` | (moves) uint16, packed bits | points, size² is a pass; a set bit is white |
| `move_start` | (games + 1) uint32 | where each game's moves begin |
| `setup`, `setup_colours`, `setup_start` | likewise | setup stones |
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import Failed
from engine.tasks.go.records import Record
from engine.tasks.go.rules import BLACK, WHITE

FORMAT = 1
NAME = "batch_{:04d}.npz"


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """The games of one shard; `colours` hold 1 for black and 2 for white, one entry a move."""

    size: NDArray[np.uint8]
    handicap: NDArray[np.uint8]
    result: NDArray[np.int8]
    black_rank: NDArray[np.int8]
    white_rank: NDArray[np.int8]
    komi: NDArray[np.float32]
    date: NDArray[np.uint32]
    digest: NDArray[np.uint64]
    moves: NDArray[np.uint16]
    colours: NDArray[np.int8]
    move_start: NDArray[np.uint32]
    setup: NDArray[np.uint16]
    setup_colours: NDArray[np.int8]
    setup_start: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.size)

    @property
    def positions(self) -> int:
        """Moves other than passes."""
        passing = np.repeat(
            self.size.astype(np.int64) ** 2, self.move_start[1:].astype(np.int64) - self.move_start[:-1]
        )
        return int((self.moves != passing).sum())


def shard_bytes(records: Sequence[Record]) -> bytes:
    """The whole file of a shard."""
    moves = _joined([record.moves for record in records])
    setup = _joined([record.setup for record in records])
    arrays: dict[str, NDArray[np.generic]] = {
        "format": np.array(FORMAT, np.uint8),
        "size": np.array([record.size for record in records], np.uint8),
        "handicap": np.array([record.handicap for record in records], np.uint8),
        "result": np.array([record.result for record in records], np.int8),
        "black_rank": np.array([record.black_rank for record in records], np.int8),
        "white_rank": np.array([record.white_rank for record in records], np.int8),
        "komi": np.array([record.komi for record in records], np.float32),
        "date": np.array([record.date for record in records], np.uint32),
        "digest": np.array([int.from_bytes(record.digest, "little") for record in records], np.uint64),
        "moves": moves[:, 1].astype(np.uint16),
        "colours": np.packbits(moves[:, 0] == WHITE),
        "move_start": _starts([len(record.moves) for record in records]),
        "setup": setup[:, 1].astype(np.uint16),
        "setup_colours": np.packbits(setup[:, 0] == WHITE),
        "setup_start": _starts([len(record.setup) for record in records]),
    }
    target = io.BytesIO()
    # numpy gives every member the date 1980-01-01, so that the bytes depend on the games alone
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]
    return target.getvalue()


def read_shard(path: Path) -> Shard:
    """Read one shard.

    Raises:
        Failed: the file is damaged or of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["format"]) != FORMAT:
                raise Failed(
                    f"{path} is of another version of Understudy", "parse the games again: go reset, go parse"
                )
            values = {field.name: file[field.name] for field in fields(Shard)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise Failed(
            f"the shard {path} is damaged ({' '.join(str(error).split())[:100]})",
            "remove it and run go parse again: only this shard is made anew",
            kind="damaged_shard",
        ) from None
    for name in ("colours", "setup_colours"):
        count = len(values["moves" if name == "colours" else "setup"])
        values[name] = np.where(np.unpackbits(values[name], count=count), WHITE, BLACK).astype(np.int8)
    return Shard(**values)


def held_out(digest: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """Which games validate and never train: by their digest alone, so whatever is added moves none."""
    return digest % np.uint64(1_000_003) < np.uint64(round(fraction * 1_000_003))


def _joined(parts: list[NDArray[np.int16]]) -> NDArray[np.int16]:
    return np.concatenate(parts) if parts else np.zeros((0, 2), np.int16)


def _starts(lengths: list[int]) -> NDArray[np.uint32]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.uint32)
