"""Factories that a checkpoint may name: an outlook for a network, and nets that are hard to convert."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import torch


def found_by(pid: int) -> Path:
    """Where the child of process `pid` leaves its report; its own temporary folder is removed with it."""
    return Path("/tmp") / f"understudy-interfaces-{pid}"


def looks_for_a_network(num_classes: int, **settings: Any) -> None:
    found_by(os.getppid()).write_text(" ".join(name for _, name in socket.if_nameindex()))


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
