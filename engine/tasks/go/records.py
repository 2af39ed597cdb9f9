"""A game record: SGF's main line as setup stones and moves, checked move by move against the rules.

SGF FF[1..4] is read by sgfmill: any encoding that the file declares, variations to the main line.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sgfmill import sgf, sgf_moves

from engine.tasks.go import rules
from engine.tasks.go.board import GoBoard
from engine.tasks.go.rules import BLACK, WHITE

_COLOURS = {"b": BLACK, "w": WHITE}
_DATE = re.compile(r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?")
_RANK = re.compile(r"(?<!\d)(\d{1,2})\s*([kdp])", re.IGNORECASE)
_CHARSET = re.compile(rb"\bCA\s*\[([^\]\\]{1,40})\]")
_HEAD = 4096  # bytes in which a record names its encoding
# codecs with letters of which a byte may be that of a backslash or a bracket, so that bytes cannot be parsed
_NO_ASCII = ("shift_jis", "cp932", "big5", "cp950", "gbk", "gb18030", "johab", "iso2022", "hz")
_TWO_MOVES = re.compile(rb"\bB\s*\[\w{0,2}\]\s*W\s*\[|\bW\s*\[\w{0,2}\]\s*B\s*\[")
# rule sets under which a chain may take its own last liberty (sgfmill's and KGS's names)
_SUICIDE_RULES = ("new zealand", "nz", "tromp", "ing", "goe")


class BadRecord(Exception):
    """A record that cannot be used; the message says why in words."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One game.

    `setup` and `moves` hold (colour, point) as int16 rows, row 0 of the board at the bottom; a pass is size².
    `result` is 1 where black won, -1 where white did, 0 where that is not known. A rank is 1 for 1 kyu... as
    `rank_number` says; `date` is yyyymmdd, 0 where unknown. `digest` is that of size, setup and moves. `to_play` is
    whose turn the record says it is at its end (`PL`), 0 where it says nothing.
    """

    size: int
    komi: float
    handicap: int
    result: int
    black_rank: int
    white_rank: int
    date: int
    setup: NDArray[np.int16]
    moves: NDArray[np.int16]
    digest: bytes
    to_play: int = 0

    @property
    def positions(self) -> int:
        """Moves other than passes."""
        return int((self.moves[:, 1] != self.size * self.size).sum())


def read_record(text: bytes) -> Record:
    """The main line of the first game of an SGF text.

    Raises:
        BadRecord: no SGF, not a game of Go, an illegal move, setup stones after the first move.
    """
    try:
        game = _game(text)
        root = game.get_root()
        if _text(root, "GM", "1").strip() not in ("", "1"):
            raise BadRecord("a record of another game than Go")
        size = game.get_size()
        if not 2 <= size <= rules.LARGEST:
            raise BadRecord(f"a board of size {size}: at least 2, at most {rules.LARGEST}")
        if _TWO_MOVES.search(text) and any(
            node.has_property("B") and node.has_property("W") for node in game.main_sequence_iter()
        ):
            raise BadRecord("no readable SGF: two moves in one node")
    except (ValueError, LookupError) as error:
        raise BadRecord(f"no readable SGF: {_words(error) or type(error).__name__}") from None
    try:
        board, plays = sgf_moves.get_setup_and_moves(game)
    except (ValueError, LookupError) as error:
        said = _words(error)
        why = said if said.startswith("setup") else f"a move or a stone that is no point of a board of size {size}"
        raise BadRecord(f"no readable SGF: {why}") from None
    passing = size * size
    setup = np.array(
        [(_COLOURS[colour], row * size + column) for colour, (row, column) in board.list_occupied_points()],
        np.int16,
    ).reshape(-1, 2)
    moves = np.array(
        [(_COLOURS[colour], move[0] * size + move[1] if move else passing) for colour, move in plays], np.int16
    ).reshape(-1, 2)
    _check(size, setup, moves, _text(root, "RU", "").strip().casefold())
    return Record(
        size=size,
        komi=_komi(root),
        handicap=_whole(_text(root, "HA", "0")),
        result=_result(_text(root, "RE", "")),
        black_rank=rank_number(_text(root, "BR", "")),
        white_rank=rank_number(_text(root, "WR", "")),
        date=day_number(_text(root, "DT", "")),
        setup=setup,
        moves=moves,
        digest=hashlib.blake2b(bytes([size]) + setup.tobytes() + b"/" + moves.tobytes(), digest_size=8).digest(),
        to_play=_turn(game, len(moves)) if b"PL" in text else 0,
    )


def _game(text: bytes) -> sgf.Sgf_game:
    """The first game of a text; where nobody knows the encoding that it declares, in Latin-1.

    Raises:
        ValueError: it cannot be read.
    """
    found = _CHARSET.search(text, 0, _HEAD)
    if not found:
        return sgf.Sgf_game.from_bytes(text)
    try:
        known = codecs.lookup(found[1].decode("ascii").strip()).name
    except (LookupError, ValueError):
        return sgf.Sgf_game.from_bytes(text, override_encoding="iso-8859-1")
    if known.startswith(_NO_ASCII):
        with contextlib.suppress(ValueError):  # else the bytes may do, as some programs escape those
            return sgf.Sgf_game.from_bytes(text.decode(known, "replace").encode(), override_encoding="utf-8")
    return sgf.Sgf_game.from_bytes(text)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def board_of(record: Record, number: int | None = None) -> GoBoard:
    """The position after `number` moves, after all of them by default, with the player whose turn it is there.

    Raises:
        UsageError: setup stones without a liberty.
    """
    board = GoBoard(record.size, record.komi)
    board.place([(int(colour), int(point)) for colour, point in record.setup])
    moves = record.moves[:number].tolist()
    if moves:
        board.to_play = moves[0][0]
    for colour, point in moves:
        board.play(point, colour, recorded=True)
    if len(moves) == len(record.moves) and record.to_play:
        board.to_play = record.to_play
    return board


def rank_number(text: str) -> int:
    """A rank as a number that grows with strength: 30 kyu -29 ... 1 kyu 0, 1 dan 1 ... 9 dan 9, 1 pro 11.

    -99 where it is not known.
    """
    found = _RANK.search(text)
    if not found:
        return -99
    number, kind = int(found[1]), found[2].lower()
    if not 1 <= number <= 35:
        return -99
    return 1 - number if kind == "k" else number if kind == "d" else number + 10


def _check(size: int, setup: NDArray[np.int16], moves: NDArray[np.int16], ruleset: str) -> None:
    board = np.zeros(size * size, np.int8)
    work = rules.scratch(size)
    board[setup[:, 1]] = setup[:, 0]
    suicide = any(name in ruleset for name in _SUICIDE_RULES)
    points, colours = np.ascontiguousarray(moves[:, 1]), moves[:, 0].astype(np.int8)
    status, index = rules.replay(board, work, points, colours, suicide, rules.zobrist(size))
    if status != rules.OK:
        raise BadRecord(f"illegal: move {index + 1} {rules.REASONS[status]}")


def _turn(game: sgf.Sgf_game, moves: int) -> int:
    return _to_play(game.get_last_node()) or (0 if moves else _to_play(game.get_root()))


def _to_play(node: Any) -> int:
    try:
        return _COLOURS[node.get("PL")]
    except (KeyError, ValueError, LookupError):
        return 0


def _text(root: Any, name: str, default: str) -> str:
    try:
        return str(root.get(name)) if name != "GM" else root.get_raw(name).decode("latin-1")
    except (KeyError, ValueError, LookupError):
        try:
            return str(root.get_raw(name).decode("latin-1"))
        except KeyError:
            return default


def _komi(root: Any) -> float:
    try:
        value = float(root.get("KM"))
    except (KeyError, ValueError, LookupError):
        return 0.0
    return value if abs(value) < 500 else 0.0


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 3 else 0


def _result(text: str) -> int:
    winner = text.strip().upper()[:2]
    return 1 if winner == "B+" else -1 if winner == "W+" else 0


def day_number(text: str) -> int:
    """The first date in a text as yyyymmdd, with zeros for what it does not say; 0 without one."""
    found = _DATE.search(text)
    if not found:
        return 0
    year, month, day = (int(part or 0) for part in found.groups())
    return year * 10_000 + month * 100 + day
