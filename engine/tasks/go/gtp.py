"""A GTP 2 engine: every required command of the specification, fixed and free handicap, time settings.

Go Text Protocol version 2, draft 2 (Farnebäck 2002). `play` refuses illegal moves, `genmove` passes and resigns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np

from engine.errors import UnderstudyError, UsageError
from engine.tasks.go.board import GoBoard
from engine.tasks.go.player import Player
from engine.tasks.go.playouts import estimate
from engine.tasks.go.records import BadRecord, board_of, read_record
from engine.tasks.go.rules import BLACK, WHITE

_COLOURS = {"b": BLACK, "black": BLACK, "w": WHITE, "white": WHITE}


class GtpError(Exception):
    """Answered with `?`; the session goes on."""


class GtpEngine:
    """Answers commands on one board.

    Args:
        size: the board that the net was made for; others are refused, as GTP has it.
    """

    def __init__(self, player: Player, *, size: int, version: str) -> None:
        self.player, self.version = player, version
        self._size = size
        self.board = GoBoard(size)
        self.commands: dict[str, Callable[[list[str]], str]] = {
            name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }
        self.ended = False

    def run(self, commands: TextIO = sys.stdin, answers: TextIO = sys.stdout) -> None:
        """Answer until `quit` or the end of input."""
        for line in commands:
            answer = self.answer(line)
            if answer:
                answers.write(answer)
                answers.flush()
            if self.ended:
                return

    def answer(self, line: str) -> str:
        """The response to one line, with its two line ends; empty for a line without a command."""
        words = "".join(c for c in line.split("#")[0].replace("\t", " ") if c.isprintable()).split()
        number = words.pop(0) if words and words[0].isdecimal() else ""
        if not words:
            return ""
        name, arguments = words[0], words[1:]
        try:
            if name not in self.commands:
                raise GtpError("unknown command")
            said = self.commands[name](arguments)
        except GtpError as error:
            return f"?{number} {error}\n\n"
        except UnderstudyError as error:
            return f"?{number} {error.message}\n\n"
        return f"={number} {said}".rstrip() + "\n\n"

    def do_protocol_version(self, _: list[str]) -> str:
        return "2"

    def do_name(self, _: list[str]) -> str:
        return "Understudy"

    def do_version(self, _: list[str]) -> str:
        return self.version

    def do_known_command(self, words: list[str]) -> str:
        return "true" if words and words[0] in self.commands else "false"

    def do_list_commands(self, _: list[str]) -> str:
        return "\n".join(sorted(self.commands))

    def do_quit(self, _: list[str]) -> str:
        self.ended = True
        return ""

    def do_boardsize(self, words: list[str]) -> str:
        size = _whole(words, 0)
        if size != self._size:
            raise GtpError("unacceptable size")
        self.board = GoBoard(size, self.board.komi)
        return ""

    def do_clear_board(self, _: list[str]) -> str:
        self.board.clear()
        return ""

    def do_komi(self, words: list[str]) -> str:
        try:
            komi = float(words[0])
        except (IndexError, ValueError):
            raise GtpError("komi not a float") from None
        if not abs(komi) < 1000:
            raise GtpError("komi not a float")
        self.board.komi = komi
        return ""

    def do_play(self, words: list[str]) -> str:
        if len(words) < 2:
            raise GtpError("invalid color or coordinate")
        colour = _colour(words[0])
        if words[1].lower() == "resign":
            return ""
        try:
            self.board.play(self.board.point(words[1]), colour)
        except UsageError as error:
            known = error.message.startswith("no point")
            raise GtpError("invalid color or coordinate" if known else "illegal move") from None
        return ""

    def do_genmove(self, words: list[str]) -> str:
        colour = _colour(words[0] if words else "")
        point = self.player.choose(self.board, colour)
        if point is None:
            return "resign"
        self.board.play(point, colour)
        return self.board.name(point)

    def do_reg_genmove(self, words: list[str]) -> str:
        point = self.player.choose(self.board, _colour(words[0] if words else ""), resigns=False)
        assert point is not None
        return self.board.name(point)

    def do_undo(self, _: list[str]) -> str:
        if not self.board.moves:
            raise GtpError("cannot undo")
        self.board.undo()
        return ""

    def do_fixed_handicap(self, words: list[str]) -> str:
        self._must_be_empty()
        try:
            points = self.board.fixed_handicap(_whole(words, 0))
        except UsageError:
            raise GtpError("invalid number of stones") from None
        return self._handicap(points)

    def do_place_free_handicap(self, words: list[str]) -> str:
        """The fixed points where there are so many, else as many as there are (section 6.3.2 allows fewer)."""
        self._must_be_empty()
        count = _whole(words, 0)
        if count < 2:
            raise GtpError("invalid number of stones")
        while True:
            try:
                return self._handicap(self.board.fixed_handicap(count))
            except UsageError:
                count -= 1
                if count < 2:
                    raise GtpError("invalid number of stones") from None

    def do_set_free_handicap(self, words: list[str]) -> str:
        self._must_be_empty()
        try:
            points = [self.board.point(word) for word in words]
        except UsageError:
            raise GtpError("bad vertex list") from None
        if not 2 <= len(points) < self.board.passing or len(set(points)) < len(points):
            raise GtpError("bad vertex list")
        if self.board.passing in points:
            raise GtpError("bad vertex list")
        self._handicap(points)
        return ""

    def do_time_settings(self, words: list[str]) -> str:
        """Taken and not needed: a move takes a fraction of a second."""
        for index in range(3):
            _whole(words, index)
        return ""

    def do_time_left(self, words: list[str]) -> str:
        _colour(words[0] if words else "")
        for index in (1, 2):
            _whole(words, index)
        return ""

    def do_final_score(self, _: list[str]) -> str:
        lead = self._settled().area_score()
        return f"B+{lead:g}" if lead > 0 else f"W+{-lead:g}" if lead < 0 else "0"

    def do_final_status_list(self, words: list[str]) -> str:
        wanted = words[0] if words else ""
        if wanted not in ("alive", "dead", "seki"):
            raise GtpError("invalid status")
        alive = self._settled().points != 0
        stones = self.board.points != 0
        chosen = {"alive": stones & alive, "dead": stones & ~alive, "seki": stones & False}[wanted]
        return " ".join(self.board.name(int(point)) for point in np.flatnonzero(chosen))

    def do_showboard(self, _: list[str]) -> str:
        return "\n" + self.board.display(ascii_only=True)

    def do_loadsgf(self, words: list[str]) -> str:
        try:
            record = read_record(Path(words[0]).read_bytes())
        except (IndexError, OSError, BadRecord):
            raise GtpError("cannot load file") from None
        if record.size != self._size:
            raise GtpError("unacceptable size")
        self.board = board_of(record, max(0, _whole(words, 1) - 1) if len(words) > 1 else None)
        return ""

    def _must_be_empty(self) -> None:
        if self.board.points.any():
            raise GtpError("board not empty")

    def _handicap(self, points: list[int]) -> str:
        self.board.clear()
        self.board.place([(BLACK, point) for point in points])
        return " ".join(self.board.name(point) for point in points)

    def _settled(self) -> GoBoard:
        """The board without the stones that playouts say are dead."""
        board = GoBoard(self.board.size, self.board.komi)
        owner = estimate(self.board).owner
        board.points = self.board.points.copy()
        board.points[(board.points == BLACK) & (owner < 0)] = 0
        board.points[(board.points == WHITE) & (owner > 0)] = 0
        return board


def _colour(word: str) -> int:
    colour = _COLOURS.get(word.lower())
    if colour is None:
        raise GtpError("invalid color or coordinate")
    return colour


def _whole(words: list[str], index: int) -> int:
    try:
        return int(words[index])
    except (IndexError, ValueError):
        raise GtpError("not an integer") from None
