"""`fit`: will a training fit into memory, before it is begun."""

from __future__ import annotations

from typing import Any

import click

from engine.cli.verb import Session, Verb, table
from engine.config import Settings
from engine.errors import UsageError
from engine.training.fit import (
    Extrapolated,
    Forecast,
    TraceCache,
    available_bytes,
    facts_of,
    forecast,
    trace_here,
)
from engine.training.fit_parts import Tracer
from engine.training.fit_table import DOCUMENTED, contradictions, settings_of

_GIB = 2**30


@click.command(cls=Verb)
@click.option("--table", "as_table", is_flag=True, help="The manual's models and sizes on this machine.")
def fit(session: Session, as_table: bool) -> None:
    """Forecast a training's memory for model, image, batch, precision, optimiser and device: fits, edge, cannot."""
    if as_table:
        _matrix(session)
        return
    if (task := session.settings.task) != "images":
        raise UsageError(f"fit forecasts the training of images, not of the task {task}", "train it: memory that runs "
                         "out makes the parts of a batch smaller")  # fmt: skip
    found = _forecast(session, session.settings)
    session.emit(found.as_json(), _text(found))


def _forecast(session: Session, settings: Settings, *, quickly: bool = False) -> Forecast:
    device, precision = _device(settings)
    cache: Tracer = TraceCache(session.workspace.cache, trace_here)
    cache = Extrapolated(cache) if quickly else cache
    return forecast(settings, facts_of(settings), device, precision, available_bytes(settings, device), cache)


def _device(settings: Settings) -> tuple[str, str]:
    """The device and precision that a training would take; torch is asked only where it may have a GPU."""
    prefer, wanted = settings.device.prefer, settings.training.precision
    if prefer == "cpu" or (prefer == "auto" and _without_gpu()):
        return "cpu", "fp32" if wanted == "auto" else wanted
    from engine.devices.detect import choose_device

    kind = choose_device(prefer).kind
    if wanted != "auto":
        return kind, wanted
    import torch

    return kind, "bf16" if kind == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def _without_gpu() -> bool:
    """Whether the installed torch is built for the CPU alone, as its version says."""
    from importlib.metadata import version

    return version("torch").endswith("+cpu")


def _text(found: Forecast) -> str:
    from engine.training.fit_run import sentence

    lines = [f"{found.verdict}: {sentence(found)} ({found.precision})"]
    parts = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in found.breakdown.items() if size)
    lines.append(f"MiB: {parts}")
    if found.biggest_batch:
        lines.append(f"the biggest batch that fits at once: {found.biggest_batch:,}")
    if found.suggestion:
        lines.append(f"this fits: {found.suggestion}")
    return "\n".join(lines)


def _matrix(session: Session) -> None:
    rows = []
    for number, row in enumerate(DOCUMENTED, 1):
        click.echo(f"{number}/{len(DOCUMENTED)}: {row.model}, {row.side} px, batch {row.batch}", err=True)
        found = _forecast(session, settings_of(session.settings, row), quickly=True)
        entry = {"model": row.model, "img_size": row.side, "batch_size": row.batch, "documented_gb": row.says}
        rows.append(entry | {name: getattr(found, name) for name in
                             ("device", "precision", "predicted_bytes", "available_bytes", "verdict", "suggestion",
                              "biggest_batch")})  # fmt: skip
    session.emit({"rows": rows, "contradictions": contradictions()}, _matrix_text)


def _matrix_text(value: dict[str, Any]) -> str:
    rows = [
        (
            row["model"],
            row["img_size"],
            row["batch_size"],
            f"{row['predicted_bytes'] / _GIB:.1f}",
            row["verdict"],
            row["documented_gb"],
            row["suggestion"] or "",
        )
        for row in value["rows"]
    ]
    first = value["rows"][0]
    head = f"{first['device']}, {first['precision']}, {first['available_bytes'] / _GIB:.1f} GiB free"
    shown = table(rows, ("model", "px", "batch", "GiB", "verdict", "manual GB", "this fits"))
    said = "\n".join(f"- {line}" for line in value["contradictions"])
    return f"{head}\n{shown}\n\nThe manual's figures contradict each other:\n{said}"
