"""From records to shards: what is refused and why, and that the work is shared, killed and resumed to the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from sgfmill import boards

from engine.errors import UsageError
from engine.tasks.go import rules
from engine.tasks.go.claims import Claims
from engine.tasks.go.inventory import take_inventory
from engine.tasks.go.parse import parse
from engine.tasks.go.plan import Filters
from engine.tasks.go.positions import positions
from engine.tasks.go.records import BadRecord, rank_number, read_record
from engine.tasks.go.shards import read_shard, shard_bytes
from tests.conftest import until

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def random_game(seed: int, *, size: int = 9, moves: int = 40) -> str:
    """A legal game of random moves as SGF."""
    draw = random.Random(seed)
    board, work, words = np.zeros(size * size, np.int8), rules.scratch(size), rules.zobrist(size)
    ko, key, colour, text = -1, np.uint64(0), 1, []
    while len(text) < moves:
        point = draw.randrange(size * size)
        trial = board.copy()
        status, _, next_ko, next_key = rules.play(trial, work, point, colour, ko, words, key)
        if status == rules.OK:
            board, ko, key = trial, next_ko, np.uint64(next_key)
            row, column = divmod(point, size)
            text.append(f";{'BW'[colour - 1]}[{LETTERS[column]}{LETTERS[size - 1 - row]}]")
            colour = 3 - colour
    return f"(;GM[1]FF[4]SZ[{size}]KM[6.5]RE[B+R]DT[2003-04-05]BR[6d]WR[2p]{''.join(text)})"


@pytest.fixture
def games(tmp_path: Path) -> Path:
    folder = tmp_path / "games"
    folder.mkdir()
    for seed in range(12):
        (folder / f"{seed:02d}.sgf").write_text(random_game(seed))
    return folder


def test_a_record_tells_its_facts() -> None:
    head = "SZ[9]KM[0.5]HA[2]AB[aa][ba]RE[B+R]DT[2003-04-05]BR[6d]WR[2p]"
    record = read_record(f"(;{head};W[ee];B[];W[ff])".encode())
    assert (record.size, record.komi, record.result, record.date) == (9, 0.5, 1, 20030405)
    assert (record.black_rank, record.white_rank, record.handicap) == (6, 12, 2)
    assert sorted(record.setup[:, 1].tolist()) == [72, 73]
    assert record.moves.tolist() == [[2, 40], [1, 81], [2, 32]]
    assert record.positions == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no game at all", "no readable SGF"),
        ("(;SZ[9];B[aa];W[aa])", "occupied"),
        ("(;SZ[9]AB[ba][ab];W[aa])", "suicide"),
        ("(;SZ[26];B[aa])", "at most 25"),
        ("(;GM[2];B[aa])", "another game"),
        ("(;SZ[9];B[zz])", "no readable SGF"),
        ("(;SZ[9];B[aa]AB[bb];W[cc])", "no readable SGF"),
        ("(;SZ[9]AB[aa]AW[ba][ab])", "setup position not legal"),
        ("(;SZ[1];B[aa])", "at least 2"),
        ("(;SZ[9];B[ss];W[aa])", "no point of a board of size 9"),
        ("(;SZ[9];B[a];W[aa])", "no point of a board of size 9"),
        ("(;SZ[9];B[aa]W[bb];B[cc])", "two moves in one node"),
    ],
)
def test_what_is_no_legal_game_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        read_record(text.encode())


def test_the_main_line_is_taken_and_any_encoding_read() -> None:
    main = read_record(b"(;SZ[9];B[aa](;W[bb];B[cc])(;W[dd]))")
    assert [point for _, point in main.moves.tolist()] == [72, 64, 56]
    text = "(;SZ[9]CA[EUC-KR]PB[이창호]BR[9p];B[aa])"
    assert read_record(text.encode("euc-kr")).black_rank == 19


@pytest.mark.parametrize(
    ("name", "player"), [("Shift_JIS", "表"), ("Big5", "許功蓋"), ("gb18030", "李昌镐"), ("klingon", "Qo'noS")]
)
def test_an_encoding_whose_letters_hold_a_backslash_loses_no_move(name: str, player: str) -> None:
    text = f"(;SZ[9]CA[{name}]BR[9p]PB[{player}];B[aa];W[bb];B[cc])"
    record = read_record(text.encode("ascii" if name == "klingon" else name))
    assert [point for _, point in record.moves.tolist()] == [72, 64, 56]
    assert record.black_rank == 19


@pytest.mark.parametrize(
    "head", ["HA[" + "9" * 5000 + "]", "BR[" + "9" * 5000 + "d]", "BR[" + "1" * 200_000 + "]"]
)
def test_a_number_without_end_is_not_known(head: str) -> None:
    record = read_record(f"(;SZ[9]{head};B[aa])".encode())
    assert (record.handicap, record.black_rank) == (0, -99)


@pytest.mark.parametrize(
    ("text", "number"), [("30k", -29), ("1k", 0), ("1d", 1), ("9 dan", 9), ("3p", 13), ("?", -99)]
)
def test_ranks_grow_with_strength(text: str, number: int) -> None:
    assert rank_number(text) == number


def test_replayed_positions_are_sgfmills(tmp_path: Path) -> None:
    records = [read_record(random_game(seed, moves=60).encode()) for seed in range(5)]
    (tmp_path / "batch_0001.npz").write_bytes(shard_bytes(records))
    found = positions(read_shard(tmp_path / "batch_0001.npz"), 9)
    at = 0
    for record in records:
        board = boards.Board(9)
        for colour, point in record.moves.tolist():
            packed = found.boards[at]
            shown = [(packed[p >> 2] >> ((p & 3) * 2)) & 3 for p in range(81)]
            known = {None: 0, "b": 1, "w": 2}
            assert shown == [known[board.get(row, column)] for row in range(9) for column in range(9)]
            board.play(*divmod(point, 9), "bw"[colour - 1])
            at += 1
    assert at == len(found)


def test_the_eight_symmetries_turn_planes_and_move_alike(tmp_path: Path) -> None:
    record = read_record(random_game(3, moves=30).encode())
    (tmp_path / "s.npz").write_bytes(shard_bytes([record]))
    found = positions(read_shard(tmp_path / "s.npz"), 9)
    where = np.full(8, 25, np.int64)
    planes, moves = found.batch(where, np.arange(8))
    plain, move = planes[0], moves[0]
    marked = np.zeros((9, 9), np.uint8)
    marked.reshape(-1)[move] = 1
    for which in range(8):
        turned = [plane[::-1] if which & 1 else plane for plane in (*plain, marked)]
        turned = [plane[:, ::-1] if which & 2 else plane for plane in turned]
        turned = [plane.T if which & 4 else plane for plane in turned]
        assert np.array_equal(np.stack(turned[:-1]), planes[which])
        assert int(np.flatnonzero(turned[-1])[0]) == moves[which]
    assert len(np.unique(moves)) > 1


def test_planes_say_liberties_captures_and_where_not_to_play(tmp_path: Path) -> None:
    text = "(;SZ[9]AB[ba]AW[aa];B[hh];W[ii];B[ab])"
    record = read_record(text.encode())
    (tmp_path / "s.npz").write_bytes(shard_bytes([record]))
    planes, moves = positions(read_shard(tmp_path / "s.npz"), 9).batch(np.array([2]), np.array([0]))
    plane, corner, takes = planes[0], (8, 0), (7, 0)
    assert divmod(int(moves[0]), 9) == takes
    assert plane[4][corner] == 1  # white's corner stone has one liberty left
    assert plane[21][takes] == 1  # black takes one stone there
    assert plane[10].sum() == plane[11].sum() == 1
    assert plane[9].all()
    assert plane[16].sum() == 0


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith("batch_")}


def test_every_game_is_in_a_shard_or_named_with_its_reason(games: Path, tmp_path: Path) -> None:
    (games / "broken.sgf").write_text("(;SZ[9];B[aa];W[aa])")
    (games / "same.sgf").write_text((games / "00.sgf").read_text())
    (games / "twin.sgf").write_text((games / "01.sgf").read_text().replace("KM[6.5]", "KM[7.5]"))
    (games / "empty.sgf").write_text("")
    (games / "large.sgf").write_text(random_game(50, size=13))
    answer = parse([games], tmp_path / "shards", filters=Filters(size=9), games_per_shard=100, workers=1)
    reasons = {Path(one["path"]).name: one["reason"] for one in answer["skipped"]}
    assert answer["games"] == 12
    assert set(reasons) == {"broken.sgf", "same.sgf", "empty.sgf", "large.sgf"} | (
        set(reasons) & {"twin.sgf", "01.sgf"}
    )
    assert len(reasons) == 5
    assert "occupied" in reasons["broken.sgf"]
    assert "the same text" in reasons["same.sgf"]
    assert "size 13" in reasons["large.sgf"]
    assert answer["positions"] == 12 * 40


def test_archives_and_collections_are_read_as_folders_are(games: Path, tmp_path: Path) -> None:
    folder = parse([games], tmp_path / "a", filters=Filters(size=9), games_per_shard=5, workers=1)
    with tarfile.open(tmp_path / "games.tar.gz", "w:gz") as tar:
        tar.add(games, "games")
    with zipfile.ZipFile(tmp_path / "games.zip", "w") as archive:
        for path in games.iterdir():
            archive.write(path, path.name)
    (tmp_path / "all.sgf").write_text("\n".join(path.read_text() for path in sorted(games.iterdir())))
    for name in ("games.tar.gz", "games.zip", "all.sgf"):
        target = tmp_path / f"from-{name}"
        answer = parse([tmp_path / name], target, filters=Filters(size=9), games_per_shard=5, workers=1)
        assert (answer["games"], answer["positions"]) == (folder["games"], folder["positions"])
    npz = {name: data for name, data in files_of(tmp_path / "a").items() if name.endswith("npz")}
    for name in ("games.tar.gz", "games.zip"):
        assert {k: v for k, v in files_of(tmp_path / f"from-{name}").items() if k.endswith("npz")} == npz


def test_an_archive_that_cannot_be_read_and_a_wrong_path_are_errors(tmp_path: Path) -> None:
    (tmp_path / "broken.tar.gz").write_bytes(b"no archive")
    for name, words in (("broken.tar.gz", "cannot be read"), ("nowhere", "no file or folder")):
        with pytest.raises(UsageError, match=words), take_inventory([tmp_path / name]):
            pass


def test_an_archive_with_a_password_another_method_or_torn_bytes_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "games.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.sgf", random_game(1))
    whole = path.read_bytes()
    local, entry = whole.index(b"PK\x03\x04"), whole.index(b"PK\x01\x02")
    for at, central, value in (
        (6, 8, 1),
        (8, 10, 97),
    ):  # flags: encrypted; a method of compression that nobody has
        torn = bytearray(whole)
        torn[local + at] = torn[entry + central] = value
        path.write_bytes(torn)
        with pytest.raises(UsageError, match="cannot be read"), take_inventory([path]):
            pass
    path.write_bytes(whole[:40] + b"\xff" * 30 + whole[70:])
    with pytest.raises(UsageError, match="cannot be read"), take_inventory([path]):
        pass


def test_a_pipe_a_name_of_no_encoding_and_brackets_without_end_stop_nobody(games: Path, tmp_path: Path) -> None:
    os.mkfifo(games / "pipe.sgf")
    (games / "brackets.sgf").write_text("(;SZ[9];B[aa])(;" + "[" * 200_000)
    (games / "torn.sgf").write_text("(;SZ[9];B[bb])(;SZ[9];B[cc])(;SZ[9];B[dd];W[")
    (games / os.fsdecode(b"\xc0\xee.sgf")).write_text("(;SZ[9];B[aa];W[aa])")
    answer = parse([games], tmp_path / "shards", filters=Filters(size=9), games_per_shard=100, workers=1)
    reasons = {one["path"]: one["reason"] for one in answer["skipped"]}
    assert reasons["games/pipe.sgf"] == "no regular file"
    assert "occupied" in reasons["games/\\xc0\\xee.sgf"]
    assert "unexpected end" in reasons["games/torn.sgf#3"]
    assert "games/brackets.sgf#2" in reasons
    assert answer["games"] == 15  # the whole ones before the torn too


def test_more_games_later_are_added_and_no_shard_is_made_again(games: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    first = parse([games], shards, filters=Filters(size=9), games_per_shard=4, games=6, workers=1)
    assert (first["games"], first["shards"]) == (6, 2)
    before = files_of(shards)
    times = {path.name: path.stat().st_mtime_ns for path in shards.glob("batch_*")}
    more = parse([games], shards, filters=Filters(size=9), games_per_shard=4, workers=1)
    assert (more["games"], more["shards"]) == (12, 4)
    assert {name: data for name, data in files_of(shards).items() if name in before} == before
    assert {path.name: path.stat().st_mtime_ns for path in shards.glob("batch_*") if path.name in times} == times
    with pytest.raises(UsageError, match="other filters"):
        parse([games], shards, filters=Filters(size=9, min_rank=3), games_per_shard=4)


def test_killed_workers_leave_the_same_bytes_as_one_undisturbed(games: Path, tmp_path: Path) -> None:
    parse([games], tmp_path / "one", filters=Filters(size=9), games_per_shard=1, workers=1)
    code = (
        "import sys\nfrom engine.tasks.go.parse import parse\nfrom engine.tasks.go.plan import Filters\n"
        "print('up', flush=True)\nparse([sys.argv[1]], __import__('pathlib').Path(sys.argv[2]),"
        " filters=Filters(size=9), games_per_shard=1, workers=2)"
    )
    draw = random.Random(1)
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(games), str(tmp_path / "many")], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(draw.random() * 0.15)
        child.send_signal(signal.SIGKILL)
        child.wait()
    parse([games], tmp_path / "many", filters=Filters(size=9), games_per_shard=1, workers=2)
    until(lambda: not _at_work_on(tmp_path), "the end of every worker of a killed parse")
    assert files_of(tmp_path / "many") == files_of(tmp_path / "one")
    assert not list((tmp_path / "many").glob("*.claim"))


def test_a_claim_of_who_died_right_after_the_shard_is_cleared(games: Path, tmp_path: Path) -> None:
    parse([games], tmp_path, filters=Filters(size=9), games_per_shard=6, workers=1)
    holder = {"worker": "x", "host": socket.gethostname(), "pid": 2**22 + 1, "started": 0.0}
    for name in ("batch_0001.claim", "batch_0009.claim"):
        (tmp_path / name).write_text(json.dumps(holder))
    parse([games], tmp_path, filters=Filters(size=9), games_per_shard=6, workers=1)
    assert [path.name for path in tmp_path.glob("*.claim")] == ["batch_0009.claim"]


def _at_work_on(folder: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or [])
    ]


def test_a_living_workers_claim_is_respected_and_a_dead_ones_taken(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    with first.claim("batch_0001") as mine, second.claim("batch_0001") as theirs:
        assert (mine, theirs) == (True, False)
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os,sys\nfrom pathlib import Path\nfrom engine.tasks.go.claims import Claims\n"
            "c = Claims(Path(sys.argv[1])).claim('batch_0002')\nprint(c.__enter__(), flush=True)\nos._exit(1)",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.stdout.strip() == "True"
    assert (tmp_path / "batch_0002.claim").exists()
    with second.claim("batch_0002") as mine:
        assert mine


def test_another_computers_claim_is_free_once_it_has_grown_old(tmp_path: Path) -> None:
    claim = tmp_path / "batch_0001.claim"
    claim.write_text('{"worker": "x", "host": "another", "pid": 1, "started": 0}')
    claims = Claims(tmp_path, stale_s=30)
    with claims.claim("batch_0001") as mine:
        assert not mine
    os.utime(claim, (time.time() - 60, time.time() - 60))
    with claims.claim("batch_0001") as mine:
        assert mine
