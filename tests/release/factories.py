"""Factories that a checkpoint may name: one that tries to get out, and nets that are hard to convert."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def tries_to_escape(num_classes: int, **settings: Any) -> None:
    """What code that runs in the admission child can do: raised, because it has no other way to tell."""
    parent, outside = Path(f"/proc/{os.getppid()}"), Path(os.environ.get("LC_OUTSIDE", "/nowhere"))
    tries: dict[str, Callable[[], object]] = {
        "connect": lambda: socket.create_connection(("127.0.0.1", int(os.environ.get("LC_PORT", "9"))), 2),
        "listen": lambda: socket.create_server(("127.0.0.1", 0)),
        "program": lambda: subprocess.run(["true"], check=True),
        "write": lambda: (outside / "escaped").write_text("x"),
        "remove": lambda: (outside / "a file").unlink(),
        "kill": lambda: os.kill(os.getppid(), 0),
        "parent": lambda: (parent / "environ").read_bytes(),
    }
    said = []
    for name, attempt in tries.items():
        try:
            attempt()
        except OSError as error:
            said.append(f"{name}:{errno.errorcode.get(error.errno or 0, '?')}")
        else:
            said.append(f"{name}:DONE")
    secrets = sorted(name for name in os.environ if "TOKEN" in name or "SECRET" in name or "WEBHOOK" in name)
    raise SystemExit(f"{' '.join(said)} secrets:{','.join(secrets)}")


class Linear(torch.nn.Module):
    """One layer over all pixels; `way` is how it gets there."""

    def __init__(self, num_classes: int, way: str) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3 * 16 * 16, num_classes)
        self.way = way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.way == "branching" and x.sum() > 1e9:
            x = x / 2
        rows = int(x.shape[0]) if self.way == "counting" else x.shape[0]
        noise = torch.rand_like(x) if self.way == "guessing" else 0.0
        return self.layer((x + noise).reshape(rows, -1))


def linear(num_classes: int, way: str) -> Linear:
    return Linear(num_classes, way)
