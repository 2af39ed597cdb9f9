"""`config show`: the merged settings, where each came from, secrets masked."""

from __future__ import annotations

import json
import re
from typing import Any

import click

from engine.cli.verb import Session, Verb, table
from engine.config import Loaded
from engine.config.references import described
from engine.config.secrets import MASK, NAMES, PLAIN, reference, secret, whence
from engine.errors import UsageError, nearest

_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^/@\s]+@")


@click.command(cls=Verb, words=("show", 0, 1))
def config(session: Session, words: list[str]) -> None:
    """Show the merged settings and where each came from; secrets are masked."""
    if words and words[0] != "show":
        raise UsageError(f"unknown action '{words[0]}'", nearest(words[0], ["show"]))
    loaded = session.loaded
    session.emit(
        {
            "settings": _settings(loaded),
            "secrets": {name: MASK if whence(name) else None for name in NAMES} | _plain(),
            "secrets_from": {name: whence(name) or None for name in (*NAMES, *PLAIN)},
            "config": str(loaded.path) if loaded.path else None,
            "environment": loaded.environment or None,
            "environments": list(loaded.environments),
        },
        _text,
    )


def _settings(loaded: Loaded) -> dict[str, dict[str, Any]]:
    """Each setting with its origin; no password in an address, no arguments of a command that gives a secret."""
    shown = {}
    for key, value in _flatten(loaded.settings.model_dump(mode="json")):
        if isinstance(value, str):
            value = described(value) if key.startswith("secrets.") else _PASSWORD.sub(rf"\1{MASK}@", value)
        shown[key] = {"value": value, "from": loaded.origins.get(key, "default")}
    return shown


def _plain() -> dict[str, str | None]:
    return {name: None if reference(name) else secret(name) for name in PLAIN}


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
    rows += [
        (name, value or "not set", result["secrets_from"][name] or "environment, .env or [secrets]")
        for name, value in result["secrets"].items()
    ]
    return table(rows, ("setting", "value", "from"))
