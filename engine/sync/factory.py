"""The source that the settings name."""

from __future__ import annotations

from pathlib import Path

from engine.config import Settings
from engine.errors import UsageError
from engine.sync.local import LocalSource
from engine.sync.source import Source


def open_source(settings: Settings) -> Source:
    """The source that the settings name; asyncssh is imported only for `source.kind = "ssh"`.

    Raises:
        UsageError: `source.kind` is ssh and `source.host` or `source.root` is not set.
    """
    place = settings.source
    if place.kind == "local":
        explicit = place.root is not None
        root = Path(place.root).expanduser() if place.root is not None else settings.checkpoints_root
        return LocalSource(root, must_exist=explicit)
    for key, value in (("source.host", place.host), ("source.root", place.root)):
        if not value:
            raise UsageError(
                f"{key} is not set, and source.kind is ssh", f"set {key} in config.toml", kind="missing_setting"
            )
    from engine.sync.remote import RemoteSource

    return RemoteSource(place)
