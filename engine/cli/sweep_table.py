"""A sweep's ranked runs, for people."""

from __future__ import annotations

from typing import Any

from engine.cli.verb import table


def sweep_table(value: dict[str, Any]) -> str:
    """The ranked runs of a sweep, for people."""
    rows = []
    for entry in value["runs"]:
        rows.append((
            entry["rank"] or "–",
            entry["n"],
            "–" if entry["f1_macro"] is None else f"{entry['f1_macro']:.4f}",
            "–" if entry["accuracy"] is None else f"{entry['accuracy']:.2%}",
            "–" if entry["loss"] is None else f"{entry['loss']:.4f}",
            f"{entry['epoch'] or 0}/{entry['epochs'] or '?'}",
            "–" if entry["seconds_s"] is None else f"{entry['seconds_s']:.0f} s",
            entry["status"],
            " ".join(entry["overrides"]) or "–",
        ))  # fmt: skip
    lines = [table(rows, ("rank", "run", "F1", "accuracy", "loss", "epoch", "time", "status", "settings"))]
    lines += [f"run {entry['n']}: {entry['error']}" for entry in value["runs"] if entry["error"]]
    return "\n".join(lines)
