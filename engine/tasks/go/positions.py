"""A shard's positions in memory, and batches of planes from them.

A position is kept as its board (two bits a point), its ko point and its place in the move list: about 100
bytes on 19×19. A batch's planes are filled from that by compiled code that holds no interpreter lock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from engine.tasks.go import planes, rules
from engine.tasks.go.planes import COUNT, RECENT, symmetric
from engine.tasks.go.shards import Shard

SYMMETRIES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """Every position of one board size in a shard before a move that is no pass."""

    size: int
    boards: NDArray[np.uint8]  # (n, (points + 3) // 4): four points a byte
    ko: NDArray[np.int16]  # (n)
    move: NDArray[np.int64]  # (n) index into `moves`
    game: NDArray[np.int32]  # (n) index of the game within the shard
    start: NDArray[np.int64]  # (n) the game's first index in `moves`
    moves: NDArray[np.int16]  # all moves of the shard
    colours: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.move)

    def taken(self, chosen: NDArray[np.int64]) -> Positions:
        """Only some of the positions; the rest's memory is given back."""
        return replace(
            self,
            boards=self.boards[chosen],
            ko=self.ko[chosen],
            move=self.move[chosen],
            game=self.game[chosen],
            start=self.start[chosen],
        )

    def batch(
        self, chosen: NDArray[np.int64], symmetry: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Planes and the moves played.

        Args:
            chosen: (batch) indices of positions.
            symmetry: (batch) 0 to 7; 0 leaves a position as it is.

        Returns:
            (batch, COUNT, size, size) uint8 of zeros and ones, and (batch) the points that were played.
        """
        out = np.empty((len(chosen), COUNT, self.size * self.size), np.uint8)
        labels = np.empty(len(chosen), np.int64)
        _fill_batch(
            self.size, self.boards, self.ko, self.move, self.start, self.moves, self.colours, chosen, symmetry,
            rules.scratch(self.size), rules.zobrist(self.size), out, labels,
        )  # fmt: skip
        return out.reshape(len(chosen), COUNT, self.size, self.size), labels


def positions(shard: Shard, size: int, games: NDArray[np.bool_] | None = None) -> Positions:
    """Replay a shard's games on boards of `size`.

    Args:
        games: (games) which of them to take; all by default.
    """
    wanted = shard.size == size
    if games is not None:
        wanted &= games
    starts = shard.move_start.astype(np.int64)
    moves, points = shard.moves.astype(np.int16), size * size
    inside = np.repeat(wanted, np.diff(starts))
    count = int((inside & (moves != points)).sum())
    boards = np.empty((count, (points + 3) // 4), np.uint8)
    ko, move = np.empty(count, np.int16), np.empty(count, np.int64)
    game, start = np.empty(count, np.int32), np.empty(count, np.int64)
    _replay_all(
        np.flatnonzero(wanted), starts, moves, shard.colours, shard.setup_start.astype(np.int64),
        shard.setup.astype(np.int16), shard.setup_colours, size, rules.scratch(size), rules.zobrist(size),
        boards, ko, move, game, start,
    )  # fmt: skip
    return Positions(size, boards, ko, move, game, start, moves, shard.colours)


@njit(cache=True, nogil=True)
def _replay_all(
    wanted, starts, moves, colours, setup_start, setup, setup_colours, size, work, words,
    boards, ko_out, move_out, game_out, start_out,
):  # fmt: skip
    points = size * size
    board = np.zeros(points, np.int8)
    at = 0
    for game in wanted:
        board[:] = 0
        for index in range(setup_start[game], setup_start[game + 1]):
            board[setup[index]] = setup_colours[index]
        ko, key = -1, np.uint64(0)
        for index in range(starts[game], starts[game + 1]):
            if moves[index] == points:
                ko = -1
                continue
            _pack(board, boards[at])
            ko_out[at], move_out[at], game_out[at], start_out[at] = ko, index, game, starts[game]
            at += 1
            _, _, ko, key = rules.play(board, work, moves[index], colours[index], ko, words, key)


@njit(cache=True, nogil=True)
def _pack(board, out):
    out[:] = 0
    for point in range(len(board)):
        out[point >> 2] |= board[point] << ((point & 3) * 2)


@njit(cache=True, nogil=True)
def _fill_batch(size, boards, ko, move, start, moves, colours, chosen, symmetry, work, words, out, labels):
    points = size * size
    board, trial = np.empty(points, np.int8), np.empty(points, np.int8)
    recent = np.empty(RECENT, np.int16)
    onto = np.empty((SYMMETRIES, points + 1), np.int16)
    for which in range(SYMMETRIES):
        for point in range(points):
            onto[which, point] = symmetric(point, size, which)
    for row in range(len(chosen)):
        place, turn = chosen[row], onto[symmetry[row]]
        for point in range(points):
            board[turn[point]] = (boards[place, point >> 2] >> ((point & 3) * 2)) & 3
        index = move[place]
        for back in range(RECENT):
            earlier = index - 1 - back
            recent[back] = -1
            if earlier >= start[place] and moves[earlier] != points:
                recent[back] = turn[moves[earlier]]
        forbidden = turn[ko[place]] if ko[place] >= 0 else -1
        planes.fill(board, work, colours[index], forbidden, recent, words, trial, out[row])
        labels[row] = turn[moves[index]]
