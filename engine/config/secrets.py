"""Secrets come from the environment or `.env` alone, and are masked wherever text leaves the engine."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from dotenv import dotenv_values

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
MASK = "****"


_beside: list[Path] = []


def look_beside(config: Path) -> None:
    """Take `.env` from the folder of this config file, where the current folder has none."""
    folder = config.absolute().parent
    if _beside != [folder]:
        _beside[:] = [folder]
        _dotenv.cache_clear()


@cache
def _dotenv() -> dict[str, str | None]:
    folders = [Path.cwd(), *_beside]
    if config := os.environ.get("UNDERSTUDY_CONFIG"):
        folders.append(Path(config).expanduser().parent)
    for folder in folders:
        if (folder / ".env").is_file():
            return dict(dotenv_values(folder / ".env"))
    return {}


def secret(name: str) -> str | None:
    """The value of a secret or of a plain variable such as WANDB_MODE, or None.

    The environment wins over `.env`; a variable that is there but empty switches the secret off.
    """
    return (os.environ[name] if name in os.environ else _dotenv().get(name)) or None


def mask(text: str) -> str:
    """`text` with the value of every known secret replaced by `****`, and with the part of it that is secret."""
    for name in NAMES:
        value = secret(name)
        for part in (value, re.split("[/:]", value)[-1]) if value else ():
            if len(part) >= (4 if part == value else 8):
                text = text.replace(part, MASK)
    return text
