"""A game record in, the net's moves at its end out; see `engine.tasks.medium.Medium`. Torch-free."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import UsageError
from engine.tasks.go.board import GoBoard, point_names
from engine.tasks.go.planes import COUNT
from engine.tasks.go.player import input_planes
from engine.tasks.go.records import BadRecord, board_of, read_record
from engine.tasks.go.rules import LARGEST
from engine.tasks.medium import Answer, InputError, Limits, Output

if TYPE_CHECKING:
    from engine.config import Settings
    from engine.tasks.labelled import Labelled, LabelledSet

_MOST_BYTES = 1_000_000  # a long game with comments has a tenth of it
_HEAD, _GAME = 4096, re.compile(rb"\(\s*;")  # a record begins so, perhaps behind a mail's header
_EMPTY, _FORBIDDEN = 8, 16  # planes that say where a stone may be played; see engine.tasks.go.planes
_WHOLE = {"type": "integer", "minimum": 1}


class GoMedium:
    """The position at the end of a record's main line, whoever is to move there (its `PL`, else by turns)."""

    media_types: Sequence[str] = ("application/x-go-sgf",)
    noun = "SGF record"
    input_name = "planes"
    output: Output = "probabilities"

    def __init__(self, size: int, classes: Sequence[str]) -> None:
        if not 2 <= size <= LARGEST or list(classes) != point_names(size):
            raise ValueError(f"board_size {size} and {len(classes)} classes are of no Go net")
        self.size = size
        self.shape: tuple[int, ...] = (COUNT, size, size)
        self.output_shape: tuple[int, ...] = (size * size,)
        self.classes = classes
        self._names = [json.dumps(name) for name in classes]
        move = {"move": {"type": "string"}, "row": _WHOLE, "column": _WHOLE, "confidence": {"type": "number"}}
        self.answer_schema: dict[str, Any] = {
            "top_k": {
                "type": "array",
                "description": "Legal moves, best first; row 1 is at the bottom, column 1 at the left.",
                "items": {
                    "type": "object",
                    "properties": {"label": {"type": "string"}, "index": {"type": "integer"}, **move},
                },
            },
            "row": _WHOLE,
            "column": _WHOLE,
        }

    def decode(self, content: bytes, limits: Limits) -> np.ndarray:
        """The planes of the last position, float32 [COUNT, S, S]."""
        if len(content) > _MOST_BYTES:
            raise InputError(413, "too_large", f"an SGF record of {len(content):,} bytes", "send one game")
        if b"\0" in content[:_HEAD] or not _GAME.search(content[:_HEAD]):
            raise InputError(415, "not_sgf", "these bytes are no SGF record", "send the text of an SGF file")
        try:
            board = board_of(read_record(content))
        except (BadRecord, UsageError) as error:
            raise InputError(422, "bad_record", str(error), "send one whole game with legal moves") from None
        if board.size != self.size:
            hint = f"this net plays on {self.size}×{self.size}"
            raise InputError(422, "board_size", f"a board of size {board.size}", hint)
        return input_planes(board, board.to_play)

    def golden(self) -> np.ndarray:
        """The empty board and five positions of games by a fixed rule."""
        boards = [board_of(read_record(body)) for body in self._games((0, 1, 5, 20, 40, 60))]
        return np.stack([input_planes(board, board.to_play) for board in boards])

    def probes(self) -> list[bytes]:
        return self._games((0, 4, 30))

    def answer(self, row: np.ndarray, given: np.ndarray, top_k: int) -> Answer:
        """The best legal moves with their shares among all legal moves.

        Legal by simple ko and suicide, as the planes know them; where no move is legal, the net's own order.
        """
        legal = (given[_EMPTY].ravel() > 0) & (given[_FORBIDDEN].ravel() == 0)
        shares = np.where(legal, row, 0.0) if legal.any() else row
        shares = shares / max(float(shares.sum()), 1e-30)
        order = np.argsort(-shares, kind="stable")[: min(top_k, max(1, int(legal.sum())))].tolist()
        moves = [
            f'{{"label":{self._names[point]},"index":{point},"confidence":{shares[point]:.6g},'
            f'"move":{self._names[point]},"row":{point // self.size + 1},"column":{point % self.size + 1}}}'
            for point in order
        ]
        return Answer(f'{moves[0][:-1]},"top_k":[{",".join(moves)}]', order[0], float(shares[order[0]]))

    def labelled(self, settings: Settings, data: Path | None, seed: int) -> LabelledSet:
        from engine.tasks.go.labelled import labelled_positions

        return labelled_positions(settings, data, seed, self.size)

    def is_right(self, answer: dict[str, Any], item: Labelled) -> bool:
        """Whether the best move is the one that was played."""
        return bool(answer["label"] == item.label)

    def _games(self, lengths: Sequence[int]) -> list[bytes]:
        """Records of legal games of some moves, each to the empty point that a fixed sequence names next."""
        found = []
        for length in lengths:
            board, step = GoBoard(self.size), 0
            while len(board.moves) < min(length, self.size * self.size // 2):
                step += 1
                point = (step * 7 * self.size + step * step * 5 + length) % board.passing
                if board.legal_moves()[point]:
                    board.play(point)
                elif step % board.passing == 0:
                    board.play(board.passing)
            found.append(record_text(self.size, [], board.moves))
        return found


def record_text(
    size: int, setup: Sequence[tuple[int, int]], moves: Sequence[tuple[int, int]], to_play: int | None = None
) -> bytes:
    """A game as SGF (FF[4]): stones and moves as (colour, point), `to_play` said where it is not plain."""

    def place(point: int) -> str:
        row, column = divmod(point, size)
        return "" if point == size * size else chr(97 + column) + chr(97 + size - 1 - row)

    text = f"(;GM[1]FF[4]SZ[{size}]RU[NZ]"  # rules under which every recorded move is legal
    for colour, name in ((1, "AB"), (2, "AW")):
        stones = [f"[{place(point)}]" for side, point in setup if side == colour]
        text += name + "".join(stones) if stones else ""
    player = f"PL[{'_BW'[to_play]}]" if to_play else ""
    nodes = [f";{'_BW'[colour]}[{place(point)}]" for colour, point in moves]
    return (text + ("".join(nodes) + player if nodes else player) + ")").encode()
