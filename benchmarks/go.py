"""Figures of Go: parsing beside sgfmill, memory, the loader, training, strength, and GNU Go.

    python -m benchmarks.go [--json] [--what PART,...] [--games PATH] [--held-out PATH] [--checkpoint C] [--run DIR]

Parts, with their targets on two CPU cores:
parse    1,000 games to shards: under 1.5 s after start-up (sgfmill's replay of the same games beside it), at most
         12 bytes a position, every game in a shard or named with a reason
all      every game of --games: 10,613 in under 20 s, peak memory under 400 MB
workers  four workers killed and started again 20 times: every shard once, the same bytes as one worker's
memory   training's greatest size with one shard and with all: under 600 MB
loader   steps from shards over steps from batches in memory: at least 0.97
epochs   5 epochs over 1,000 games: under 10 minutes; a slice of --slice steps is timed, --whole trains it all
strength top-1 of --checkpoint on games of another year (--held-out): at least 0.40
curve    the epochs of a finished run (--run): minutes, top-1
match    --checkpoint against GNU Go 3.8 level 1, 19×19, komi 7.5, colours changed each game, scored by GNU Go:
         at least half of 40 won; --keep DIR keeps the games, and goes on with those that are there

Without --games a set of random games is made, which stands in for the parts that need none of strength. Parts whose
option is missing, or GNU Go, are left out with a line that says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the train verb does, before torch is loaded

from benchmarks._go import (
    engine,
    killed_workers,
    loader_share,
    make_games,
    sgfmill_seconds,
    strength,
    unpack,
)
from benchmarks._gtp import Program, game_record, play_game, program

PARTS = ("parse", "all", "workers", "memory", "loader", "epochs", "strength", "curve", "match")
GNUGO = shutil.which("gnugo") or next((p for p in ("/usr/games/gnugo",) if Path(p).exists()), None)
KOMI, SIZE = 7.5, 19
Tell = Callable[..., None]


class Missing(Exception):
    """A part cannot be measured here; the message says what it lacks."""


def main(argv: list[str] | None = None) -> None:
    """Measure, print a line a result, and with --json one object `{"results": [...]}`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--what", default=",".join(PARTS), help="the parts, with commas between")
    parser.add_argument("--games", type=Path, help="a folder or archive of SGF records")
    parser.add_argument("--held-out", type=Path, metavar="PATH", help="records of another year")
    parser.add_argument("--checkpoint", type=Path, metavar="C")
    parser.add_argument("--run", type=Path, metavar="DIR", help="the folder of a finished run")
    parser.add_argument("--net", default="plain32x6", help="of memory, loader and epochs")
    parser.add_argument("--precision", default="bf16", help="of memory, loader and epochs")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each takes")
    parser.add_argument("--slice", type=int, default=700, metavar="STEPS")
    parser.add_argument("--whole", action="store_true", help="all five epochs")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--positions", type=int, default=20_000, help="of strength")
    parser.add_argument("--match-games", type=int, default=40, metavar="N")
    parser.add_argument("--level", type=int, default=1, help="of GNU Go")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the match's games are kept")
    parser.add_argument("--seconds", type=float, default=1e9, help="no game of the match is begun after so many")
    options = parser.parse_args(argv)
    wanted = options.what.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    results: list[dict[str, Any]] = []
    out = sys.stderr if options.json else sys.stdout

    def tell(name: str, value: float, unit: str, target: str, **more: Any) -> None:
        results.append({"name": name, "value": value, "unit": unit, "target": target, **more})
        beside = ", ".join(f"{key} {_shown(found)}" for key, found in more.items() if found is not None)
        print(f"{name:<38} {value:10,.3f} {unit:<9} (target: {target})  {beside}", file=out, flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        options.place = Path(scratch)
        for part in PARTS:
            if part in wanted:
                try:
                    globals()[f"_{part}"](options, tell)
                except Missing as missing:
                    print(f"{part}: left out, {missing}", file=out, flush=True)
    if options.json:
        print(json.dumps({"results": results}))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,.4g}"


