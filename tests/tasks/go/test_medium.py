"""SGF over HTTP: what a slot makes of a record is what training saw, and what it cannot take is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.config import load_settings
from engine.tasks.go.board import point_names
from engine.tasks.go.kind import medium
from engine.tasks.go.medium import record_text
from engine.tasks.go.positions import positions
from engine.tasks.go.records import board_of, read_record
from engine.tasks.go.shards import held_out, read_shard, shard_bytes
from engine.tasks.medium import InputError, Limits
from tests.tasks.go.test_parse import random_game

NINE = medium({"classes": point_names(9), "preprocess": {"board_size": 9}})


def test_a_held_out_position_reaches_the_net_as_in_training(tmp_path: Path) -> None:
    games = [read_record(random_game(seed, moves=40).encode()) for seed in range(12)]
    (tmp_path / "batch_0001.npz").write_bytes(shard_bytes(games))
    settings = load_settings(None, None, [f"go.shards={tmp_path}", "go.val_fraction=0.5"]).settings
    shard = read_shard(tmp_path / "batch_0001.npz")
    trained = positions(shard, 9, held_out(shard.digest, 0.5))
    planes, moves = trained.batch(np.arange(len(trained)), np.zeros(len(trained), np.int64))
    known = {(a.tobytes(), NINE.classes[b]) for a, b in zip(planes.astype(np.float32), moves, strict=True)}
    items = NINE.labelled(settings, None, 3).images
    assert len(items) == int(held_out(shard.digest, 0.5).sum()) > 2
    for item in items:
        assert (NINE.decode(item.read(), Limits()).tobytes(), item.label) in known


def test_named_games_are_compared_but_for_those_that_trained(tmp_path: Path) -> None:
    texts = [random_game(seed, moves=20) for seed in range(10)]
    (tmp_path / "batch_0001.npz").write_bytes(shard_bytes([read_record(text.encode()) for text in texts[:6]]))
    (tmp_path / "sgf").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "sgf" / f"{number}.sgf").write_text(text)
    (tmp_path / "sgf" / "broken.sgf").write_text("(;GM[1")
    settings = load_settings(None, None, [f"go.shards={tmp_path}", "go.val_fraction=0.01"]).settings
    found = NINE.labelled(settings, tmp_path / "sgf", 0)
    assert [item.name.split("#")[0] for item in found.images] == [f"sgf/{number}.sgf" for number in range(6, 10)]
    assert found.notes == ["6 games left out: training has seen them"]
    other = NINE.labelled(settings, tmp_path / "sgf", 1)
    assert other.key != found.key
    assert [item.name for item in other.images] != [item.name for item in found.images]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR(;", 415, "not_sgf"),
        (b"(;GM[1]SZ[9];B[ee", 422, "bad_record"),
        (b"(;GM[1]SZ[9];B[ee];W[ee])", 422, "bad_record"),
        (b"(;GM[2]SZ[9])", 422, "bad_record"),
        (b"(;GM[1]SZ[19])", 422, "board_size"),
        (b"(;" + b" " * 1_000_000 + b")", 413, "too_large"),
    ],
    ids=["png", "cut", "illegal", "othello", "size", "large"],
)
def test_what_is_no_record_for_this_net_is_refused(body: bytes, status: int, kind: str) -> None:
    with pytest.raises(InputError) as refused:
        NINE.decode(body, Limits())
    assert (refused.value.status, refused.value.kind) == (status, kind)
    assert refused.value.hint


def test_whose_turn_it_is(tmp_path: Path) -> None:
    for text, turn in (("(;SZ[9])", 1), ("(;SZ[9]AB[cc][gg])", 2), ("(;SZ[9];B[ee])", 2), ("(;SZ[9]PL[W])", 2),
                       ("(;SZ[9];B[ee]PL[B])", 1), ("(;SZ[9];W[ee];B[cc];W[])", 1)):  # fmt: skip
        assert board_of(read_record(text.encode())).to_play == turn, text
    again = read_record(record_text(9, [(1, 20)], [(2, 40), (1, 81), (2, 42)], 2))
    assert (again.setup.tolist(), again.moves.tolist()) == ([[1, 20]], [[2, 40], [1, 81], [2, 42]])
    assert board_of(again).to_play == 2


def test_only_legal_moves_are_answered() -> None:
    given = NINE.decode(b"(;SZ[9];B[aa];W[ab];B[ii];W[ba])", Limits())  # white has taken A9 back for good
    row = np.zeros(81, np.float32)
    row[[72, 8, 40]] = 0.5, 0.3, 0.2  # A9 would be suicide, on J1 lies a stone
    found = NINE.answer(row, given, 5)
    assert (NINE.classes[found.top], found.confidence) == ("E5", 1.0)
