"""Go as a task of the trainer: positions of shards in bounded memory, the eight symmetries, top-1 and top-5."""

from __future__ import annotations

import hashlib
import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config import Settings
from engine.errors import UsageError
from engine.tasks.go.board import point_names
from engine.tasks.go.metrics import MoveTally
from engine.tasks.go.net import build_net
from engine.tasks.go.positions import SYMMETRIES, Positions, positions
from engine.tasks.go.shards import held_out, read_shard
from engine.tasks.report import KINDS

_AHEAD = 4  # batches that wait for the net
_VALIDATE_AT_MOST = 20_000
_VALIDATE_SHARDS = 64  # their move lists stay in memory
_KEY = (1 << 64) - 1
_ORDER, _SYMMETRY = 1, 2  # streams of random numbers


def load_task(settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> GoTask:
    """Count the positions of every shard.

    Raises:
        UsageError: there is no shard, or none of the configured board size.
        Failed: a shard is damaged.
    """
    folder = settings.go.shards or settings.workspace / "go" / "shards"
    paths = sorted(folder.glob("batch_*.npz"))
    if not paths:
        raise UsageError(f"no shard of games in {folder}", "make some with: go parse PATHS", kind="no_data")
    return GoTask(settings, paths, on_progress)


@dataclass(frozen=True, slots=True)
class _Part:
    """A shard's share of the training part."""

    path: Path
    count: int


class GoTask:
    """Predicts the next move; see `engine.tasks.task.Task`.

    A game is held out by its digest alone, or because it is among `go.val_shards`. With `go.epoch_positions` an
    epoch is one of the equal slices of a pass over all positions.
    """

    name = "go"
    unit = "positions"
    dense = True

    def __init__(
        self, settings: Settings, paths: list[Path], on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        self._settings, self._go = settings, settings.go
        self._seed = settings.training.seed & _KEY
        self.size = self._go.board_size
        self.classes = point_names(self.size)
        self._parts: list[_Part] = []
        held_out: list[Path] = []
        judges = self._go.val_shards
        self._judging = _digests(judges) if judges else None
        print_ = hashlib.sha256(f"{self.size} {self._go.val_fraction}".encode())
        games = held_games = val_samples = 0
        for done, path in enumerate(paths, 1):
            shard = read_shard(path)
            wanted = shard.size == self.size
            held = self._held_out(shard.digest) & wanted
            per_game = _positions_of(shard.move_start, shard.moves, self.size)
            print_.update(shard.digest.tobytes())
            games += int(wanted.sum())
            held_games += int(held.sum())
            if count := int(per_game[wanted & ~held].sum()):
                self._parts.append(_Part(path, count))
            if held.any():
                held_out.append(path)
                val_samples += int(per_game[held].sum())
            if on_progress:
                on_progress(done, len(paths))
        if judges and self._judging is not None:
            held_out = sorted(judges.glob("batch_*.npz"))
            val_samples = len(self._judging)
            print_.update(self._judging.tobytes())
        whole = sum(part.count for part in self._parts)
        self._slices = max(1, round(whole / (self._go.epoch_positions or whole or 1)))
        self.train_samples = whole // self._slices
        if not self.train_samples or not val_samples:
            raise UsageError(
                f"too few games of size {self.size} in {paths[0].parent}: {games - held_games} to train on,"
                f" {held_games} to validate with",
                "parse more games, or change go.board_size or go.val_fraction",
                kind="no_data",
            )
        self._val = self._load_held_out(held_out)
        self.val_samples = sum(len(chosen) for _, chosen in self._val)
        if not self.val_samples:
            raise UsageError(
                f"no game of size {self.size} in {judges}", "choose other go.val_shards", kind="no_data"
            )
        self.fingerprint = print_.hexdigest()
        self.report: dict[str, Any] = {"checked": games, "ok": games} | {kind: [] for kind in KINDS}
        self.report |= {"warnings": [], "fingerprint": self.fingerprint}
        self.report |= {
            "games": games,
            "val_games": held_games if self._judging is None else len(self._judging),
            "train": self.train_samples,
            "val": self.val_samples,
        }

    def default_epochs(self) -> int:
        return self._go.epochs

    def describe(self) -> str:
        return f"{self.report['games']:,} games, {self.size}×{self.size}"

    def build_model(self, *, pretrained: bool) -> nn.Module:
        return build_net(self._go.net, self.size)

    def train_batches(
        self, epoch: int, batch_size: int, *, start: int, workers: int
    ) -> Iterator[tuple[Tensor, ...]]:
        """Planes uint8 [B, COUNT, S, S] and moves int64 [B], made ahead by a thread."""
        return _ahead(self._batches(epoch, min(batch_size, self.train_samples), start))

    def val_batches(self, batch_size: int, *, workers: int) -> Iterator[tuple[Tensor, ...]]:
        def made() -> Iterator[tuple[Tensor, ...]]:
            for found, chosen in self._val:
                for begin in range(0, len(chosen), batch_size):
                    part = chosen[begin : begin + batch_size]
                    yield _tensors(found.batch(part, np.zeros(len(part), np.int64)))

        return _ahead(made())

    def prepare(self, batch: tuple[Tensor, ...], *, training: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        planes, moves = batch
        return planes.float().contiguous(memory_format=torch.channels_last), (moves,)

    def loss(self, outputs: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        """Cross-entropy with the move that was played."""
        return F.cross_entropy(outputs, targets[0])

    def tally(self) -> MoveTally:
        return MoveTally()

    def card(self) -> dict[str, Any]:
        return {
            "architecture": {"name": self._go.net, "settings": {}},
            "classes": self.classes,
            "preprocess": {"board_size": self.size},
        }

    def _held_out(self, digest: NDArray[np.uint64]) -> NDArray[np.bool_]:
        if self._judging is not None:
            return np.isin(digest, self._judging)
        return held_out(digest, self._go.val_fraction)

    def _load(self, path: Path, *, held: bool) -> Positions:
        shard = read_shard(path)
        chosen = self._held_out(shard.digest)
        return positions(shard, self.size, chosen if held else ~chosen)

    def _load_held_out(self, paths: list[Path]) -> list[tuple[Positions, NDArray[np.int64]]]:
        """Held-out positions, a share of each shard so that at most `_VALIDATE_AT_MOST` stay in memory."""
        paths = paths[:_VALIDATE_SHARDS]
        share = _VALIDATE_AT_MOST // len(paths)
        found = []
        for path in paths:
            held = self._load(path, held=True)
            chosen = self._random(_ORDER, 0, int(path.stem[6:])).permutation(len(held))[:share]
            found.append((held.taken(np.sort(chosen)), np.arange(len(chosen))))
        return found

    def _random(self, stream: int, epoch: int, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self._seed, (stream << 60) | (epoch << 40) | number]))

    def _batches(self, epoch: int, batch_size: int, start: int) -> Iterator[tuple[Tensor, ...]]:
        """Shards in the pass's order, each in an order of its own; a batch may span two of them."""
        turn, slice_ = divmod(epoch, self._slices)
        order = self._random(_ORDER, turn + 1, 0).permutation(len(self._parts))
        number, begin = start, slice_ * self.train_samples + start * batch_size
        steps = max(1, self.train_samples // batch_size)
        planes: list[NDArray[np.uint8]] = []
        moves: list[NDArray[np.int64]] = []
        with ThreadPoolExecutor(1) as loader:
            wanted = [int(index) for index in order]
            ends = list(itertools.accumulate(self._parts[index].count for index in wanted))
            open_ = [index for index, end in zip(wanted, ends, strict=True) if end > begin]
            at = begin - (ends[wanted.index(open_[0])] - self._parts[open_[0]].count if open_ else 0)
            coming = [loader.submit(self._load, self._parts[open_[0]].path, held=False)] if open_ else []
            for place, index in enumerate(open_):
                found = coming.pop().result()
                if place + 1 < len(open_):
                    coming.append(loader.submit(self._load, self._parts[open_[place + 1]].path, held=False))
                shuffled = self._random(_ORDER, turn + 1, index + 1).permutation(len(found))
                symmetry = self._random(_SYMMETRY, turn + 1, index + 1).integers(0, SYMMETRIES, len(found))
                while at < len(found) and number < steps:
                    take = min(len(found) - at, batch_size - sum(len(part) for part in moves))
                    made = found.batch(shuffled[at : at + take], symmetry[at : at + take])
                    planes.append(made[0])
                    moves.append(made[1])
                    at += take
                    if sum(len(part) for part in moves) == batch_size:
                        yield _tensors((np.concatenate(planes), np.concatenate(moves)))
                        planes, moves, number = [], [], number + 1
                if number == steps:
                    return
                at = 0


def _digests(folder: Path) -> NDArray[np.uint64]:
    """Of every game of the folder's shards.

    Raises:
        UsageError: there is none.
    """
    found = [read_shard(path).digest for path in sorted(folder.glob("batch_*.npz"))]
    if not found:
        raise UsageError(f"no shard of games in {folder}", "choose other go.val_shards", kind="no_data")
    return np.concatenate(found)


def _positions_of(starts: NDArray[np.uint32], moves: NDArray[np.uint16], size: int) -> NDArray[np.int64]:
    """Moves other than passes of each game, were its board of `size`."""
    played = np.concatenate([[0], np.cumsum(moves != size * size, dtype=np.int64)])
    return played[starts[1:].astype(np.int64)] - played[starts[:-1].astype(np.int64)]


def _tensors(made: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> tuple[Tensor, ...]:
    return torch.from_numpy(made[0]), torch.from_numpy(made[1])


def _ahead(batches: Iterator[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """The same batches, made by a thread that stays a few ahead; closing ends the thread."""
    ready: queue.Queue[tuple[Tensor, ...] | BaseException | None] = queue.Queue(_AHEAD)
    ended = threading.Event()

    def offer(item: tuple[Tensor, ...] | BaseException | None) -> bool:
        while not ended.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for batch in batches:
                if not offer(batch):
                    return
            offer(None)
        except BaseException as error:  # noqa: BLE001 - handed to whoever reads
            offer(error)

    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
        maker.join()
