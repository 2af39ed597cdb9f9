"""A player: the net's probabilities on legal moves, short reading over them, and when to pass or to resign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.tasks.go import planes, rules
from engine.tasks.go.board import GoBoard
from engine.tasks.go.planes import COUNT, RECENT, symmetric
from engine.tasks.go.playouts import Estimate, estimate, is_eye
from engine.tasks.go.positions import SYMMETRIES
from engine.tasks.go.tactics import gains, rescues

# planes float32 [N, COUNT, S, S] to logits [N, S²]
Net = Callable[[NDArray[np.float32]], NDArray[np.float32]]

RESIGN_BELOW = 0.02
_BEHIND = 0.07  # of the board's points, on the mean of the playouts (25 on 19×19): nobody resigns a close game
_SETTLED = 0.8  # a point's owner this certain: nobody gains by playing there
_READ = 12  # of the net's moves are read
_RESCUED = 5  # stones: a chain of so many is worth moves of which the net did not think
_STONE = 0.1  # what a stone that is won or lost by force is worth, in the logarithm of the net's share
_STONES = 20.0  # more count as so many
_LEAST = 1e-4  # a share below it counts as this
_LATE = 0.4  # of the points have been played: before that nobody resigns or passes by itself


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A move and the net's share for it among the legal moves."""

    point: int
    confidence: float


def input_planes(board: GoBoard, colour: int, symmetry: int = 0) -> NDArray[np.float32]:
    """The planes of a position, float32 [COUNT, S, S], turned by `symmetry`."""
    size = board.size
    onto = np.array([symmetric(point, size, symmetry) for point in range(size * size)], np.int64)
    turned = np.empty_like(board.points)
    turned[onto] = board.points
    recent = board.recent(RECENT)
    recent = np.where(recent >= 0, onto[np.maximum(recent, 0)], -1).astype(np.int16)
    out = np.empty((COUNT, size * size), np.float32)
    ko = int(onto[board.ko]) if board.ko >= 0 else -1
    planes.fill(turned, rules.scratch(size), colour, ko, recent, rules.zobrist(size), np.empty_like(turned), out)
    return out.reshape(COUNT, size, size)


class Player:
    """Plays by a policy network.

    Args:
        averaged: ask the net about all eight symmetries and take the mean: a little stronger, eight times slower.
    """

    def __init__(self, net: Net, *, averaged: bool = True, seed: int = 0) -> None:
        self._net, self._averaged, self._seed = net, averaged, seed

    def probabilities(self, board: GoBoard, colour: int | None = None) -> NDArray[np.float64]:
        """(S²) the net's shares over the legal moves of `colour`, all zero when there is none."""
        colour = colour or board.to_play
        which = range(SYMMETRIES) if self._averaged else range(1)
        logits = self._net(np.stack([input_planes(board, colour, turn) for turn in which]))
        shifted = np.exp((logits - logits.max(1, keepdims=True)).astype(np.float64))
        shares = shifted / shifted.sum(1, keepdims=True)
        size = board.size
        back = [[symmetric(point, size, turn) for point in range(size * size)] for turn in which]
        mean = np.mean([row[index] for row, index in zip(shares, back, strict=True)], axis=0)
        mean = np.where(board.legal_moves(colour), mean, 0.0)
        total = float(mean.sum())
        return mean / total if total else mean

    def suggest(self, board: GoBoard, top_k: int = 5, colour: int | None = None) -> list[Suggestion]:
        """The `top_k` best legal moves, best first."""
        shares = self.probabilities(board, colour)
        order = np.argsort(-shares, kind="stable")[:top_k]
        return [Suggestion(int(point), float(shares[point])) for point in order if shares[point] > 0]

    def choose(self, board: GoBoard, colour: int | None = None, *, resigns: bool = True) -> int | None:
        """The move to play: a point, `board.passing`, or None to resign.

        Own eyes are never filled. Among the net's best moves those fall back that lose stones by force, and more so
        the more stones they lose against the best of them (`tactics.gains`). Passing needs that no move is left which could change whose a point is, or
        that the opponent has passed and the playouts see this side ahead.
        """
        colour = colour or board.to_play
        shares = self.probabilities(board, colour)
        work = rules.scratch(board.size)
        for point in np.flatnonzero(shares):
            if is_eye(board.points, work, int(point), colour):
                shares[point] = 0
        if not shares.any():
            return board.passing
        passed = bool(board.moves) and board.moves[-1][1] == board.passing
        late = len(board.moves) >= _LATE * board.passing
        if late or passed:
            said = estimate(board, self._seed + len(board.moves))
            behind = said.lead if colour == rules.WHITE else -said.lead
            if resigns and late and behind > _BEHIND * board.passing and _chance(said, colour) < RESIGN_BELOW:
                return None
            open_ = np.abs(said.owner) < _SETTLED
            if passed and _chance(said, colour) > 0.5 and not (shares * open_).max() > 0.2:
                return board.passing
            if not (shares * open_).any():
                return board.passing
        return self._read(board, colour, shares)

    def _read(self, board: GoBoard, colour: int, shares: NDArray[np.float64]) -> int:
        """The best move by the net's shares and by what short reading says of them."""
        best = [int(point) for point in np.argsort(-shares, kind="stable")[:_READ] if shares[point] > 0]
        best += [point for point in rescues(board, colour, _RESCUED) if shares[point] > 0 and point not in best]
        won = gains(board, colour, best)
        lost = np.minimum(won.max() - won, _STONES)
        return best[int(np.argmax(np.log(np.maximum(shares[best], _LEAST)) - _STONE * lost))]


def _chance(said: Estimate, colour: int) -> float:
    return said.black_wins if colour == rules.BLACK else 1 - said.black_wins
