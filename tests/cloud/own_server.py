"""A server of one's own for the tests: a real sshd on loopback, and an engine that only counts."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._rented import Rented
from engine.cloud.provider import Job, MachineState
from engine.cloud.ssh import SshProvider

# counts a state every 20 ms, to the setting `to`, and beyond it for as long as the home has a file `held`; stops as
# a training does; `code` is its exit code
ENGINE = """
import json, os, signal, sys, time
from pathlib import Path
words = sys.argv[1:]
root = Path(words[words.index("--workspace") + 1])
run = words[words.index("--claimed" if "--claimed" in words else "--resume") + 1]
folder = root / "runs" / run
settings = dict(word.split("=") for word in words if "=" in word)
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1) if "deaf" not in settings else None)
(folder / "manifest.json").write_text(json.dumps({"settings": {"epochs": 1}}))
state = folder / "last.json"
count = json.loads(state.read_text()) if state.exists() else 0
print("from", count, *words[words.index("--workspace") + 2 :], os.environ.get("TOKEN", ""), flush=True)
while count < int(settings.get("trackers.to", 40)) or (Path.home() / "held").exists():
    time.sleep(0.02)
    count += 1
    scratch = folder / "scratch"
    scratch.write_text(json.dumps(count))
    scratch.replace(state)
    if stopped:
        sys.exit(130)
print("ends with", settings.get("trackers.code", "0"), flush=True)
sys.exit(int(settings.get("trackers.code", "0")))
"""


@dataclass
class OwnServer:
    """The server, its provider, and what the provider said; `settings` are those of `[cloud.ssh]`."""

    host: Rented
    code: Path
    settings: dict[str, object] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        package = self.code / "engine"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "__main__.py").write_text(ENGINE)
        self.settings = {"python": sys.executable, "files": ["**/*", ".env"], "grace_s": 0.5, **self.settings}

    def hold(self) -> None:
        """No training there comes to its end until `let_end`."""
        (self.host.home / "held").touch()

    def let_end(self) -> None:
        (self.host.home / "held").unlink()

    @property
    def provider(self) -> SshProvider:
        return SshProvider(self.host.settings(**self.settings), self.said.append)

    def job(self, *words: str, name: str = "train-1", left_s: float | None = None, **more: object) -> Job:
        stop_at = None if left_s is None else time.time() + left_s
        return Job(name, ("train", *words), self.code, stop_at=stop_at, **more)  # type: ignore[arg-type]


def settled(state: MachineState) -> tuple[str, str]:
    return state.state, state.job
