"""GTP between real programs: GNU Go on the other side, as in `bench go`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks._gtp import GtpFault, game_record, play_game, program
from engine.tasks.go.gtp import GtpEngine
from engine.tasks.go.player import Player
from engine.tasks.go.records import board_of, read_record

GNUGO = shutil.which("gnugo") or ("/usr/games/gnugo" if Path("/usr/games/gnugo").exists() else None)
SIZE = 7


class Here:
    """Our engine without a process of its own."""

    def __init__(self) -> None:
        self._engine = GtpEngine(Player(_centre, averaged=False), size=SIZE, version="1")

    def ask(self, command: str) -> str:
        said = self._engine.answer(command).strip()
        if said.startswith("?"):
            raise GtpFault(said)
        return said.removeprefix("=").strip()


def _centre(planes: np.ndarray) -> np.ndarray:
    """Likes the middle of the board."""
    row, column = np.divmod(np.arange(SIZE * SIZE), SIZE)
    away = np.hypot(row - SIZE // 2, column - SIZE // 2).astype(np.float32)
    return np.repeat(-away[None], len(planes), 0)


@pytest.mark.skipif(GNUGO is None, reason="gnugo is not installed (apt install gnugo)")
@pytest.mark.parametrize("black", ["understudy", "gnugo"])
def test_a_game_with_gnu_go_ends_by_its_rules(black: str) -> None:
    white = {"understudy": "gnugo", "gnugo": "understudy"}[black]
    command = [str(GNUGO), "--mode", "gtp", "--level", "1", "--chinese-rules", "--seed", "1"]
    with program(command) as gnugo:
        players = {"understudy": Here(), "gnugo": gnugo}
        game = play_game(players, black, white, size=SIZE, komi=7.5, judge="gnugo")  # type: ignore[arg-type]
    assert game.winner in players
    assert not game.score.endswith("F"), "no move was refused by the other side"
    assert len(game.moves) >= 10
    record = read_record(game_record(game, SIZE, 7.5).encode())
    assert board_of(record).size == SIZE


def test_an_illegal_move_loses() -> None:
    class Stubborn(Here):
        def ask(self, command: str) -> str:
            return "D4" if command.startswith("genmove") else super().ask(command)

    game = play_game({"a": Stubborn(), "b": Stubborn()}, "a", "b", size=SIZE, komi=7.5, judge="a")  # type: ignore[dict-item]
    assert (game.score, game.winner) == ("W+F", "b")
