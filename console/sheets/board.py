"""A Go board with the nets' best moves: a held-out position, the move that was played, and what each slot says."""

from __future__ import annotations

from typing import Any

from console import text
from console.desk import Desk
from console.sheets.base import Sheet
from console.view import View
from console.widgets.rows import Row
from console.words import _

COLUMNS = "ABCDEFGHJKLMNOPQRSTUVWXYZ"
TOP_K = 5
_STONES = {"X": ("●", "bold"), "O": ("○", "bold")}
_STARS = {9: (3, 5, 7), 13: (4, 7, 10), 19: (4, 10, 16)}
_SIGNS = ("abcde", "12345")  # of the first net's moves, and of the second's
_BESIDE = 30  # columns of the moves, at the board's right or below it


class Board(Sheet):
    """Asks the engine for one position at a time; arrows go to the next and to the one before."""

    cancel = "Close"
    wide = 82

    def __init__(self, desk: Desk) -> None:
        self.number = 1
        self.answer: dict[str, Any] = {}
        self.state = ""
        super().__init__(desk)
        self.heading = _("The board and the net's best moves")
        self._ask()

    def _ask(self) -> None:
        self.state = _("the engine reads the position")
        number = self.number

        def came(answer: dict[str, Any], problem: str) -> None:
            if number != self.number:
                return  # the person has gone on
            self.state, self.answer = problem, answer or self.answer
            self._show()

        self.desk.ask_engine("go", *asking(number), done=came)

    def body(self, view: View, width: int) -> list[Row]:
        if not self.answer:
            return [Row(line, "dim") for line in text.wrap(self.state, width)]
        rows = drawn(view, self.answer, width)
        if self.state:
            rows[-1] = Row(self.state, "dim").cut(width)
        return rows

    def key(self, key: str) -> bool:
        step = {"right": 1, "l": 1, "down": 1, "j": 1, "space": 1, "left": -1, "h": -1, "up": -1, "k": -1}.get(key)
        if step is None or not self.answer:
            return False
        count = max(1, int(self.answer.get("of") or 1))
        self.number = (self.number - 1 + step) % count + 1
        self._ask()
        self._show()
        return True

    def click(self, row: int) -> None:
        self.key("right")

    def _show(self) -> None:
        if self.is_mounted:
            self._placed = ()
            self.draw(self.desk.view())


def asking(number: int) -> list[str]:
    """The words behind `go` for a held-out position and both slots' moves."""
    return ["suggest", "--held-out", str(number), "--slots", "--top-k", str(TOP_K)]


def drawn(view: View, answer: dict[str, Any], width: int) -> list[Row]:
    """The board, and the moves beside it, or below where it is too narrow for that."""
    nets = nets_of(answer)
    board = _board(answer, _marks(nets))
    moves = _moves(view, answer, nets)
    across = board[0].at + 3
    if across + _BESIDE > width:
        return [row.cut(width) for row in (*board, *moves)]
    rows = []
    for index in range(max(len(board), len(moves))):
        row = Row().add(board[index]) if index < len(board) else Row()
        rows.append(row.to(across).add(moves[index]) if index < len(moves) else row)
    return [row.cut(width) for row in rows]


def nets_of(answer: dict[str, Any]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """(title, role, moves) of each net that has answered."""
    titles = {"asis": ("AS-IS", "asis"), "tobe": ("TO-BE", "tobe")}
    said = answer.get("nets") or [{"net": None, "moves": answer.get("moves") or []}]
    found = []
    for one in said[: len(_SIGNS)]:
        title, role = titles.get(str(one.get("net")), (_("the newest net"), "accent"))
        found.append((title, role, list(one.get("moves") or [])[:TOP_K]))
    return found


def _marks(nets: list[tuple[str, str, list[dict[str, Any]]]]) -> dict[tuple[int, int], tuple[str, str]]:
    """(row, column) to a sign and its role; a point that two nets name has the first one's."""
    marks: dict[tuple[int, int], tuple[str, str]] = {}
    for signs, (_title, role, moves) in reversed(list(zip(_SIGNS, nets, strict=False))):
        for sign, move in zip(signs, moves, strict=False):
            marks[int(move["row"]), int(move["column"])] = (sign, f"bold {role}")
    return marks


def _board(answer: dict[str, Any], marks: dict[tuple[int, int], tuple[str, str]]) -> list[Row]:
    lines = [str(line) for line in answer.get("board") or []]
    size, last = len(lines), str(answer.get("last") or "")
    stars = _STARS.get(size, ())
    header = Row("   " + " ".join(COLUMNS[:size]), "dim")
    rows = [header]
    for index, line in enumerate(lines):
        number = size - index
        row = Row(f"{number:>2} ", "dim")
        for column, sign in enumerate(line, 1):
            shown, role = _STONES.get(sign, ("+" if number in stars and column in stars else "·", "dim"))
            if sign not in _STONES and (number, column) in marks:
                shown, role = marks[number, column]
            elif f"{COLUMNS[column - 1]}{number}" == last:
                role = "bold warning"
            row.put(shown, role).put(" " if column < size else "")
        rows.append(row)
    return rows


def _moves(view: View, answer: dict[str, Any], nets: list[tuple[str, str, list[dict[str, Any]]]]) -> list[Row]:
    whose = _("black to play") if answer.get("to_play") == "B" else _("white to play")
    rows = [Row(f"{'●' if answer.get('to_play') == 'B' else '○'} ", "bold").put(whose, "bold")]
    if answer.get("of"):
        row = Row(f"{_('position')} ", "dim").put(f"{answer.get('held_out')}/{text.number(answer['of'])}")
        rows.append(row.put(f"  {view.glyphs.left_of} {view.glyphs.cursor}", "accent"))
    rows.append(Row(f"{_('last move')} ", "dim").put(str(answer.get("last") or text.NONE), "warning"))
    played = answer.get("played")
    if played:
        rows.append(Row(f"{_('played')} ", "dim").put(str(played), "bold"))
    for signs, (title, role, moves) in zip(_SIGNS, nets, strict=False):
        rows += [Row(), Row(title, f"bold {role}")]
        for sign, move in zip(signs, moves, strict=False):
            row = Row(f"{sign} ", f"bold {role}").cell(str(move.get("move")), 5)
            row.cell(text.percent(move.get("confidence")), 7, right=True)
            if move.get("move") == played:
                row.put("  " + _("played"), "good")
            rows.append(row)
    return rows
