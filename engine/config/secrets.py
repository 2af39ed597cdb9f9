"""Secrets come from the environment or `.env` alone, and are masked wherever text leaves the engine."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from dotenv import dotenv_values

NAMES = (
    "DISCORD_WEBHOOK_URL",
    "TELEGRAM_BOT_TOKEN",
    "TELEGRAM_CHAT_ID",
    "RUNPOD_API_KEY",
    "WANDB_API_KEY",
    "UNDERSTUDY_ADMIN_TOKEN",
)
PLAIN = ("WANDB_MODE",)
MASK = "****"


@cache
def _dotenv() -> dict[str, str | None]:
    places = [Path.cwd() / ".env"]
    if config := os.environ.get("UNDERSTUDY_CONFIG"):
        places.append(Path(config).expanduser().parent / ".env")
    for place in places:
        if place.is_file():
            return dict(dotenv_values(place))
    return {}


def secret(name: str) -> str | None:
    """The value of a secret or of a plain variable such as WANDB_MODE, or None.

    The environment wins over `.env`; a variable that is there but empty switches the secret off.
    """
    return (os.environ[name] if name in os.environ else _dotenv().get(name)) or None


def mask(text: str) -> str:
    """`text` with the value of every known secret replaced by `****`."""
    for name in NAMES:
        value = secret(name)
        if value and len(value) >= 4:
            text = text.replace(value, MASK)
    return text
