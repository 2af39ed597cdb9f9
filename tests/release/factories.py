"""A factory that a checkpoint may name, which reports what the admission child can reach."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any


def found_by(pid: int) -> Path:
    """Where the child of process `pid` leaves its report; its own temporary folder is removed with it."""
    return Path("/tmp") / f"understudy-interfaces-{pid}"


def looks_for_a_network(num_classes: int, **settings: Any) -> None:
    found_by(os.getppid()).write_text(" ".join(name for _, name in socket.if_nameindex()))
