"""Who makes which shard, without a server: a claim is a file that its worker keeps young.

A claim is created exclusively, and touched every few seconds. One that has grown old, or whose process on
this host is gone, belongs to nobody: it is taken away by a rename, which only one worker wins. Ages are read
off the folder's own clock, so that computers whose clocks differ agree. Should two workers make one shard all
the same, both make the same bytes, and the second finds the name taken.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

BEAT_S = 5.0
STALE_S = 30.0


class Claims:
    """The claims of one worker on one folder."""

    def __init__(self, folder: Path, *, beat_s: float = BEAT_S, stale_s: float = STALE_S) -> None:
        self._folder, self._beat_s, self._stale_s = folder, beat_s, stale_s
        self._host = socket.gethostname()
        self._me = {
            "worker": uuid.uuid4().hex,
            "host": self._host,
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
        }

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Hold the claim on `name` for the block; False where another living worker holds it."""
        path = self._folder / f"{name}.claim"
        if not self._create(path) and not (self._free(path) and self._create(path)):
            yield False
            return
        ended = threading.Event()
        beat = threading.Thread(target=self._beat, args=(path, ended), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            ended.set()
            beat.join()
            if self._holder(path).get("worker") == self._me["worker"]:
                path.unlink(missing_ok=True)

    def living(self) -> list[str]:
        """The names that living workers hold claims on."""
        paths = sorted(self._folder.glob("*.claim"))
        return [path.name.removesuffix(".claim") for path in paths if not self._dead(path, self._holder(path))]

    def clear(self, made: Callable[[str], bool]) -> None:
        """Take away dead workers' claims on what is made: who died right after it left one that nobody asks for."""
        for path in sorted(self._folder.glob("*.claim")):
            if made(path.name.removesuffix(".claim")):
                self._free(path)

    def _create(self, path: Path) -> bool:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            json.dump(self._me, file)
        return True

    def _free(self, path: Path) -> bool:
        """Take a dead worker's claim away; whether it is gone now."""
        holder = self._holder(path)
        if not self._dead(path, holder):
            return not path.exists()
        grave = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            path.rename(grave)
        except FileNotFoundError:
            return True
        if self._holder(grave) != holder:  # somebody else was quicker, and this is the new holder's
            with contextlib.suppress(FileExistsError):
                os.link(grave, path)
            grave.unlink()
            return False
        grave.unlink()
        return True

    def _dead(self, path: Path, holder: dict[str, object]) -> bool:
        if holder.get("host") == self._host and isinstance(holder.get("pid"), int):
            try:
                process = psutil.Process(int(str(holder["pid"])))
                return abs(process.create_time() - float(str(holder["started"]))) > 1
            except psutil.NoSuchProcess:
                return True
        try:
            return self._folder_now() - path.stat().st_mtime > self._stale_s
        except FileNotFoundError:
            return False

    def _folder_now(self) -> float:
        """The time by the clock of the folder's file system."""
        probe = self._folder / f".clock.{self._me['worker']}"
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _holder(self, path: Path) -> dict[str, object]:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def _beat(self, path: Path, ended: threading.Event) -> None:
        while not ended.wait(self._beat_s):
            try:
                os.utime(path)
            except FileNotFoundError:
                return