def _thousand(options: argparse.Namespace) -> Path:
    """1,000 games as files."""
    folder: Path = options.place / "thousand"
    if not folder.exists():
        unpack(options.games, folder, 1000) if options.games else make_games(folder, 1000)
    return folder


def _shards(options: argparse.Namespace) -> Path:
    """The shards of the 1,000 games."""
    workspace: Path = options.place / "parsed"
    if not workspace.exists():
        engine(workspace, "go", "parse", str(_thousand(options)))
    return workspace / "go" / "shards"


def _parse(options: argparse.Namespace, tell: Tell) -> None:
    games = _thousand(options)
    count, ours, whole, peers = len(list(games.iterdir())), [], [], []
    for turn in range(options.rounds + 1):  # the first compiles what is compiled once on a machine
        run = engine(options.place / f"parse{turn}", "go", "parse", str(games))
        if turn:
            ours.append(run.answer["seconds_s"])
            whole.append(run.wall_s)
            peers.append(sgfmill_seconds(games, 2))
    answer = run.answer
    tell("parse 1,000 games", statistics.median(ours), "s", "under 1.5", with_start_up_s=statistics.median(whole),
         sgfmill_replay_alone_s=statistics.median(peers), peak_mb=answer["peak_rss_bytes"] / 1e6,
         games=answer["games"], skipped=len(answer["skipped"]), lost=count - answer["games"] - len(answer["skipped"]))  # fmt: skip
    tell(
        "bytes a position",
        answer["bytes"] / answer["positions"],
        "bytes",
        "at most 12",
        positions=answer["positions"],
    )


def _all(options: argparse.Namespace, tell: Tell) -> None:
    if not options.games:
        raise Missing("name recorded games with --games")
    run = engine(options.place / "all", "go", "parse", str(options.games))
    answer = run.answer
    found = answer["games"] + len(answer["skipped"])
    tell("parse every game", answer["seconds_s"], "s", "10,613 under 20", games=answer["games"],
         skipped=len(answer["skipped"]), found=found, without_reason=sum(not one["reason"] for one in answer["skipped"]),
         positions=answer["positions"], games_per_s=answer["games_per_s"])  # fmt: skip
    tell("its peak memory", answer["peak_rss_bytes"] / 1e6, "MB", "under 400")


def _workers(options: argparse.Namespace, tell: Tell) -> None:
    found = killed_workers(_thousand(options), options.place / "killed", workers=4, kills=options.kills, seed=0)
    faults = found["missing_or_double"] + found["other_bytes"]
    tell("four workers, killed", found["killed"], "times", "20, no fault", faults=faults, **found)


def _memory(options: argparse.Namespace, tell: Tell) -> None:
    settings = [f"go.net={options.net}", f"training.precision={options.precision}", "training.micro_batch=64"]
    few = options.place / "few"
    engine(few, "go", "parse", str(_thousand(options)), "--games", "500")
    for name, workspace in (("one shard", few), ("every shard", options.place / "all")):
        if workspace != few and not options.games:
            continue
        if not workspace.exists():
            engine(workspace, "go", "parse", str(options.games))
        shards = len(list((workspace / "go" / "shards").glob("batch_*.npz")))
        progress = workspace / "runs" / "0001" / "progress.json"
        run = engine(workspace, "go", "train", *settings, stop_at=(progress, options.slice))
        tell(
            f"training's size, {name}", run.peak_bytes / 1e6, "MB", "under 600", shards=shards, steps=options.slice
        )


def _loader(options: argparse.Namespace, tell: Tell) -> None:
    rates = loader_share(_shards(options), options.net, options.precision, rounds=options.rounds + 2, steps=8)
    tell("steps from shards over ready batches", rates["shards"] / rates["ready"], "x", "0.97",
         positions_per_s=rates["shards"])  # fmt: skip


