"""The rules of Go as compiled kernels: captures, liberties, simple ko, suicide and positional superko.

A board is an int8 array of size² points, row 0 at the bottom (sgfmill's and GTP's order), 0 empty, 1 black,
2 white. A move is a point, or size² for a pass. Kernels change the arrays that they are given and allocate
nothing that a caller does not hand them: `Scratch` makes what they need.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

EMPTY, BLACK, WHITE = 0, 1, 2
OK, OCCUPIED, KO, SUICIDE, OUTSIDE = 0, 1, 2, 3, 4
LARGEST = 25
REASONS = {
    OCCUPIED: "is on an occupied point",
    KO: "takes back a ko at once",
    SUICIDE: "is suicide",
    OUTSIDE: "is outside the board",
}


class Scratch(NamedTuple):
    """Working memory of the kernels for one board size."""

    neighbours: NDArray[np.int16]  # (points, 4), -1 beyond the edge
    stones: NDArray[np.int16]  # (points): the chain that was walked last
    mark: NDArray[np.int32]  # (points + 1): when a point was last seen; its last entry counts the walks


@lru_cache(maxsize=32)
def neighbours(size: int) -> NDArray[np.int16]:
    """(size², 4) points beside each point, -1 beyond the edge."""
    table = np.full((size * size, 4), -1, np.int16)
    for row in range(size):
        for column in range(size):
            for index, (up, right) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
                if 0 <= row + up < size and 0 <= column + right < size:
                    table[row * size + column, index] = (row + up) * size + column + right
    table.flags.writeable = False
    return table


def scratch(size: int) -> Scratch:
    points = size * size
    return Scratch(neighbours(size).copy(), np.zeros(points, np.int16), np.zeros(points + 1, np.int32))


@lru_cache(maxsize=32)
def zobrist(size: int) -> NDArray[np.uint64]:
    """(size², 3) random words of a fixed seed; a position's hash is the xor of its points' words.

    Zobrist 1970, "A new hashing method with application for game playing". Empty points have no word.
    """
    words = np.random.Generator(np.random.PCG64(0x60)).integers(0, 2**64, (LARGEST * LARGEST, 3), np.uint64)
    words[:, EMPTY] = 0
    return np.ascontiguousarray(words[: size * size])


@njit(cache=True, nogil=True)
def walk(board, work, start):
    """The chain of `start`: its stones go to `work.stones`. Returns (number of stones, number of liberties)."""
    nbr, stones, mark = work.neighbours, work.stones, work.mark
    mark[-1] += 1
    stamp = mark[-1]
    colour = board[start]
    stones[0] = start
    mark[start] = stamp
    count, done, liberties = 1, 0, 0
    while done < count:
        point = stones[done]
        done += 1
        for side in range(4):
            other = nbr[point, side]
            if other < 0 or mark[other] == stamp:
                continue
            if board[other] == colour:
                mark[other] = stamp
                stones[count] = other
                count += 1
            elif board[other] == 0:
                mark[other] = stamp
                liberties += 1
    return count, liberties


@njit(cache=True, nogil=True)
def has_liberty(board, work, start, without=-1):
    """Whether the chain of `start` has a liberty other than the point `without`; stops at the first."""
    nbr, stones, mark = work.neighbours, work.stones, work.mark
    mark[-1] += 1
    stamp = mark[-1]
    colour = board[start]
    stones[0] = start
    mark[start] = stamp
    count, done = 1, 0
    while done < count:
        point = stones[done]
        done += 1
        for side in range(4):
            other = nbr[point, side]
            if other < 0 or other == without:
                continue
            if board[other] == 0:
                return True
            if board[other] == colour and mark[other] != stamp:
                mark[other] = stamp
                stones[count] = other
                count += 1
    return False


@njit(cache=True, nogil=True)
def lift(board, work, start, words, key):
    """Take the chain of `start` off the board. Returns (number of stones, new hash)."""
    colour = board[start]
    count, _ = walk(board, work, start)
    for index in range(count):
        board[work.stones[index]] = 0
        key ^= words[work.stones[index], colour]
    return count, key


@njit(cache=True, nogil=True)
def play(board, work, point, colour, ko, words, key):
    """Play a stone and take what it captures; its own chain too when it is left without liberty.

    Args:
        ko: the point that simple ko forbids now, or -1.
        key: the position's hash.

    Returns:
        (status, captured stones, the next ko point or -1, new hash). `OCCUPIED` and `KO` leave the board as
        it is; `SUICIDE` has taken the chain off, as rules that allow it do.
    """
    if board[point] != 0:
        return 1, 0, ko, key
    if point == ko:
        return 2, 0, ko, key
    board[point] = colour
    key ^= words[point, colour]
    other = 3 - colour
    captured, last = 0, -1
    for side in range(4):
        beside = work.neighbours[point, side]
        if beside >= 0 and board[beside] == other and not has_liberty(board, work, beside):
            count, key = lift(board, work, beside, words, key)
            captured += count
            last = beside
    if captured == 0:
        if not has_liberty(board, work, point):
            _, key = lift(board, work, point, words, key)
            return 3, 0, -1, key
        return 0, 0, -1, key
    if captured == 1:
        stones, liberties = walk(board, work, point)
        if stones == 1 and liberties == 1:
            return 0, 1, last, key
    return 0, captured, -1, key


@njit(cache=True, nogil=True)
def position_key(board, words):
    """The hash of a position from nothing."""
    key = np.uint64(0)
    for point in range(len(board)):
        key ^= words[point, board[point]]
    return key


@njit(cache=True, nogil=True)
def replay(board, work, points, colours, suicide, words):
    """Play a whole game on `board`, which holds its setup stones.

    Args:
        points: (moves) int16, size² is a pass.
        colours: (moves) int8.
        suicide: whether the rules of this game allow it.

    Returns:
        (status, the index of the move that was refused, or the number of moves).
    """
    ko = -1
    passing = len(board)
    key = np.uint64(0)
    for index in range(len(points)):
        if points[index] == passing:
            ko = -1
            continue
        if points[index] < 0 or points[index] > passing:
            return 4, index
        status, _, ko, key = play(board, work, points[index], colours[index], ko, words, key)
        if status != 0 and not (status == 3 and suicide):
            return status, index
    return 0, len(points)


@njit(cache=True, nogil=True)
def legal(board, work, colour, ko, words, key, seen, suicide, out):
    """Mark in `out` (size², bool) where `colour` may play.

    Args:
        seen: (n) uint64, hashes of all positions so far; a move that makes one of them again breaks
            positional superko (Tromp-Taylor). Empty: simple ko alone.
    """
    trial = board.copy()
    for point in range(len(board)):
        out[point] = False
        if board[point] != 0 or point == ko:
            continue
        free = False
        for side in range(4):
            beside = work.neighbours[point, side]
            if beside >= 0 and board[beside] == 0:
                free = True
        if free and len(seen) == 0:
            out[point] = True
            continue
        trial[:] = board
        status, _, _, after = play(trial, work, point, colour, ko, words, key)
        if status == 3 and not suicide:
            continue
        out[point] = True
        for index in range(len(seen)):
            if seen[index] == after:
                out[point] = False
                break
    return out
