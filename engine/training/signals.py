"""Ctrl-C, SIGTERM and a lost terminal ask a training to stop; it does so between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator


class StopRequest:
    """True once somebody asked to stop. A second Ctrl-C does not wait for the step to end."""

    def __init__(self) -> None:
        self.asked: str | None = None

    def __bool__(self) -> bool:
        return self.asked is not None

    def __call__(self, number: int, _frame: object) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name


def stop_with(pipe: int) -> None:
    """Ask this process to stop once the descriptor `pipe`, whose other end its parent holds, ends with the parent."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(pipe, 1024):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Collect the signals for the block; outside the main thread, where Python allows no handlers, none come."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:  # nohup stays in force
            signal.signal(number, request)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
