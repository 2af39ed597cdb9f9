"""A child that does not outlive its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PARENT = "UNDERSTUDY_PARENT"


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process `number` when its parent dies. Linux; elsewhere the parent's end
    of a pipe or socket closing is what tells."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.environ.get(_PARENT, str(os.getppid())) != str(os.getppid()):
        os._exit(0)  # it died before the kernel was told


def child_environment() -> dict[str, str]:
    """The environment of a tied child: it names its parent."""
    return {**os.environ, _PARENT: str(os.getpid())}
