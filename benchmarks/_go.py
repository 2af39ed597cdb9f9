"""What `bench go` times: parsing in children, workers that are killed, the trainer on shards, a net on another year."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.tasks.go.board import GoBoard
from engine.tasks.go.inventory import take_inventory
from engine.tasks.go.medium import record_text
from engine.tasks.go.parse import parse
from engine.tasks.go.plan import Filters, read_plans

_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
_LIVES_S = (0.02, 0.8)  # between these a worker is killed


@dataclass(frozen=True)
class Child:
    """One engine command: its JSON, its wall time and the greatest size that its process had."""

    answer: dict[str, Any]
    wall_s: float
    peak_bytes: int


def engine(workspace: Path, *words: str, stop_at: tuple[Path, int] | None = None) -> Child:
    """Run a command; with `stop_at` (a run's progress file, steps) interrupt it there, as Ctrl-C does."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "engine", "--workspace", str(workspace), *words, "--json"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while stop_at and child.poll() is None:
        time.sleep(0.2)
        if stop_at[0].exists() and json.loads(stop_at[0].read_text())["step"] >= stop_at[1]:
            child.send_signal(signal.SIGINT)
            break
    assert child.stdout is not None
    assert child.stderr is not None
    said = child.stderr.read() if stop_at else b""
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in ((0, 130) if stop_at else (0,)):
        raise SystemExit(f"{' '.join(words)} failed: {(said or child.stderr.read()).decode()[-400:]}")
    return Child(json.loads(out or b"{}"), time.perf_counter() - began, usage.ru_maxrss * _UNIT)


def make_games(folder: Path, count: int, length: int = 200) -> Path:
    """So many legal games of random moves on 19×19, by seed, for where no recorded ones are at hand."""
    folder.mkdir(parents=True)
    for number in range(count):
        draw, board = random.Random(number), GoBoard(19)
        while len(board.moves) < length:
            point = draw.randrange(board.passing)
            if board.legal_moves()[point]:
                board.play(point)
        (folder / f"{number:05d}.sgf").write_bytes(record_text(19, [], board.moves))
    return folder


def unpack(games: Path, folder: Path, count: int) -> Path:
    """The first `count` games of a folder or archive, in the order of their digests, as files of a folder."""
    folder.mkdir(parents=True)
    with take_inventory([games]) as found:
        for digest in sorted(found.games)[:count]:
            (folder / f"{digest}.sgf").write_bytes(found.text(digest))
    return folder


def sgfmill_seconds(folder: Path, processes: int) -> float:
    """How long sgfmill alone takes to read and to replay every game of a folder; processes are started before."""
    paths = sorted(folder.glob("*.sgf"))
    shares = [paths[start::processes] for start in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_replay, [[]] * processes))
        began = time.perf_counter()
        list(pool.map(_replay, shares))
        return time.perf_counter() - began


def _replay(paths: Sequence[Path]) -> None:
    from sgfmill import sgf, sgf_moves

    for path in paths:
        game = sgf.Sgf_game.from_bytes(path.read_bytes())
        board, moves = sgf_moves.get_setup_and_moves(game)
        for colour, move in moves:
            if move:
                board.play(*move, colour)


