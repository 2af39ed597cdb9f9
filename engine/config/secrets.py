"""Secrets come from the environment, `.env`, or where a reference of theirs points; wherever text leaves the engine
they are masked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from dotenv import dotenv_values

from engine.config import references

NAMES = (
    "DISCORD_WEBHOOK_URL",
    "TELEGRAM_BOT_TOKEN",
    "TELEGRAM_CHAT_ID",
    "WEBHOOK_URL",
    "WEBHOOK_SECRET",
    "RUNPOD_API_KEY",
    "WANDB_API_KEY",
    "UNDERSTUDY_ADMIN_TOKEN",
)
PLAIN = ("WANDB_MODE",)
# What other programs of the road read for themselves: masked too, never looked up.
_THEIRS = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "HF_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
MASK = "****"


_beside: list[Path] = []
_referred: dict[str, str] = {}


def look_beside(config: Path) -> None:
    """Take `.env` from the folder of this config file, where the current folder has none."""
    folder = config.absolute().parent
    if _beside != [folder]:
        _beside[:] = [folder]
        _dotenv.cache_clear()


def refer(found: Mapping[str, str]) -> None:
    """Take the config's references for what neither the environment nor `.env` names."""
    _referred.clear()
    _referred.update(found)


@cache
def _dotenv() -> tuple[Path | None, dict[str, str | None]]:
    folders = [Path.cwd(), *_beside]
    if config := os.environ.get("UNDERSTUDY_CONFIG"):
        folders.append(Path(config).expanduser().parent)
    for folder in folders:
        if (folder / ".env").is_file():
            return folder / ".env", dict(dotenv_values(folder / ".env"))
    return None, {}


def _variable(name: str) -> str | None:
    return os.environ[name] if name in os.environ else _dotenv()[1].get(name)


def _given(name: str) -> str:
    """The secret, or its reference, as it stands; one that is there but empty switches the secret off."""
    found = _variable(name)
    return (_referred.get(name) if found is None else found) or ""


def secret(name: str) -> str | None:
    """The value of a secret or of a plain variable such as WANDB_MODE, or None.

    The environment wins over `.env`, and that over the config's references.

    Raises:
        Failed, UsageError: it is a reference, and what it points to cannot be had.
    """
    text = _given(name)
    return (references.resolve(name, text, _variable) if references.is_reference(text) else text) or None


def reference(name: str) -> str:
    """The reference that stands for a secret; "" where there is none, or the secret itself."""
    text = _given(name)
    return text if references.is_reference(text) else ""


def whence(name: str) -> str:
    """Where a secret comes from, for people: "environment", "config, file:/etc/x", or "" when it is not set."""
    if not _given(name):
        return ""
    file, found = _dotenv()
    place = "environment" if name in os.environ else str(file) if name in found else "config"
    return f"{place}, {references.described(text)}" if (text := reference(name)) else place


def missing_from(folders: Sequence[Path]) -> list[str]:
    """Secrets that are set here, and are not for a process without this environment that looks into these folders.

    Args:
        folders: where it looks for `.env`; the first one counts, as for this process.
    """
    file = next((folder / ".env" for folder in folders if (folder / ".env").is_file()), None)
    theirs = dotenv_values(file) if file else {}
    return [name for name in NAMES if _given(name) and name not in theirs and name not in _referred]


def mask(text: str) -> str:
    """`text` with the value of every known secret replaced by `****`, and with the part of it that is secret.

    No reference is followed for this: what this process has not asked for, it cannot say.
    """
    for value in _values():
        for part in (value, re.split("[/:]", value)[-1]):
            if len(part) >= (4 if part == value else 8):
                text = text.replace(part, MASK)
    return text


def _values() -> Iterator[str]:
    for name in (*NAMES, *_THEIRS):
        value = _given(name)
        if value.startswith("env:"):
            value = _variable(value.removeprefix("env:").strip()) or ""
        if value and not references.is_reference(value):
            yield value
    yield from references.known()