def _epochs(options: argparse.Namespace, tell: Tell) -> None:
    shards = _shards(options)
    settings = [f"go.net={options.net}", f"training.precision={options.precision}", f"go.shards={shards}"]
    if options.whole:
        answer = engine(options.place / "epochs", "go", "train", *settings).answer
        tell("5 epochs over 1,000 games", answer["seconds_s"] / 60, "minutes", "under 10", net=options.net,
             top1=answer["best"]["accuracy"], positions_per_s=answer["samples_per_s"])  # fmt: skip
        return
    progress = options.place / "epochs" / "runs" / "0001" / "progress.json"
    engine(options.place / "epochs", "go", "train", *settings, stop_at=(progress, options.slice))
    said = json.loads(progress.read_text())
    left = said["steps"] * 5 * 256 / said["samples_per_s"]
    tell("5 epochs over 1,000 games, forecast", left / 60, "minutes", "under 10", net=options.net,
         positions_per_s=said["samples_per_s"], measured_steps=said["step"], of_steps=said["steps"] * 5)  # fmt: skip


def _strength(options: argparse.Namespace, tell: Tell) -> None:
    if not options.held_out or not options.checkpoint:
        raise Missing("name games of another year with --held-out, and --checkpoint")
    workspace = options.place / "other"
    engine(workspace, "go", "parse", str(options.held_out))
    found = strength(options.checkpoint, workspace / "go" / "shards", options.positions)
    half = 1.96 * (found["accuracy"] * (1 - found["accuracy"]) / found["positions"]) ** 0.5
    tell("top-1 on another year", found["accuracy"], "", "0.40", top5=found["top5"], loss=found["loss"],
         positions=found["positions"], ci95_half=half)  # fmt: skip


def _curve(options: argparse.Namespace, tell: Tell) -> None:
    if not options.run:
        raise Missing("name a finished run's folder with --run")
    for line in (options.run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        minutes = row["seconds_s"] / 60
        tell(f"top-1 after {minutes:.1f} minutes", row["accuracy"], "", "0.40 in 60", top5=row["top5"],
             epoch=row["epoch"], step=row["step"])  # fmt: skip


def _match(options: argparse.Namespace, tell: Tell) -> None:
    if not options.checkpoint or not GNUGO:
        raise Missing("name --checkpoint" if GNUGO else "gnugo is not installed (apt install gnugo)")
    keep: Path = options.keep or options.place / "games"
    keep.mkdir(parents=True, exist_ok=True)
    ours = [sys.executable, "-m", "engine", "--workspace", str(options.place / "match"), "go", "gtp",
            "--checkpoint", str(options.checkpoint)]  # fmt: skip
    began = time.monotonic()
    with program(ours) as net:
        for number in range(options.match_games):
            if not (keep / f"{number:03d}.json").exists() and time.monotonic() - began < options.seconds:
                _one_game(net, number, options.level, keep)
    games = [json.loads(path.read_text()) for path in sorted(keep.glob("*.json"))[: options.match_games]]
    won = sum(game["winner"] == "understudy" for game in games)
    tell(f"won against GNU Go level {options.level}", won / max(len(games), 1), "", "0.50 of 40", won=won,
         games=len(games), as_black=sum(game["winner"] == game["black"] == "understudy" for game in games),
         by_fault=sum(game["score"].endswith("F") for game in games),
         seconds_a_game=statistics.mean(game["seconds_s"] for game in games) if games else None)  # fmt: skip


def _one_game(net: Program, number: int, level: int, keep: Path) -> None:
    names = ("understudy", "gnugo")
    black, white = names if number % 2 == 0 else names[::-1]
    command = [str(GNUGO), "--mode", "gtp", "--level", str(level), "--chinese-rules", "--seed", str(number + 1)]
    began = time.monotonic()
    with program(command) as gnugo:
        game = play_game({"understudy": net, "gnugo": gnugo}, black, white, size=SIZE, komi=KOMI, judge="gnugo")
    (keep / f"{number:03d}.sgf").write_text(game_record(game, SIZE, KOMI))
    told = {"black": black, "winner": game.winner, "score": game.score, "moves": len(game.moves)}
    (keep / f"{number:03d}.json").write_text(json.dumps(told | {"seconds_s": time.monotonic() - began}))
    print(f"game {number + 1}: {black} black, {game.score}, {len(game.moves)} moves", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
