"""Two programs that speak GTP, against each other."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_PASS, _RESIGN = "pass", "resign"
_LONGEST = 700  # moves; a game without an end is a fault of one side and counts for nobody


class GtpFault(Exception):
    """A program has answered with `?`, or has gone away."""


class Program:
    """A child process that answers GTP commands."""

    def __init__(self, command: Sequence[str]) -> None:
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, command: str) -> str:
        """The answer without its sign.

        Raises:
            GtpFault: it refused, or has ended.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(command + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise GtpFault(f"{command}: the program has ended") from None
        lines: list[str] = []
        while (line := self._child.stdout.readline()) != "\n" or not lines:
            if not line:
                raise GtpFault(f"{command}: the program has ended")
            if line != "\n":
                lines.append(line.rstrip("\n"))
        if not lines[0].startswith("="):
            raise GtpFault(f"{command}: {lines[0]}")
        return "\n".join([lines[0][1:].strip(), *lines[1:]])

    def close(self) -> None:
        with contextlib.suppress(GtpFault):
            self.ask("quit")
        self._child.wait(timeout=10)


@contextlib.contextmanager
def program(command: Sequence[str]) -> Iterator[Program]:
    found = Program(command)
    try:
        yield found
    finally:
        found.close()


@dataclass(frozen=True)
class Game:
    """One game: `moves` as (colour, name), the score as GTP has it (`B+3.5`, `W+R` for a resignation)."""

    black: str
    white: str
    score: str
    moves: list[tuple[str, str]]

    @property
    def winner(self) -> str | None:
        """Who won by name; None for a game without a winner."""
        return {"B": self.black, "W": self.white}.get(self.score[:1])


def play_game(players: dict[str, Program], black: str, white: str, *, size: int, komi: float, judge: str) -> Game:
    """Play one game out.

    Args:
        players: programs by name.
        judge: whose `final_score` counts after two passes. An illegal move loses at once.
    """
    for player in players.values():
        for command in (f"boardsize {size}", "clear_board", f"komi {komi}"):
            player.ask(command)
    moves: list[tuple[str, str]] = []
    sides = (("B", black, white), ("W", white, black))
    while len(moves) < _LONGEST:
        colour, mover, other = sides[len(moves) % 2]
        move = players[mover].ask(f"genmove {colour}").lower()
        moves.append((colour, move))
        if move == _RESIGN:
            return Game(black, white, f"{'W' if colour == 'B' else 'B'}+R", moves)
        try:
            players[other].ask(f"play {colour} {move}")
        except GtpFault:
            return Game(black, white, f"{'W' if colour == 'B' else 'B'}+F", moves)
        if move == _PASS and len(moves) > 1 and moves[-2][1] == _PASS:
            return Game(black, white, players[judge].ask("final_score"), moves)
    return Game(black, white, "0", moves)


def game_record(game: Game, size: int, komi: float) -> str:
    """The game as SGF, to look at what happened."""

    def place(name: str) -> str:
        if name in (_PASS, _RESIGN):
            return ""
        column = "abcdefghjklmnopqrstuvwxyz".index(name[0])
        return chr(97 + column) + chr(97 + size - int(name[1:]))

    nodes = "".join(f";{colour}[{place(name)}]" for colour, name in game.moves if name != _RESIGN)
    return f"(;GM[1]FF[4]SZ[{size}]KM[{komi}]PB[{game.black}]PW[{game.white}]RE[{game.score}]{nodes})"
