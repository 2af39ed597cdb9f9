"""The player and its GTP engine, with nets that are easy to foresee."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.cli import go_play
from engine.tasks.go.board import GoBoard
from engine.tasks.go.gtp import GtpEngine
from engine.tasks.go.player import Player, input_planes
from engine.tasks.go.playouts import estimate
from engine.tasks.go.rules import BLACK, EMPTY, WHITE

# GTP 2, section 6.2: what every engine must answer
REQUIRED = {
    "protocol_version", "name", "version", "known_command", "list_commands", "quit", "boardsize", "clear_board",
    "komi", "play", "genmove",
}  # fmt: skip


def favours(*names: str, size: int = 9):
    """A net that likes these points of an unturned board, in this order."""
    board = GoBoard(size)

    def net(planes: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(planes), size * size), np.float32)
        for rank, name in enumerate(names):
            logits[:, board.point(name)] = 10 - rank
        return logits

    return net


def player(*names: str, size: int = 9) -> Player:
    return Player(favours(*names, size=size), averaged=False)


def test_moves_are_shown_to_people_under_the_slots_title() -> None:
    board = GoBoard(9)
    found = player("E5").suggest(board, 2)
    assert "black to play, TO-BE\n" in go_play._drawn(board, found, True, "tobe")
    assert "black to play\n" in go_play._drawn(board, found, True)


def test_only_legal_moves_are_suggested_best_first() -> None:
    board = GoBoard(9)
    board.play(board.point("E5"))
    found = player("E5", "C3", "G7").suggest(board, 2)
    assert [board.name(one.point) for one in found] == ["C3", "G7"]
    assert found[0].confidence > found[1].confidence > 0


def test_the_eight_symmetries_are_turned_back_before_they_are_averaged() -> None:
    board = GoBoard(9)
    board.play(board.point("C4"))
    size = 9

    def beside_the_last_move(planes: np.ndarray) -> np.ndarray:
        logits = np.full((len(planes), size * size), -20, np.float32)
        for row, plane in enumerate(planes):
            logits[row, int(np.argmax(plane[8].reshape(-1) * 0 + plane[10].reshape(-1)))] = 0
            where = divmod(int(np.argmax(plane[10])), size)
            for up, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                if 0 <= where[0] + up < size and 0 <= where[1] + right < size:
                    logits[row, (where[0] + up) * size + where[1] + right] = 10
        return logits

    shares = Player(beside_the_last_move).probabilities(board)
    best = {board.name(int(point)) for point in np.argsort(-shares)[:4]}
    assert best == {"C5", "C3", "B4", "D4"}
    assert shares.sum() == pytest.approx(1)


def test_own_eyes_are_left_and_a_full_board_is_passed() -> None:
    board = GoBoard(5, komi=0.5)
    rows = ["A1 B2 A3 B4 A5", "B1 B3 B5 C1 C2 C3 C4 C5"]
    board.place([(BLACK, board.point(name)) for name in " ".join(rows).split()], BLACK)
    board.place([])
    choice = player("A2", "A4", size=5).choose(board)
    assert choice is not None
    assert board.name(choice) not in ("A2", "A4")


def test_playouts_see_whose_points_are_whose() -> None:
    board = GoBoard(9, komi=0.5)
    wall = [(BLACK, board.point(f"E{row}")) for row in range(1, 10)]
    wall += [(WHITE, board.point(f"F{row}")) for row in range(1, 10)]
    board.place(wall, BLACK)
    said = estimate(board, seed=1)
    assert said.owner[board.point("E5")] > 0.4
    assert said.owner[board.point("F5")] < -0.4
    assert said.lead > 0
    assert estimate(board, seed=1).lead == said.lead


def test_a_hopeless_late_game_is_resigned_and_not_by_the_one_who_leads() -> None:
    board = GoBoard(5, komi=0.5)
    for name in ["C1", "C2", "C3", "C4", "C5", "B2", "B4", "D2", "D4"]:
        board.play(board.point(name), BLACK)
        board.play(board.passing, WHITE)
    board.play(board.point("A3"), BLACK)
    assert player("D3", size=5).choose(board, WHITE) is None
    assert player("D3", size=5).choose(board, BLACK) is not None


@pytest.fixture
def gtp() -> GtpEngine:
    return GtpEngine(player("E5", "C3", "G7"), size=9, version="1")


def test_every_required_command_is_known(gtp: GtpEngine) -> None:
    listed = set(gtp.answer("list_commands").removeprefix("=").split())
    assert listed >= REQUIRED
    for name in listed:
        assert gtp.answer(f"known_command {name}") == "= true\n\n"
    assert gtp.answer("known_command dance") == "= false\n\n"


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (["7 protocol_version"], "=7 2\n\n"),
        (["  3   name # a comment"], "=3 Understudy\n\n"),
        ([""], ""),
        (["# only a comment"], ""),
        (["boardsize 9"], "=\n\n"),
        (["boardsize 19"], "? unacceptable size\n\n"),
        (["boardsize nine"], "? not an integer\n\n"),
        (["komi x"], "? komi not a float\n\n"),
        (["play b e5", "play w E5"], "? illegal move\n\n"),
        (["play b z9"], "? invalid color or coordinate\n\n"),
        (["play purple a1"], "? invalid color or coordinate\n\n"),
        (["play b pass", "play w RESIGN"], "=\n\n"),
        (["genmove b"], "= E5\n\n"),
        (["genmove b", "genmove white"], "= C3\n\n"),
        (["undo"], "? cannot undo\n\n"),
        (["play b e5", "undo", "play w e5"], "=\n\n"),
        (["fixed_handicap 4"], "= C3 G7 C7 G3\n\n"),
        (["fixed_handicap 9", "clear_board", "fixed_handicap 12"], "? invalid number of stones\n\n"),
        (["play b a1", "fixed_handicap 2"], "? board not empty\n\n"),
        (["set_free_handicap A1 B2 C3"], "=\n\n"),
        (["set_free_handicap A1 A1"], "? bad vertex list\n\n"),
        (["set_free_handicap A1 Z9"], "? bad vertex list\n\n"),
        (["place_free_handicap 30"], "= C3 G7 C7 G3 C5 G5 E3 E7 E5\n\n"),
        (["time_settings 300 30 5", "time_left b 120 0"], "=\n\n"),
        (["dance"], "? unknown command\n\n"),
        (["loadsgf /nowhere"], "? cannot load file\n\n"),
        (["final_status_list lost"], "? invalid status\n\n"),
    ],
)
def test_answers(gtp: GtpEngine, lines: list[str], last: str) -> None:
    assert [gtp.answer(line) for line in lines][-1] == last


def test_a_game_file_is_loaded_up_to_a_move(gtp: GtpEngine, tmp_path: Path) -> None:
    (tmp_path / "g.sgf").write_text("(;SZ[9]AB[aa];W[ee];B[cc];W[dd])")
    assert gtp.answer(f"loadsgf {tmp_path / 'g.sgf'} 2") == "=\n\n"
    assert [name for _, name in gtp.board.moves] == [gtp.board.point("E5")]
    assert gtp.board.points[gtp.board.point("A9")] == BLACK


def test_a_recorded_suicide_is_loaded_and_the_move_after_it_taken_back(gtp: GtpEngine, tmp_path: Path) -> None:
    (tmp_path / "g.sgf").write_text("(;SZ[9]RU[NZ];B[ba];W[ee];B[ab];W[aa];B[cc]PL[B])")
    assert gtp.answer(f"loadsgf {tmp_path / 'g.sgf'}") == "=\n\n"
    assert gtp.board.to_play == BLACK
    assert gtp.answer("undo") == "=\n\n"
    assert gtp.board.points[gtp.board.point("A9")] == EMPTY


def test_dead_stones_are_listed_and_not_counted(gtp: GtpEngine) -> None:
    board = gtp.board
    board.komi = 0.5
    board.place([(BLACK, board.point(f"E{row}")) for row in range(1, 10)]
                + [(WHITE, board.point(f"F{row}")) for row in range(1, 10)]
                + [(WHITE, board.point("A1"))], BLACK)  # fmt: skip
    assert gtp.answer("final_status_list dead") == "= A1\n\n"
    assert gtp.answer("final_score") == "= B+8.5\n\n"


def test_planes_of_a_board_are_those_of_training(tmp_path: Path) -> None:
    from engine.tasks.go.positions import positions
    from engine.tasks.go.records import read_record
    from engine.tasks.go.shards import read_shard, shard_bytes

    text = b"(;SZ[9]AB[ba]AW[ea];B[aa];W[dd];B[dc];W[ab];B[gg];W[bb];B[cd])"
    record = read_record(text)
    (tmp_path / "s.npz").write_bytes(shard_bytes([record]))
    found = positions(read_shard(tmp_path / "s.npz"), 9)
    board = GoBoard(9)
    board.place([(int(colour), int(point)) for colour, point in record.setup])
    for index, (colour, point) in enumerate(record.moves.tolist()):
        for turn in (0, 3, 5):
            trained = found.batch(np.array([index]), np.array([turn]))[0][0]
            assert np.array_equal(input_planes(board, colour, turn), trained)
        board.play(point, colour)
