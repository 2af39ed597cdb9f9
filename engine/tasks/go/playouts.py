"""Random playouts: whose point each will be, when nobody plans. Enough to see dead stones, to pass and to resign."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from engine.tasks.go import rules
from engine.tasks.go.board import GoBoard
from engine.tasks.go.rules import has_liberty

PLAYOUTS = 200


@dataclass(frozen=True, slots=True)
class Estimate:
    """What random playouts from a position say.

    `owner` is black's share of each point from -1 (white's for certain) to 1; `lead` black's mean lead in
    points, komi taken off; `black_wins` the share of playouts that black won.
    """

    owner: NDArray[np.float64]
    lead: float
    black_wins: float


def estimate(board: GoBoard, seed: int = 0, playouts: int = PLAYOUTS) -> Estimate:
    """Play the game out at random, without filling one's own eyes (Brügmann 1993, "Monte Carlo Go")."""
    owner = np.zeros(board.passing, np.int64)
    leads = np.zeros(playouts, np.float64)
    _play_out(
        board.points,
        board.to_play,
        board.ko,
        rules.scratch(board.size),
        rules.zobrist(board.size),
        seed,
        owner,
        leads,
    )
    leads -= board.komi
    return Estimate(owner / playouts, float(leads.mean()), float((leads > 0).mean()))


@njit(cache=True, nogil=True)
def is_eye(board, work, point, colour):
    """Whether an empty point is an eye of `colour` that must not be filled.

    All its neighbours are `colour`'s, and of the points diagonal to it the opponent holds at most one, none
    on the edge (the rule of Brügmann 1993).
    """
    for side in range(4):
        beside = work.neighbours[point, side]
        if beside >= 0 and board[beside] != colour:
            return False
    enemies, edge = 0, False
    up, down = work.neighbours[point, 0], work.neighbours[point, 1]
    for row in (up, down):
        if row < 0:
            edge = True
            continue
        for side in (2, 3):
            diagonal = work.neighbours[row, side]
            if diagonal < 0:
                edge = True
            elif board[diagonal] == 3 - colour:
                enemies += 1
    return enemies == 0 if edge else enemies <= 1


@njit(cache=True, nogil=True)
def is_suicide(board, work, point, colour):
    """Whether a stone on an empty point would take nothing and have no liberty."""
    for side in range(4):
        beside = work.neighbours[point, side]
        if beside < 0:
            continue
        if board[beside] == 0:
            return False
        if has_liberty(board, work, beside, point) == (board[beside] == colour):
            return False
    return True


@njit(cache=True, nogil=True)
def _empties(board, out):
    count = 0
    for point in range(len(board)):
        if board[point] == 0:
            out[count] = point
            count += 1
    return count


@njit(cache=True, nogil=True)
def _play_out(start, to_play, ko, work, words, seed, owner, leads):
    points = len(start)
    np.random.seed(seed)
    board = np.empty(points, np.int8)
    empty = np.empty(points, np.int16)
    for game in range(len(leads)):
        board[:] = start
        colour, forbidden, passes = to_play, ko, 0
        count = _empties(board, empty)
        for _ in range(3 * points):
            moved = False
            left = count  # the empty points behind it were tried this turn
            while left > 0:
                index = np.random.randint(left)
                point = empty[index]
                left -= 1
                empty[index], empty[left] = empty[left], point
                if point == forbidden or is_eye(board, work, point, colour):
                    continue
                if is_suicide(board, work, point, colour):
                    continue
                _, captured, forbidden, _ = rules.play(board, work, point, colour, forbidden, words, np.uint64(0))
                moved = True
                count -= 1
                empty[left] = empty[count]
                if captured:
                    count = _empties(board, empty)
                break
            colour = 3 - colour
            passes = 0 if moved else passes + 1
            if not moved:
                forbidden = -1
            if passes == 2:
                break
        lead = 0
        for point in range(points):
            whose = board[point]
            if whose == 0:
                for side in range(4):
                    beside = work.neighbours[point, side]
                    if beside >= 0 and board[beside] != 0:
                        whose = board[beside]
            if whose == 1:
                owner[point] += 1
                lead += 1
            elif whose == 2:
                owner[point] -= 1
                lead -= 1
        leads[game] = lead
