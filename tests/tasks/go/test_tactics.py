"""Reading by force: ladders that work and do not, and what a move wins or leaves."""

from __future__ import annotations

import numpy as np
import pytest

from engine.tasks.go import rules
from engine.tasks.go.board import GoBoard
from engine.tasks.go.player import Player
from engine.tasks.go.rules import BLACK, WHITE
from engine.tasks.go.tactics import gains, rescues, taken


def board_of(black: str, white: str, size: int = 9) -> GoBoard:
    board = GoBoard(size)
    board.place([(BLACK, board.point(name)) for name in black.split()])
    board.place([(WHITE, board.point(name)) for name in white.split()], BLACK)
    return board


def is_taken(board: GoBoard, name: str, *, attack: bool) -> bool:
    boards = np.zeros((60, board.passing), np.int8)
    boards[0] = board.points
    moves = np.zeros((60, board.passing + 2), np.int64)
    words = rules.zobrist(board.size)
    return bool(taken(boards, moves, rules.scratch(board.size), words, board.point(name), attack, 200))


@pytest.mark.parametrize(
    ("black", "white", "attack", "falls"),
    [
        ("C3 C5 D4", "C4", True, True),  # one liberty, and the attacker's turn
        ("C2 D2 E3 B3", "D3 C3", True, True),  # a ladder over the empty board
        ("C2 D2 E3 B3", "D3 C3 B5 F6", True, False),  # a stone of its own on either way
        ("C2 B3 E3 D2 C4 D5", "C3 D3 B4", False, True),  # it cannot run,
        ("C2 B3 E3 D2 C4 D5", "C3 D3 B4 C5", False, False),  # but it can take an attacker
        ("A2 B2 D1", "A1 B1", False, True),  # nowhere to run on the edge
    ],
)
def test_a_chain_falls_or_not(black: str, white: str, attack: bool, falls: bool) -> None:
    board = board_of(black, white)
    assert is_taken(board, white.split()[0], attack=attack) is falls


def test_what_a_move_wins_and_leaves() -> None:
    board = board_of("B4 C4 D4 B5 H9", "A4 A5 B6 C5 D5 B3 C3 D3")
    # four black stones in B4 have one liberty, E4: who does not run leaves them
    run, elsewhere = gains(board, BLACK, [board.point("E4"), board.point("G7")])
    assert run > elsewhere
    assert elsewhere <= -4
    assert board.point("E4") in rescues(board, BLACK, 4)
    assert rescues(board, BLACK, 5) == []


def test_a_player_saves_a_chain_though_the_net_would_rather_play_elsewhere() -> None:
    board = board_of("B4 C4 D4 B5 H9", "A4 A5 B6 C5 D5 B3 C3 D3")

    def net(planes: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(planes), board.passing), np.float32)
        logits[:, board.point("G7")], logits[:, board.point("E4")] = 0.4, 0.2
        return logits

    assert board.name(Player(net, averaged=False).choose(board) or 0) == "E4"
