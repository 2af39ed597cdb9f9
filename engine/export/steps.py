"""What an export has done already, so that one that was killed goes on where it stood. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import Failed
from engine.store.files import read_json, sha256_file, write_json

_NAME = ".export-steps.json"


class Steps:
    """The finished steps of a folder: each with what it depended on, and the hash of the file that it made."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        try:
            held = read_json(self._path)
        except Failed:
            held = None  # damaged: everything is done anew
        entries = held.items() if isinstance(held, dict) else ()
        self._held = {step: entry for step, entry in entries if isinstance(entry, dict) and "key" in entry}

    def kept(self, step: str, key: dict[str, Any], path: Path) -> dict[str, Any] | None:
        """What was noted of a step whose file is still there as it was made; None: it is to be done."""
        found = self._held.get(step)
        if not found or found["key"] != key or not path.is_file() or sha256_file(path) != found.get("sha256"):
            return None
        facts: dict[str, Any] = found["facts"]
        return facts

    def done(self, step: str, key: dict[str, Any], path: Path, facts: dict[str, Any]) -> None:
        self._held[step] = {"key": key, "sha256": sha256_file(path), "facts": facts}
        write_json(self._path, self._held)

    def noted(self, step: str, key: dict[str, Any]) -> str | None:
        """The word that `note` kept for a step, where it still depends on the same."""
        found = self._held.get(step)
        return found.get("word") if found and found["key"] == key else None

    def note(self, step: str, key: dict[str, Any], word: str) -> None:
        self._held[step] = {"key": key, "word": word}
        write_json(self._path, self._held)
