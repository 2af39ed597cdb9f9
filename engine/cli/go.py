"""`go`: the Go policy network, from game records to a net."""

from __future__ import annotations

import contextlib
import resource
import socket
import sys
import time
from pathlib import Path
from typing import Any

import click

from engine.cli.group import VerbGroup
from engine.cli.train import run_training
from engine.cli.verb import FiniteRange, Session, Verb, table
from engine.config import Settings
from engine.errors import Refused, UsageError
from engine.training.signals import stop_with

go = VerbGroup(
    {
        "parse": ("go", "Game records to shards; any number of workers share the work."),
        "train": ("go", "Train a policy network on the shards; run again, it goes on."),
        "suggest": ("go_play", "The net's best moves in a position, on a drawn board."),
        "play": ("go_play", "Play against the net in the terminal."),
        "gtp": ("go_play", "A GTP 2 engine, for any Go program."),
        "stats": ("go", "Memory, shards and training at a glance."),
        "reset": ("go", "Remove the shards, to parse anew; runs and checkpoints stay."),
    },
    prefix="go_",
    name="go",
    help="The Go policy network.",
)


def shards_folder(session: Session) -> Path:
    return session.settings.go.shards or session.workspace.root / "go" / "shards"


@click.command(cls=Verb, words=("PATHS", 1, None))
@click.option("--games", type=click.IntRange(min=1), help="Parse at most so many games in all.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes (default: one a core).")
def go_parse(session: Session, words: list[str], games: int | None, workers: int | None) -> None:
    """Parse folders, SGF files and archives into shards of go.games_per_shard games."""
    from engine.tasks.go.parse import parse

    with contextlib.ExitStack() as stack:
        hands = None
        if (wanted := session.settings.cluster).address:
            from engine.cluster import games as on_cluster
            from engine.cluster.joining import join

            hands = on_cluster.hands(stack.enter_context(join(wanted.address, session.say)), wanted.retries)
        answer = parse(
            words,
            shards_folder(session),
            filters=filters_of(session.settings),
            games_per_shard=session.settings.go.games_per_shard,
            games=games,
            workers=workers,
            say=session.say,
            hands=hands,
        )
    answer["peak_rss_bytes"] = _peak_rss_bytes()
    session.emit(answer, _parsed)


def _peak_rss_bytes() -> int:
    """The greatest size of this process and the greatest of its children, added up."""
    unit = 1 if sys.platform == "darwin" else 1024
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(kind).ru_maxrss for kind in kinds) * unit


def filters_of(settings: Settings) -> Any:
    """The filters of `go.*`.

    Raises:
        UsageError: a rank or a day that cannot be read.
    """
    from engine.tasks.go.plan import Filters
    from engine.tasks.go.records import day_number, rank_number

    go_ = settings.go
    rank = rank_number(go_.min_rank) if go_.min_rank else -99
    if go_.min_rank and rank == -99:
        raise UsageError(f"go.min_rank = '{go_.min_rank}' is no rank", "write 9k, 5d or 1p")
    days = {}
    for name in ("since", "until"):
        text = getattr(go_, name)
        days[name] = day_number(text) if text else 0
        if text and not days[name]:
            raise UsageError(f"go.{name} = '{text}' is no day", "write 2003-12-31, 2003-12 or 2003")
    if days["until"]:
        days["until"] += 99 if not days["until"] % 100 else 0
        days["until"] += 9900 if not days["until"] // 100 % 100 else 0
    return Filters(go_.board_size, rank, days["since"], days["until"], go_.result)


@click.command(cls=Verb)
@click.option("--resume", metavar="RUN", help="Go on with this interrupted run (or: latest).")
@click.option("--fresh", is_flag=True, help="Start from new weights, not from the newest run's.")
@click.option("--detach", is_flag=True, help="Start it in the background and return at once.")
@click.option("--overwrite", is_flag=True, help="Replace a better best of the same cycle.")
@click.option("--claimed", hidden=True, metavar="RUN")
@click.option("--tied", hidden=True, is_flag=True, help="Stop when standard input ends.")
def go_train(
    session: Session,
    resume: str | None,
    fresh: bool,
    detach: bool,
    overwrite: bool,
    claimed: str | None,
    tied: bool,
) -> None:
    """Train on the shards. An interrupted run goes on; after a completed one a new run starts from its weights."""
    if tied:
        stop_with(sys.stdin.fileno())
    run_training(
        session, "go", resume=resume, follow=not fresh, detach=detach, overwrite=overwrite, claimed=claimed
    )


@click.command(cls=Verb)
@click.option("--watch", is_flag=True, help="Again every --interval seconds, until stopped.")
@click.option("--interval", type=FiniteRange(min=0.2), default=2.0, show_default=True, metavar="S")
def go_stats(session: Session, watch: bool, interval: float) -> None:
    """Memory of the machine and of what trains, the shards and what was trained on them."""
    while True:
        session.emit(_stats(session), _stats_text)
        if not watch:
            return
        time.sleep(interval)


