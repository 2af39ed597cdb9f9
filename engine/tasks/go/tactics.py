"""Short reading by the exact rules: which chains are taken by force, and what a move wins or loses by that.

A policy net sees shapes; whether a ladder works or a move leaves its own stones in atari is a matter of some moves
of reading. A chain of at most two liberties is read as players read a ladder (each attacking move is an atari, the
defender runs or takes an attacker in atari), to `_DEPTH` moves and `_BUDGET` positions; what is not read to its
end counts as safe.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from engine.tasks.go import rules
from engine.tasks.go.board import GoBoard

_DEPTH = 60
_BUDGET = 200


def gains(board: GoBoard, colour: int, candidates: Sequence[int]) -> NDArray[np.float64]:
    """(candidates) stones that each move wins by force, less those that it leaves to the opponent.

    Won: what it captures, and chains of the opponent that cannot be saved any more. Left: the largest own chain
    that the opponent can take by force with the next move.
    """
    out = np.zeros(len(candidates), np.float64)
    _gains(
        board.points,
        rules.scratch(board.size),
        rules.zobrist(board.size),
        colour,
        board.ko,
        np.asarray(candidates, np.int64),
        out,
    )
    return out


def rescues(board: GoBoard, colour: int, least: int) -> list[int]:
    """Points where a chain of `colour` of at least so many stones, which the opponent could take, might be saved:
    its liberties, and those of the attackers beside it."""
    found = np.zeros(len(board.points), np.bool_)
    _rescues(board.points, rules.scratch(board.size), rules.zobrist(board.size), colour, least, found)
    return [int(point) for point in np.flatnonzero(found)]


@njit(cache=True, nogil=True)
def few_liberties(board, work, start, out):
    """The chain of `start` in `work.stones`. Returns (stones, liberties); the first three liberties go to `out`."""
    count, _ = rules.walk(board, work, start)
    found = 0
    for index in range(count):
        for side in range(4):
            point = work.neighbours[work.stones[index], side]
            if point < 0 or board[point] != 0:
                continue
            known = False
            for earlier in range(found):
                known |= out[earlier] == point
            if not known:
                out[found] = point
                found += 1
                if found == 3:
                    return count, found
    return count, found


@njit(cache=True, nogil=True)
def taken(boards, moves, work, words, target, attack, budget):
    """Whether the chain of `target` on `boards[0]` is taken by force, the attacker to move with `attack`.

    A loop with its own stack: numba cannot load a compiled function that calls itself from its cache.

    Args:
        boards: (_DEPTH, points) int8; all but the first are working memory.
        moves: (_DEPTH, points + 2) int64, working memory: each node's moves, their number and the next one's.
        budget: positions that may be looked at.
    """
    defender = boards[0, target]
    count, following = moves.shape[1] - 2, moves.shape[1] - 1
    depth, entered = 0, False
    while True:
        attacks = attack if depth % 2 == 0 else not attack
        falls = not attacks  # where no move is left
        if not entered:
            budget -= 1
            said = _look(boards[depth], work, target, attacks, moves[depth])
            if said != 0:
                falls, ended = said > 0, True
            elif budget <= 0 or depth + 1 == len(boards):
                falls, ended = False, True
            else:
                ended = False
            moves[depth, following] = 0
            entered = True
        else:
            ended = False
        while not ended:
            if moves[depth, following] == moves[depth, count]:
                ended = True
                break
            point = moves[depth, moves[depth, following]]
            moves[depth, following] += 1
            boards[depth + 1, :] = boards[depth]
            mover = 3 - defender if attacks else defender
            status, _, _, _ = rules.play(boards[depth + 1], work, point, mover, -1, words, np.uint64(0))
            if status == 0:
                entered = False
                break
        if not ended:
            depth += 1
            continue
        while True:  # hand `falls` up to the first node whose mover is not content with it
            if depth == 0:
                return falls
            depth -= 1
            if falls != (attack if depth % 2 == 0 else not attack):
                break


@njit(cache=True, nogil=True)
def _look(board, work, target, attacks, moves):
    """1: the chain is as good as taken; -1: it is safe; 0: `moves` holds what is worth trying."""
    if board[target] == 0:
        return 1
    free = np.empty(3, np.int64)
    stones, liberties = few_liberties(board, work, target, free)
    if liberties >= 3 or (liberties == 2 and not attacks):
        return -1
    if liberties == 1 and attacks:
        return 1
    number = 0
    for index in range(liberties):
        moves[number] = free[index]
        number += 1
    if not attacks:
        chain = work.stones[:stones].copy()
        for stone in chain:
            for side in range(4):
                beside = work.neighbours[stone, side]
                if beside < 0 or board[beside] != 3 - board[target]:
                    continue
                _, left = few_liberties(board, work, beside, free)
                known = left != 1
                for earlier in range(number):
                    known |= moves[earlier] == free[0]
                if not known:
                    moves[number] = free[0]
                    number += 1
    moves[len(moves) - 2] = number
    return 0


@njit(cache=True, nogil=True)
def _worst(boards, moves, work, words, colour, attack, heads, sizes):
    """Chains of `colour` on `boards[0]` that are taken by force. Returns how many, their first stones and sizes."""
    board = boards[0]
    seen = np.zeros(len(board), np.bool_)
    free = np.empty(3, np.int64)
    found = 0
    for point in range(len(board)):
        if board[point] != colour or seen[point]:
            continue
        stones, liberties = few_liberties(board, work, point, free)
        for index in range(stones):
            seen[work.stones[index]] = True
        if liberties > (2 if attack else 1):
            continue
        if taken(boards, moves, work, words, point, attack, _BUDGET):
            heads[found] = point
            sizes[found] = stones
            found += 1
    return found


@njit(cache=True, nogil=True)
def _gains(board, work, words, colour, ko, candidates, out):
    boards, moves = np.empty((_DEPTH, len(board)), np.int8), np.empty((_DEPTH, len(board) + 2), np.int64)
    heads, sizes = np.empty(len(board), np.int64), np.empty(len(board), np.int64)
    for index in range(len(candidates)):
        boards[0][:] = board
        _, captured, _, _ = rules.play(boards[0], work, candidates[index], colour, ko, words, np.uint64(0))
        found = _worst(boards, moves, work, words, colour, True, heads, sizes)
        left = 0
        for chain in range(found):
            left = max(left, sizes[chain])
        found = _worst(boards, moves, work, words, 3 - colour, False, heads, sizes)
        out[index] = captured + sizes[:found].sum() - left


@njit(cache=True, nogil=True)
def _rescues(board, work, words, colour, least, out):
    boards, moves = np.empty((_DEPTH, len(board)), np.int8), np.empty((_DEPTH, len(board) + 2), np.int64)
    boards[0][:] = board
    heads, sizes = np.empty(len(board), np.int64), np.empty(len(board), np.int64)
    free = np.empty(3, np.int64)
    found = _worst(boards, moves, work, words, colour, True, heads, sizes)
    for chain in range(found):
        if sizes[chain] < least:
            continue
        stones, liberties = few_liberties(board, work, heads[chain], free)
        members = work.stones[:stones].copy()
        for index in range(liberties):
            out[free[index]] = True
        for stone in members:
            for side in range(4):
                beside = work.neighbours[stone, side]
                if beside >= 0 and board[beside] == 3 - colour:
                    _, left = few_liberties(board, work, beside, free)
                    for index in range(left if left < 3 else 0):
                        out[free[index]] = True
