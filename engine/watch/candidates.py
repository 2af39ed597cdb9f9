"""Whether the source has anything, seen without hashing or opening a file."""

from __future__ import annotations

import time
from pathlib import Path

from engine.checkpoints.naming import choose
from engine.config import Settings
from engine.errors import UnderstudyError


def source_has_candidates(settings: Settings) -> bool:
    """Whether `sync` could find something; a source on another host is taken to have it."""
    if settings.source.kind != "local":
        return True
    from engine.sync.local import LocalSource

    root = Path(settings.source.root) if settings.source.root else settings.checkpoints_root
    try:
        with LocalSource(root, must_exist=False) as source:
            return bool(choose(source.listing(), time.time()).candidates)
    except UnderstudyError:
        return False
