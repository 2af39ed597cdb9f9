"""A tracker's process: reads what the run says, one JSON object a line, and tells the tracker's own library.

It is a process of its own, so it may hang or crash. When the run is killed its standard input ends, and it closes what
it has begun; an alarm ends it for certain.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from typing import Any, Protocol

_OWN = {
    "tensorboard": "engine.training.trackers.tensorboard:TensorBoard",
    "wandb": "engine.training.trackers.wandb:WandB",
    "mlflow": "engine.training.trackers.mlflow:MLflow",
}


class Writer(Protocol):
    """What a tracker does with a run. One of one's own is `module:factory(what) -> Writer`."""

    def started(self, manifest: dict[str, Any]) -> None: ...

    def epoch(self, row: dict[str, Any]) -> None: ...

    def step(self, progress: dict[str, Any]) -> None: ...

    def ended(self, manifest: dict[str, Any]) -> None: ...


def main() -> int:
    """Feed the tracker until `ended` or the end of the input."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the run decides when it is over
    os.nice(10)  # the run goes first
    what: dict[str, Any] = json.loads(sys.argv[1])
    writer: Writer | None = None
    last: dict[str, Any] = {}
    try:
        for line in sys.stdin:
            message = json.loads(line)
            name, data = message["what"], message["data"]
            if name == "started":
                writer = _make(what)
            if name in ("started", "ended"):
                last = data
            if name == "ended":
                signal.alarm(round(what["timeout_s"]) + 5)
            if writer:
                getattr(writer, name)(data)
            if name == "ended":
                return 0
        signal.alarm(round(what["timeout_s"]) + 5)
        if writer:  # the run died without a word
            writer.ended({**last, "status": "lost"})
    except Exception as error:  # noqa: BLE001 - one sentence, as the run will show it
        print(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
        return 1
    return 0


def _make(what: dict[str, Any]) -> Writer:
    module, _, factory = _OWN.get(what["tracker"], what["tracker"]).partition(":")
    writer: Writer = getattr(importlib.import_module(module), factory)(what)
    return writer


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """The figures of a line, by name; its place (epoch, step) is left out."""
    places = ("epoch", "epochs", "step", "steps")
    return {
        name: float(value)
        for name, value in row.items()
        if name not in places and isinstance(value, int | float) and not isinstance(value, bool)
    }


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def step_of(progress: dict[str, Any]) -> int:
    """Steps done since the run began, from a line of `progress.json`."""
    return (int(progress["epoch"]) - 1) * int(progress["steps"]) + int(progress["step"])


if __name__ == "__main__":
    sys.exit(main())
