"""The compiled rules, against sgfmill position by position, and by hand where sgfmill says nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sgfmill import boards

from engine.errors import UsageError
from engine.tasks.go import rules
from engine.tasks.go.board import GoBoard
from engine.tasks.go.rules import BLACK, WHITE

NAMES = {BLACK: "b", WHITE: "w"}


def colours_of(board: boards.Board) -> list[int]:
    known = {None: 0, "b": BLACK, "w": WHITE}
    return [known[board.get(row, column)] for row in range(board.side) for column in range(board.side)]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([2, 3, 5, 7, 9, 19]), st.integers(0, 2**32), st.floats(0, 1))
def test_captures_ko_and_suicide_are_sgfmills(size: int, seed: int, alternate: float) -> None:
    draw = random.Random(seed)
    ours, theirs = np.zeros(size * size, np.int8), boards.Board(size)
    work, words = rules.scratch(size), rules.zobrist(size)
    ko, key, colour = -1, np.uint64(0), BLACK
    for _ in range(3 * size * size):
        point = draw.randrange(size * size)
        before = ours.copy()
        status, captured, next_ko, next_key = rules.play(ours, work, point, colour, ko, words, key)
        if status in (rules.OCCUPIED, rules.KO):
            assert np.array_equal(ours, before)
            if status == rules.OCCUPIED:
                with pytest.raises(ValueError, match=r"^$"):
                    theirs.play(*divmod(point, size), NAMES[colour])
            continue
        forbidden = theirs.play(*divmod(point, size), NAMES[colour])
        assert ours.tolist() == colours_of(theirs)
        assert next_ko == (-1 if forbidden is None else forbidden[0] * size + forbidden[1])
        assert captured == (before == 3 - colour).sum() - (ours == 3 - colour).sum()
        key, ko = np.uint64(next_key), next_ko
        assert key == rules.position_key(ours, words)
        if draw.random() < alternate:
            colour = 3 - colour


def stones(board: GoBoard, colour: int, names: str) -> list[tuple[int, int]]:
    return [(colour, board.point(name)) for name in names.split()]


def test_a_chain_counts_each_liberty_once() -> None:
    board = GoBoard(9)
    board.place(stones(board, BLACK, "A1 B1 B2") + stones(board, WHITE, "C1"))
    assert rules.walk(board.points, board._work, board.point("A1")) == (3, 3)


def test_simple_ko_is_forbidden_until_another_move_was_played() -> None:
    board = GoBoard(9)
    board.place(stones(board, BLACK, "B1 A2 B3") + stones(board, WHITE, "C1 D2 C3"), BLACK)
    board.play(board.point("J9"), BLACK)
    board.play(board.point("B2"), WHITE)  # one stone in atari, in the mouth of the ko
    board.play(board.point("C2"), BLACK)
    with pytest.raises(UsageError, match="ko"):
        board.play(board.point("B2"), WHITE)
    assert not board.legal_moves(WHITE)[board.point("B2")]
    board.play(board.point("J1"), WHITE)
    board.play(board.point("J2"), BLACK)
    board.play(board.point("B2"), WHITE)


def test_no_sequence_of_legal_moves_repeats_a_position() -> None:
    draw = random.Random(3)
    for size in (2, 3):
        board = GoBoard(size)
        seen = {tuple(board.points.tolist())}
        for _ in range(400):
            choices = np.flatnonzero(board.legal_moves())
            if not len(choices):
                board.play(board.passing)
                if not len(np.flatnonzero(board.legal_moves())):
                    break
                continue
            board.play(int(draw.choice(choices.tolist())))
            position = tuple(board.points.tolist())
            assert position not in seen
            seen.add(position)


def test_suicide_is_refused_and_changes_nothing() -> None:
    board = GoBoard(9)
    board.place(stones(board, BLACK, "A2 B1"), WHITE)
    with pytest.raises(UsageError, match="suicide"):
        board.play(board.point("A1"), WHITE)
    assert board.points[board.point("A1")] == 0
    assert board.moves == []


def test_undo_brings_back_the_position_captures_included() -> None:
    board = GoBoard(9)
    board.place(stones(board, BLACK, "A2") + stones(board, WHITE, "A1"), BLACK)
    before = board.points.copy()
    board.play(board.point("B1"))
    assert board.captured[WHITE] == 1
    board.undo()
    assert np.array_equal(board.points, before)
    assert board.captured[WHITE] == 0


def test_area_score_counts_stones_and_what_one_colour_surrounds() -> None:
    board = GoBoard(5, komi=0.5)
    board.place(stones(board, BLACK, "C1 C2 C3 C4 C5") + stones(board, WHITE, "D1 D2 D3 D4 D5"), BLACK)
    assert board.area_score() == 15 - 10 - 0.5


@pytest.mark.parametrize(
    ("size", "stones_", "names"),
    [
        (19, 2, {"D4", "Q16"}),
        (19, 5, {"D4", "Q16", "D16", "Q4", "K10"}),
        (19, 9, {"D4", "Q16", "D16", "Q4", "D10", "Q10", "K4", "K16", "K10"}),
        (9, 4, {"C3", "G7", "C7", "G3"}),
    ],
)
def test_fixed_handicap_lies_where_gtp_says(size: int, stones_: int, names: set[str]) -> None:
    board = GoBoard(size)
    assert {board.name(point) for point in board.fixed_handicap(stones_)} == names


def test_names_of_points_leave_out_the_letter_i() -> None:
    board = GoBoard(19)
    assert board.name(8) == "J1"
    assert board.point("j1") == 8
    for wrong in ("i1", "a20", "", "zz", "a0"):
        with pytest.raises(UsageError, match="no point"):
            board.point(wrong)


def test_the_board_is_drawn_with_its_last_move_and_marks() -> None:
    board = GoBoard(5)
    board.play(board.point("C3"))
    shown = board.display({board.point("A1"): "1"}, ascii_only=True).splitlines()
    assert shown[3].split() == ["3", ".", ".(X).", ".", "3"]
    assert shown[5].split() == ["1", "1", ".", ".", ".", ".", "1"]
    assert len({len(line) for line in shown[1:-1]}) == 1
