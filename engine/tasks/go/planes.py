"""The feature planes of a position, from the side of the player to move.

| planes | what | source |
|---|---|---|
| 0-3 | own stones whose chain has 1, 2, 3, 4 or more liberties | Clark & Storkey 2015, arXiv:1412.3409 |
| 4-7 | the opponent's, likewise | same |
| 8 | empty points | Silver et al. 2016, Nature 529:484, extended data table 2 |
| 9 | ones: marks the board against the padding | same |
| 10-15 | the last six moves, newest first ("turns since") | same |
| 16 | where the player may not play: simple ko and suicide | same ("sensibleness", ko) |
| 17-20 | liberties that a stone would have if played here: 1, 2, 3, 4 or more | same |
| 21-23 | stones that it would capture: 1, 2, 3 or more | same ("capture size") |
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.tasks.go.rules import play, walk

COUNT = 24
RECENT = 6


@njit(cache=True, nogil=True)
def fill(board, work, colour, ko, recent, words, trial, out):
    """Write the planes of a position.

    Args:
        board: (points) int8, before the move.
        colour: the player to move.
        ko: the point that simple ko forbids, or -1.
        recent: (RECENT) points of the last moves, newest first, -1 where there is none.
        trial: (points) int8, working memory.
        out: (COUNT, points) of any number type; every entry is written.
    """
    points = len(board)
    out[:] = 0
    liberties = np.zeros(points, np.int16)
    for point in range(points):
        out[9, point] = 1
        if board[point] == 0:
            out[8, point] = 1
            continue
        if liberties[point] == 0:
            count, free = walk(board, work, point)
            for index in range(count):
                liberties[work.stones[index]] = free
        plane = min(liberties[point], 4) - 1
        out[plane if board[point] == colour else 4 + plane, point] = 1
    for index in range(RECENT):
        if recent[index] >= 0:
            out[10 + index, recent[index]] = 1
    for point in range(points):
        if board[point] != 0:
            continue
        if point == ko:
            out[16, point] = 1
            continue
        free, own, taken = 0, False, 0
        for side in range(4):
            beside = work.neighbours[point, side]
            if beside < 0:
                continue
            if board[beside] == 0:
                free += 1
            elif board[beside] == colour:
                own = True
            elif liberties[beside] == 1:
                taken += 1
        if not own and taken == 0:
            if free == 0:
                out[16, point] = 1
            else:
                out[16 + min(free, 4), point] = 1
            continue
        trial[:] = board
        status, captured, _, _ = play(trial, work, point, colour, ko, words, np.uint64(0))
        if status != 0:
            out[16, point] = 1
            continue
        _, after = walk(trial, work, point)
        out[16 + min(after, 4), point] = 1
        if captured > 0:
            out[20 + min(captured, 3), point] = 1


@njit(cache=True, nogil=True)
def symmetric(point, size, which):
    """Where a point comes to lie under symmetry `which` (0-7) of the square."""
    row, column = point // size, point % size
    if which & 1:
        row = size - 1 - row
    if which & 2:
        column = size - 1 - column
    if which & 4:
        row, column = column, row
    return row * size + column
