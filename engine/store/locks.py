"""Kernel locks that name their holder and die with it (`flock`)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from engine.errors import Busy
from engine.store.clock import timestamp


@contextlib.contextmanager
def hold(path: Path, purpose: str, *, wait: bool = False, timeout_s: float | None = None) -> Iterator[None]:
    """Hold the lock file `path` exclusively for the block.

    Args:
        purpose: what the holder does, shown to whoever finds the lock taken ("promote").
        wait: wait for the holder instead of failing; `timeout_s` bounds the waiting (None: for ever).

    Raises:
        Busy: somebody else holds it; the message says who and since when.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    _handles.add(handle)
    try:
        _acquire(handle, path, wait, timeout_s)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "purpose": purpose, "since": timestamp()}).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(handle, 0)
    finally:
        _handles.discard(handle)
        os.close(handle)


_handles: set[int] = set()


def _leave_to_parent() -> None:
    """A forked child shares its parent's lock, and would keep it beyond the parent's death."""
    while _handles:
        os.close(_handles.pop())


os.register_at_fork(after_in_child=_leave_to_parent)


def holder(path: Path) -> dict[str, object] | None:
    """Who holds the lock: `{pid, purpose, since}`, or None when it is free."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(handle)
        return None
    finally:
        os.close(handle)


def _acquire(handle: int, path: Path, wait: bool, timeout_s: float | None) -> None:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if wait and (deadline is None or time.monotonic() < deadline):
                time.sleep(0.05)
                continue
        who = _read_holder(handle)
        said = f"{who['purpose']} (pid {who['pid']}) since {who['since']}" if who else "another process"
        raise Busy(f"busy: {path.stem} is held by {said}", "wait for it, or give --wait")


def _read_holder(handle: int) -> dict[str, object]:
    for _ in range(20):
        try:
            return dict(json.loads(os.pread(handle, 4096, 0)))
        except (json.JSONDecodeError, UnicodeDecodeError):
            time.sleep(0.005)  # taken a moment ago: the holder is about to write its name
    return {}