def killed_workers(games: Path, place: Path, *, workers: int, kills: int, seed: int) -> dict[str, Any]:
    """Workers on one folder, each killed at a random moment and started again, until all shards are there.

    Rounds on new folders follow until `kills` workers have been killed; each round's bytes are compared with those
    that one undisturbed worker makes.
    """
    context = multiprocessing.get_context("fork")  # real processes without seconds of imports
    draw, killed, rounds, wrong, extra = random.Random(seed), 0, 0, 0, 0
    once = _digests(_parsed(games, place / "one"))
    while killed < kills:
        folder = place / f"round{rounds}"
        left: list[Any] = []
        done = False
        while not done:
            while len(left) < workers:
                child = context.Process(target=_parsed, args=(games, folder))
                child.start()
                left.append(child)
            time.sleep(draw.uniform(*_LIVES_S))
            left = [child for child in left if child.is_alive()]
            if killed < kills and left:
                victim = left.pop(draw.randrange(len(left)))
                victim.kill()
                victim.join()
                killed += 1
            done = killed >= kills or _complete(folder)
        for child in left:
            child.join()
        _parsed(games, folder)
        planned = [shard.number for plan in read_plans(folder) for shard in plan.shards]
        made = sorted(int(path.stem[6:]) for path in folder.glob("batch_*.npz"))
        extra += len(made) - len(set(planned)) + len(planned) - len(set(planned))
        wrong += _digests(folder) != once
        rounds += 1
    return {
        "killed": killed,
        "rounds": rounds,
        "shards": len(once),
        "missing_or_double": extra,
        "other_bytes": wrong,
    }


def _parsed(games: Path, folder: Path) -> Path:
    parse([games], folder, filters=Filters(), games_per_shard=20, workers=1)
    return folder


def _complete(folder: Path) -> bool:
    plans = read_plans(folder)
    return bool(plans) and all((folder / f"batch_{s.number:04d}.npz").exists() for p in plans for s in p.shards)


def _digests(folder: Path) -> dict[str, str]:
    paths = [*folder.glob("batch_*.npz"), *folder.glob("batch_*.json"), *folder.glob("plan_*.json")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def loader_share(shards: Path, net: str, precision: str, *, rounds: int, steps: int) -> dict[str, float]:
    """Our trainer's steps a second on shards, and on batches that lie ready in memory, taking turns."""
    import torch

    from benchmarks._pipeline import Ours, take_turns
    from engine.config import load_settings
    from engine.tasks.go.task import load_task

    torch.set_num_threads(min(os.cpu_count() or 1, 2))
    words = [f"go.shards={shards}", f"go.net={net}", "training.batch_size=256", "training.micro_batch=64"]
    settings = load_settings(None, shards.parent / "turns", [*words, "training.epochs=1000"]).settings
    ready = load_task(settings)
    batches = list(itertools.islice(ready.train_batches(0, 256, start=0, workers=0), 4))

    def in_memory(*_: Any, **__: Any) -> Iterator[Any]:
        return (batch for batch in itertools.cycle(batches))

    ready.train_batches = in_memory  # type: ignore[method-assign]
    seconds = take_turns(
        {
            "shards": Ours(settings, shards.parent / "a", load_task(settings), precision),
            "ready": Ours(settings, shards.parent / "b", ready, precision),
        },
        rounds=rounds,
        steps=steps,
    )
    return {name: 256 / took for name, took in seconds.items()}


def strength(checkpoint: Path, shards: Path, positions: int, seed: int = 0) -> dict[str, float]:
    """Top-1, top-5 and loss of a checkpoint on positions drawn from every game of the shards."""
    import numpy as np
    import torch

    from engine.checkpoints.files import CARD, load_checkpoint_file
    from engine.tasks.go.metrics import MoveTally
    from engine.tasks.go.positions import positions as positions_of
    from engine.tasks.go.shards import read_shard
    from engine.tasks.go.weights import net_of_checkpoint

    content = load_checkpoint_file(checkpoint)
    ask, size = net_of_checkpoint(content, content.get(CARD), str(checkpoint))
    parts = [positions_of(read_shard(path), size) for path in sorted(shards.glob("batch_*.npz"))]
    draw, total, tally = np.random.default_rng(seed), sum(map(len, parts)), MoveTally()
    for part in parts:
        chosen = np.sort(draw.permutation(len(part))[: round(positions * len(part) / total)])
        for start in range(0, len(chosen), 256):
            rows = chosen[start : start + 256]
            planes, moves = part.batch(rows, np.zeros(len(rows), np.int64))
            outputs = torch.from_numpy(ask(planes.astype(np.float32)))
            tally.add(outputs, (torch.from_numpy(moves),))
    return tally.result() | {"positions": tally.count}
