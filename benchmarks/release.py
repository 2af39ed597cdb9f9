"""Promotion and rollback: failed requests and latency under clients, and how long a rollback takes.

`python -m benchmarks.release [--json] [--swaps N] [--what many,watched,rollback]`

N promotions and N rollbacks, as commands, under 32 connections (`many`); some more under 8 (`watched`), whose
answers are sorted into those asked in a second in which a swap ran and the others (steady). A rollback is timed
as a person runs it, a fresh process with its whole wall time (`rollback`): warm, three seconds after the
promotion; straight after it; and cold, AS-IS restarted just before.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks._load import PROJECT, load
from benchmarks.chaos import FORCE, Host, host
from benchmarks.serving import make_releases
from engine.release.backups import find_backups
from engine.release.control import slot_stats
from engine.store.workspace import Workspace

WHAT = ("many", "watched", "rollback")
_WINDOW_S = 1.0
_STEADY_S, _BETWEEN_S, _WATCHED = 6.0, 2.0, 5


def _backup(here: Host, release: str) -> str:
    return next(
        found.name
        for found in find_backups(here.workspace, here.ports["asis"], verify=False)
        if found.release == release
    )


def _swap(here: Host, old: str, done: list[tuple[str, float, float]]) -> None:
    """One promotion and one rollback; adds (verb, began, seconds) of each."""
    for words in (("promote", *FORCE), None):
        given = words or ("rollback", _backup(here, old), "--json")
        began = time.monotonic()
        ran = here.commands.run(*given)
        if ran.code:
            raise SystemExit(f"{' '.join(given)}: {ran.err}{ran.out}")
        done.append((given[0], began, ran.seconds))


def _p99(values: list[float]) -> float | None:
    return sorted(values)[int(0.99 * (len(values) - 1))] if values else None


def _latencies(here: Host, old: str, swaps: int) -> dict[str, Any]:
    done: list[tuple[str, float, float]] = []
    with load(here.ports["asis"], 8) as seen:
        time.sleep(_STEADY_S)
        for _ in range(swaps):
            _swap(here, old, done)
            time.sleep(_BETWEEN_S)
    windows = [(began, began + max(seconds, _WINDOW_S)) for _, began, seconds in done]
    inside: list[float] = []
    steady: list[float] = []
    for at, took in zip(seen["at"], seen["took_ms"], strict=True):
        (inside if any(start <= at <= end for start, end in windows) else steady).append(took)
    return {
        "what": "8 connections",
        "swaps": len(done),
        "failed_requests": seen["failures"],
        "answers": seen["answers"],
        "p99_steady_ms": _p99(steady),
        "p99_swap_ms": _p99(inside),
    }


def _fresh(here: Host, *words: str) -> float:
    """Seconds of an engine command in a process of its own."""
    common = ["--config", str(here.config), "--workspace", str(here.workspace.root)]
    began = time.monotonic()
    command = [sys.executable, "-m", "engine", *common, *words]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=60)
    return time.monotonic() - began


def _rollbacks(here: Host, old: str, before: Callable[[], None], times: int) -> float:
    took = []
    for _ in range(times):
        _fresh(here, "promote", *FORCE)
        before()
        took.append(_fresh(here, "rollback", _backup(here, old), "--json"))
    return statistics.median(took)


def _restarted(here: Host) -> None:
    """AS-IS ends and comes back, as `serve` restarts a slot: it holds its release and no spare."""
    stats = slot_stats(here.workspace, "asis")
    assert stats is not None
    os.kill(stats["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        now = slot_stats(here.workspace, "asis")
        if now is not None and now["pid"] != stats["pid"] and now["state"] == "live":
            return
        time.sleep(0.02)
    raise SystemExit("AS-IS did not come back")


def measure(swaps: int, what: list[str]) -> Iterator[dict[str, Any]]:
    """The parts in `what`, one result after another, as each is done."""
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        root = Path(folder)
        workspace = Workspace(root / "workspace")
        workspace.root.mkdir()
        releases = make_releases(workspace)
        with host(root, releases) as here:
            old = releases[0].id
            if "many" in what:
                yield _many(here, old, swaps)
            if "watched" in what:
                yield _latencies(here, old, min(_WATCHED, swaps))
            if "rollback" in what:
                ways: tuple[tuple[str, Callable[[], None]], ...] = (
                    ("warm", lambda: time.sleep(3)),
                    ("at once", lambda: None),
                    ("cold", lambda: _restarted(here)),
                )
                for name, before in ways:
                    yield {"what": f"rollback, {name}", "seconds": _rollbacks(here, old, before, 3)}


def _many(here: Host, old: str, swaps: int) -> dict[str, Any]:
    done: list[tuple[str, float, float]] = []
    with load(here.ports["asis"], 32) as seen:
        for _ in range(swaps):
            _swap(here, old, done)
    mixed = sum(len({label[0] for label in labels}) > 1 for labels in seen["labels"].values())
    return {
        "what": "32 connections",
        "swaps": len(done),
        "failed_requests": seen["failures"] + mixed,
        "answers": seen["answers"],
        "p99_ms": _p99(seen["took_ms"]),
        "seconds_a_swap": statistics.median(seconds for *_, seconds in done),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--what", default=",".join(WHAT))
    options = parser.parse_args(argv)
    what = options.what.split(",")
    if unknown := set(what) - set(WHAT):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; one of {', '.join(WHAT)}")
    results = measure(options.swaps, what)
    if options.json:
        print(json.dumps({"results": list(results)}))
        return
    for result in results:
        print("  ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                        for key, value in result.items()), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
