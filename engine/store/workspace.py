"""Where things lie in a workspace. Folders are made when something is first put there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SLOTS = ("asis", "tobe")
TITLES = {"asis": "AS-IS", "tobe": "TO-BE"}


@dataclass(frozen=True)
class Workspace:
    """The folder that holds one host's state."""

    root: Path

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def multirun(self) -> Path:
        """Sweeps, `DATE/TIME/`."""
        return self.root / "multirun"

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    @property
    def slots(self) -> Path:
        return self.root / "slots"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def comparisons(self) -> Path:
        return self.root / "comparisons"

    @property
    def incoming(self) -> Path:
        """Checkpoints on their way in; nothing here is trusted."""
        return self.root / "incoming"

    @property
    def state(self) -> Path:
        """Small JSON files of remembered facts: last sync, refused hashes, notes of the notifier."""
        return self.root / "state"

    @property
    def data(self) -> Path:
        """Embedded data sets, written out as images."""
        return self.root / "data"

    @property
    def cache(self) -> Path:
        """What can be made again, and is bounded: checked and decoded images."""
        return self.root / "cache"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def journal(self) -> Path:
        return self.root / "slots" / "journal.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    def lock(self, name: str) -> Path:
        """The lock file of `sync`, `slots`, `compare`, ...; hold it with `engine.store.locks.hold`."""
        return self.root / "locks" / f"{name}.lock"
