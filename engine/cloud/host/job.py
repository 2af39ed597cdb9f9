"""What the host remembers of one job, `ROOT/jobs/NAME/`, and which processes belong to it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARK, KEEPER = (
    "UNDERSTUDY_JOB",
    "UNDERSTUDY_KEEPER",
)  # in the environment of all that a job starts, of nothing else
FINAL = ("completed", "stopped", "failed", "expired")
_PROCESSES = Path("/proc")


class JobFolder:
    """The files of the job `name` below `root`.

    `job.json` is the order from home, `wanted` what a person wants of it now (`run` or `stop`), `stop_at.json` the dead
    man's timer, `state.json` the keeper's own account; `keeper.lock` is held while a keeper lives.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name
        self.folder = root / "jobs" / name
        self.order = self.folder / "job.json"
        self.state = self.folder / "state.json"
        self.log = self.folder / "log"
        self.lock = self.folder / "keeper.lock"
        self._wanted = self.folder / "wanted"
        self._stop_at = self.folder / "stop_at.json"

    @property
    def mark(self) -> str:
        return f"{self.folder.resolve()}"

    @property
    def wanted(self) -> str:
        try:
            return self._wanted.read_text().strip()
        except FileNotFoundError:
            return "stop"

    def want(self, word: str) -> None:
        write(self._wanted, word)

    def set_timer(self, left_s: float | None) -> None:
        """Have the job end so many seconds from now; None: it may run as long as it likes."""
        timer = None if left_s is None else {"wall": time.time() + left_s, "boot": boot(), "up": up_s() + left_s}
        write(self._stop_at, json.dumps(timer))

    def time_left_s(self) -> float | None:
        """Seconds to the end of the job's time; None: no end. A wall clock that is set back gives no more time."""
        timer = read(self._stop_at)
        if timer is None:
            return None
        left = float(timer["wall"]) - time.time()
        return min(left, float(timer["up"]) - up_s()) if timer["boot"] == boot() else left

    def run_folder(self) -> Path | None:
        run = (read(self.state) or {}).get("run")
        return self.root / "workspace" / "runs" / str(run) if run else None

    def kept(self) -> bool:
        """Whether a keeper lives."""
        if not self.lock.exists():
            return False
        with held(self.lock) as free:
            return not free

    def processes(self, keeper: str | None = None) -> list[int]:
        """What the job (of one keeper, if it is named) has started, wherever it hangs in the tree of processes."""
        wanted = {f"{MARK}={self.mark}".encode(), *([f"{KEEPER}={keeper}".encode()] if keeper else [])}
        found = []
        for entry in _PROCESSES.iterdir():
            if entry.name.isdigit():
                try:
                    environment = (entry / "environ").read_bytes().split(b"\0")
                    if wanted.issubset(environment) and b") Z " not in (entry / "stat").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue  # ended meanwhile, or another account's
        return found

    def end_processes(self, grace_s: float, keeper: str | None = None) -> list[int]:
        """Ask the processes to end, wait, then kill those that did not. Returns who is there even then."""
        for number, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
            for pid in (left := self.processes(keeper)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + patience
            while left and time.monotonic() < deadline:
                time.sleep(0.05)
                left = self.processes(keeper)
            if not left:
                return []
        return left


@contextlib.contextmanager
def held(path: Path, wait_s: float = 0.0) -> Iterator[bool]:
    """Whether this process got the lock `path`, for the block, within `wait_s`; it dies with its holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                yield False
                return
            yield True
            return
    finally:
        os.close(handle)


def write(path: Path, text: str) -> None:
    """Give `path` this content, whole or not at all, on the disk and not only in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    with scratch.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)


def read(path: Path) -> Any | None:
    """The JSON value in `path`; None where there is none, or none that can be read."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def boot() -> str:
    """Another word after each start of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def up_s() -> float:
    """Seconds since the host's start, sleep included; nobody can set this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
