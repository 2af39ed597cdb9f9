"""`bench NAME`: the repeatable measurements of the checkout's `benchmarks/` folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from engine.cli.verb import FiniteRange, Session, Verb, table
from engine.errors import Failed, UsageError, nearest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


@click.command(
    cls=Verb,
    words=("NAME [-- OPTION...]", 1, None),
    epilog=f"NAME is one of {', '.join(NAMES)}." if NAMES else None,
)
@click.option("--hourly-usd", type=FiniteRange(min=0), metavar="USD",
              help="With devices: the price of an hour of this machine.")  # fmt: skip
def bench(session: Session, words: list[str], hourly_usd: float | None) -> None:
    """Run one of the repeatable measurements (serving, sync, training, ...); what follows `--` are its own options."""
    if not NAMES:
        raise UsageError("this installation has no benchmarks", "run it in a checkout of the project")
    if words[0] not in NAMES:
        raise UsageError(f"unknown benchmark '{words[0]}'", nearest(words[0], NAMES))
    if hourly_usd is not None and words[0] != "devices":
        raise UsageError(f"--hourly-usd says nothing to '{words[0]}'", "leave it out, or: bench devices")
    more = [*words[1:], *([] if hourly_usd is None else ["--hourly-usd", str(hourly_usd)])]
    if words[0] == "devices":  # for cloud plan
        more += ["--workspace", str(session.workspace.root.absolute())]
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{words[0]}", "--json", *more],
        cwd=FOLDER.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Failed(f"the benchmark {words[0]} failed with exit code {done.returncode}", "see its words above")
    session.emit(json.loads(done.stdout.splitlines()[-1]), _text)


def _text(answer: dict[str, Any]) -> str:
    results: list[dict[str, Any]] = answer["results"]
    columns = list(dict.fromkeys(key for result in results for key in result))
    return table([[_shown(result.get(column)) for column in columns] for result in results], columns)


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
