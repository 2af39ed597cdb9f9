"""`trackers`: which trackers are on; `trackers register` tells MLflow's registry what the slots hold."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
from typing import Any

import click

from engine.cli.verb import Session, Verb, table
from engine.config import secret
from engine.config.schema import TRACKERS
from engine.errors import UsageError, nearest

_LONGEST_S = 120


@click.command(cls=Verb, words=("[register]", 0, 1))
def trackers(session: Session, words: list[str]) -> None:
    """Show the trackers; with `register`, give MLflow's aliases champion and challenger to what the slots hold."""
    if not words:
        session.emit({"trackers": [_one(session, name) for name in _named(session)]}, _table)
        return
    if words[0] != "register":
        raise UsageError(f"'trackers' knows no '{words[0]}'", nearest(words[0], ["register"]))
    if importlib.util.find_spec("mlflow") is None:
        raise UsageError("mlflow is not installed", "pip install 'understudy[trackers]'", kind="missing_extra")
    signal.alarm(_LONGEST_S)  # a registry that hangs keeps nobody
    for name, value in (("REQUEST_TIMEOUT", "20"), ("REQUEST_MAX_RETRIES", "2")):
        os.environ.setdefault(f"MLFLOW_HTTP_{name}", value)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from engine.training.trackers.registry import register

    found = register(session.workspace, session.settings)
    session.emit({"registered": found, "model": session.settings.trackers.mlflow_model}, _registered)


def _named(session: Session) -> list[str]:
    own = [name for name in session.settings.training.trackers if name not in TRACKERS]
    return [*TRACKERS, *own]


def _one(session: Session, name: str) -> dict[str, Any]:
    package = name if name in TRACKERS else name.partition(":")[0].partition(".")[0]
    installed = importlib.util.find_spec(package) is not None
    on = name in session.settings.training.trackers
    detail = "on" if on else f"off; training.trackers={name} turns it on"
    if on and not installed:
        detail = "not installed: pip install 'understudy[trackers]'"
    elif on and name == "wandb":
        mode = secret("WANDB_MODE") or (
            "online" if secret("WANDB_API_KEY") else "offline, for there is no WANDB_API_KEY"
        )
        detail = f"on, {mode}"
    return {"name": name, "on": on, "installed": installed, "detail": detail}


def _table(value: dict[str, Any]) -> str:
    return table([(entry["name"], entry["detail"]) for entry in value["trackers"]])


def _registered(value: dict[str, Any]) -> str:
    rows = [
        (entry["alias"], f"{value['model']} version {entry['version']}" if entry["version"] else "–",
         (entry["release"] or "empty")[:8])
        for entry in value["registered"]
    ]  # fmt: skip
    return table(rows)