@click.command(cls=Verb)
@click.option("--yes", is_flag=True, help="Do not ask.")
def go_reset(session: Session, yes: bool) -> None:
    """Remove every shard and plan; games are parsed from the beginning next time. Runs and checkpoints stay."""
    from engine.tasks.go.parse import reset

    folder = shards_folder(session)
    found = sorted(folder.glob("batch_*.npz")) if folder.is_dir() else []
    if found and not yes:
        if session.json or not sys.stdin.isatty():
            raise Refused(f"{len(found)} shards would be removed", "confirm with --yes")
        if not click.confirm(f"Remove {len(found)} shards in {folder}?", err=True):
            raise UsageError("not confirmed", "nothing was removed", kind="unconfirmed")
    removed = reset(folder)
    session.emit({"removed": removed, "folder": str(folder)}, f"{removed} files removed from {folder}")


def _stats(session: Session) -> dict[str, Any]:
    import psutil

    from engine.tasks.go.parse import summary
    from engine.training.runs import list_runs

    folder, memory = shards_folder(session), psutil.virtual_memory()
    runs = [run for run in list_runs(session.workspace) if run.get("task") == "go"]
    running = next((run for run in runs if run["status"] == "running"), None)
    shards = summary(folder)
    epochs = sum(run["epoch"] or 0 for run in runs)
    return {
        "folder": str(folder),
        "shards": shards["shards"],
        "shards_bytes": shards["bytes"],
        "games": shards["games"],
        "positions": shards["positions"],
        "skipped": len(shards["skipped"]),
        "runs": len(runs),
        "epochs_done": epochs,
        "best": max((run["best"] for run in runs if run["best"]), key=lambda best: best["accuracy"], default=None),
        "running": running and running["run"],
        "process": _process(session, running["run"]) if running else None,
        "memory": {
            "total_bytes": memory.total,
            "used_bytes": memory.used,
            "available_bytes": memory.available,
            "percent": memory.percent,
        },
    }


def _process(session: Session, run: str) -> dict[str, int] | None:
    """The process of a running training and its sizes; None where it is another host's, or has just ended."""
    import psutil

    from engine.training.runs import RunFolder

    manifest = RunFolder(session.workspace.runs / run).read_manifest()
    if manifest.get("host") != socket.gethostname():
        return None
    try:
        sizes = psutil.Process(manifest["pid"]).memory_info()
    except psutil.Error:
        return None
    return {"pid": manifest["pid"], "rss_bytes": sizes.rss, "vms_bytes": sizes.vms}


def _stats_text(value: dict[str, Any]) -> str:
    memory, process, best = value["memory"], value["process"], value["best"]
    rows = [
        ("memory", f"{memory['used_bytes'] / 2**30:.1f} of {memory['total_bytes'] / 2**30:.1f} GiB used"
                   f" ({memory['percent']:.0f}%), {memory['available_bytes'] / 2**30:.1f} GiB available"),
        ("training", f"run {value['running']}, pid {process['pid']}: RSS {process['rss_bytes'] / 2**20:,.0f} MiB,"
                     f" VMS {process['vms_bytes'] / 2**20:,.0f} MiB" if process else
                     f"run {value['running']}, its process is not on this host" if value["running"] else "nothing runs"),
        ("shards", f"{value['shards']} in {value['folder']}, {value['shards_bytes'] / 2**20:.1f} MiB"),
        ("games", f"{value['games']:,} games, {value['positions']:,} positions; {value['skipped']} left out"),
        ("trained", f"{value['runs']} runs, {value['epochs_done']} epochs"),
        ("best", f"top-1 {best['accuracy']:.2%}, top-5 {best['top5']:.2%}" if best else "–"),
    ]  # fmt: skip
    return table(rows)


def _parsed(value: dict[str, Any]) -> str:
    lines = [
        f"{value['games']:,} games, {value['positions']:,} positions in {value['shards']} shards"
        f" ({value['bytes'] / 2**20:.1f} MiB, {value['bytes'] / max(value['positions'], 1):.1f} bytes a position)",
    ]
    if value["games_per_s"]:
        lines.append(
            f"{value['parsed']:,} games in {value['seconds_s']:.1f} s: {value['games_per_s']:,.0f} games/s"
        )
    if value["skipped"]:
        lines.append(f"left out {len(value['skipped'])}:")
        lines += [f"  {one['path']}: {one['reason']}" for one in value["skipped"][:20]]
        if len(value["skipped"]) > 20:
            lines.append(f"  and {len(value['skipped']) - 20} more (--json names all)")
    if value["waiting"]:
        lines.append(f"{value['waiting']} shards wait for games that are not among these paths")
    return "\n".join(lines)
