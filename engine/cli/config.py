"""`config show`: the merged settings, where each came from, secrets masked."""

from __future__ import annotations

import json
from typing import Any

import click

from engine.cli.verb import Session, Verb, table
from engine.config.secrets import MASK, NAMES, PLAIN, secret
from engine.errors import UsageError, nearest


@click.command(cls=Verb, words=("show", 0, 1))
def config(session: Session, words: list[str]) -> None:
    """Show the merged settings and where each came from; secrets are masked."""
    if words and words[0] != "show":
        raise UsageError(f"unknown action '{words[0]}'", nearest(words[0], ["show"]))
    origins = session.loaded.origins
    settings = {
        key: {"value": value, "from": origins.get(key, "default")}
        for key, value in _flatten(session.settings.model_dump(mode="json"))
    }
    secrets = {name: MASK if secret(name) else None for name in NAMES} | {name: secret(name) for name in PLAIN}
    path = str(session.loaded.path) if session.loaded.path else None
    session.emit({"settings": settings, "secrets": secrets, "config": path}, _text)


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat += _flatten(value, f"{prefix}{key}.")
        else:
            flat.append((f"{prefix}{key}", value))
    return flat


def _text(result: dict[str, Any]) -> str:
    rows = [
        (key, json.dumps(entry["value"], ensure_ascii=False), entry["from"])
        for key, entry in result["settings"].items()
    ]
    rows += [(name, value or "not set", "environment or .env") for name, value in result["secrets"].items()]
    return table(rows, ("setting", "value", "from"))
