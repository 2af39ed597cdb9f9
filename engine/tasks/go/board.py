"""A game of Go as a person or a program plays it: moves are checked, taken back, scored and drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.errors import UsageError
from engine.tasks.go import rules
from engine.tasks.go.rules import BLACK, EMPTY, WHITE

COLUMNS = "ABCDEFGHJKLMNOPQRSTUVWXYZ"
_SIGNS = {EMPTY: "·", BLACK: "●", WHITE: "○"}
_ASCII = {EMPTY: ".", BLACK: "X", WHITE: "O"}
_HOSHI = {9: (2, 4, 6), 13: (3, 6, 9), 19: (3, 9, 15)}
# GTP 2, section 4.1.1: fixed handicap points as (row, column) signs: -1 low, 0 middle, 1 high
_FIXED = ((-1, -1), (1, 1), (1, -1), (-1, 1), (0, -1), (0, 1), (-1, 0), (1, 0))


def point_names(size: int) -> list[str]:
    """A class for each point, row 0 at the bottom: A1, B1, ..."""
    return [f"{COLUMNS[column]}{row + 1}" for row in range(size) for column in range(size)]


class GoBoard:
    """A game: its position, whose turn it is, and the moves that led to it.

    Positional superko, no suicide, area scoring (Tromp-Taylor): what programs play by.
    """

    def __init__(self, size: int = 19, komi: float = 7.5) -> None:
        if not 2 <= size <= rules.LARGEST:
            raise UsageError(f"a board of size {size}", f"use a size from 2 to {rules.LARGEST}")
        self.size, self.komi = size, komi
        self._work = rules.scratch(size)
        self._words = rules.zobrist(size)
        self.clear()

    def clear(self) -> None:
        """The empty board, black to play."""
        self.points: NDArray[np.int8] = np.zeros(self.size * self.size, np.int8)
        self.to_play = BLACK
        self.ko = -1
        self.captured = {BLACK: 0, WHITE: 0}  # stones that this colour has lost
        self.moves: list[tuple[int, int]] = []
        self.setup: list[tuple[int, int]] = []
        self._key = np.uint64(0)
        self._seen = [self._key]

    @property
    def passing(self) -> int:
        return self.size * self.size

    def place(self, stones: list[tuple[int, int]], to_play: int | None = None) -> None:
        """Put setup stones `(colour, point)` on a board on which nothing was played.

        Raises:
            UsageError: a stone lies on another, or one chain has no liberty.
        """
        for colour, point in stones:
            if self.points[point] != EMPTY:
                raise UsageError(f"two stones on {self.name(point)}", "place each stone on an empty point")
            self.points[point] = colour
        for _, point in stones:
            if not rules.has_liberty(self.points, self._work, point):
                raise UsageError(f"the stone on {self.name(point)} has no liberty", "set up a legal position")
        self.setup += stones
        self.to_play = to_play or (WHITE if stones and all(c == BLACK for c, _ in stones) else self.to_play)
        self._key = np.uint64(rules.position_key(self.points, self._words))
        self._seen = [self._key]

    def legal_moves(self, colour: int | None = None) -> NDArray[np.bool_]:
        """(size²) where `colour`, or whose turn it is, may play a stone."""
        seen = np.array(self._seen, np.uint64)
        out = np.zeros(self.passing, np.bool_)
        return np.asarray(
            rules.legal(
                self.points, self._work, colour or self.to_play, self.ko, self._words, self._key, seen, False, out
            )
        )

    def play(self, point: int, colour: int | None = None, *, recorded: bool = False) -> None:
        """Play a stone, or pass.

        Args:
            recorded: a move of a record that was checked by its own rules, which may allow suicide and superko.

        Raises:
            UsageError: the move is against the rules; nothing has changed.
        """
        colour = colour or self.to_play
        if point != self.passing:
            if not 0 <= point < self.passing:
                raise UsageError(f"no point {point} on a board of size {self.size}")
            after = self.points.copy()
            status, captured, ko, key = rules.play(
                after, self._work, point, colour, self.ko, self._words, self._key
            )
            if status == rules.OK and key in self._seen and not recorded:
                status = rules.KO
            if status != rules.OK and not (recorded and status == rules.SUICIDE):
                raise UsageError(f"{self.name(point)} {rules.REASONS[status]}", "play another point, or pass")
            self.points, self.ko, self._key = after, ko, np.uint64(key)
            self.captured[3 - colour] += captured
        else:
            self.ko = -1
        self._seen.append(self._key)
        self.moves.append((colour, point))
        self.to_play = 3 - colour

    def undo(self) -> None:
        """Take the last move back.

        Raises:
            UsageError: nothing was played.
        """
        if not self.moves:
            raise UsageError("no move to take back", "play one first")
        moves, setup = self.moves[:-1], self.setup
        first = moves[0][0] if moves else self.moves[0][0]
        self.clear()
        if setup:
            self.place(setup)
        self.to_play = first
        for colour, point in moves:
            self.play(point, colour, recorded=True)

    def recent(self, count: int) -> NDArray[np.int16]:
        """The last `count` moves, newest first; -1 where there were fewer or one was a pass."""
        found = np.full(count, -1, np.int16)
        for index, (_, point) in enumerate(reversed(self.moves[-count:])):
            found[index] = point if point != self.passing else -1
        return found

    def area_score(self) -> float:
        """Black's area less white's area and komi, all stones alive (Tromp-Taylor)."""
        owned = {BLACK: int((self.points == BLACK).sum()), WHITE: int((self.points == WHITE).sum())}
        near = rules.neighbours(self.size)
        seen = set(np.flatnonzero(self.points).tolist())
        for start in range(self.passing):
            if start in seen:
                continue
            region, touched, index = [start], set(), 0
            seen.add(start)
            while index < len(region):
                for beside in near[region[index]].tolist():
                    if beside < 0:
                        continue
                    if self.points[beside]:
                        touched.add(int(self.points[beside]))
                    elif beside not in seen:
                        seen.add(beside)
                        region.append(beside)
                index += 1
            if len(touched) == 1:
                owned[touched.pop()] += len(region)
        return owned[BLACK] - owned[WHITE] - self.komi

    def name(self, point: int) -> str:
        """A point as people and GTP say it: `Q16`, `pass`."""
        if point == self.passing:
            return "pass"
        row, column = divmod(int(point), self.size)
        return f"{COLUMNS[column]}{row + 1}"

    def point(self, name: str) -> int:
        """The point that a name like `q16` or `pass` says.

        Raises:
            UsageError: no such point on this board.
        """
        word = name.strip().upper()
        if word == "PASS":
            return self.passing
        column = COLUMNS.find(word[:1]) if word else -1
        row = int(word[1:]) - 1 if word[1:].isdecimal() else -1
        if not (0 <= column < self.size and 0 <= row < self.size):
            last = f"{COLUMNS[self.size - 1]}{self.size}"
            raise UsageError(f"no point '{name}' on this board", f"name one from A1 to {last}, or pass")
        return row * self.size + column

    def fixed_handicap(self, stones: int) -> list[int]:
        """The points of GTP's fixed handicap (GTP 2 specification, section 4.1.1).

        Raises:
            UsageError: this board has no fixed points for so many stones.
        """
        size = self.size
        most = 9 if size % 2 and size >= 9 else 4 if size >= 7 else 0
        if not 2 <= stones <= most:
            allowed = f"2 to {most}" if most else "none"
            raise UsageError(f"{stones} handicap stones on a board of size {size}", f"allowed: {allowed}")
        low = 3 if size >= 13 else 2
        places = {-1: low, 0: size // 2, 1: size - 1 - low}
        signs = list(_FIXED[: stones if stones in (2, 3, 4, 6, 8) else stones - 1])
        if stones in (5, 7, 9):
            signs.append((0, 0))
        return [places[row] * size + places[column] for row, column in signs]

    def display(self, marks: dict[int, str] | None = None, *, ascii_only: bool = False) -> str:
        """The board as text, the last move in brackets; `marks` writes a sign over an empty point."""
        signs = _ASCII if ascii_only else _SIGNS
        stars = _HOSHI.get(self.size, ())
        last = self.moves[-1][1] if self.moves else -1
        header = "   " + " ".join(COLUMNS[: self.size])
        lines = [header]
        for row in reversed(range(self.size)):
            text = f"{row + 1:2d} "
            for column in range(self.size):
                point = row * self.size + column
                sign = signs[int(self.points[point])]
                if self.points[point] == EMPTY and row in stars and column in stars:
                    sign = "+"
                if marks and point in marks and self.points[point] == EMPTY:
                    sign = marks[point]
                text = text[:-1] + f"({sign})" if point == last else text + f"{sign} "
            lines.append(f"{text.rstrip()}".ljust(3 + 2 * self.size) + f"{row + 1}")
        return "\n".join([*lines, header])
