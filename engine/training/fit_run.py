"""What a training asks before it begins: does it fit? And `training.batch_size=auto` settled."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from engine.config import Settings
from engine.devices.detect import ChosenDevice
from engine.errors import UnderstudyError, UsageError
from engine.store.workspace import Workspace
from engine.tasks.task import Task
from engine.training.fit import (
    Forecast,
    NotTraced,
    TraceCache,
    available_bytes,
    forecast,
    trace_here,
)
from engine.training.fit_parts import Facts, Tracer


def ask(
    workspace: Workspace,
    settings: Settings,
    task: Task,
    chosen: ChosenDevice,
    precision: str,
    say: Callable[[str], None],
) -> Forecast | None:
    """The forecast of a training about to begin; None for a task or a net that cannot be followed.

    On a CPU a trace that is not in the cache is made by a child: what it imports (48 MiB) is no part of the training.

    Raises:
        UsageError: it cannot fit; the nearest setting that does is named.
    """
    if task.name != "images":
        return None
    facts = Facts(len(task.classes), task.train_samples)
    available = available_bytes(settings, chosen.kind)

    def look(tracer: Tracer | None) -> Forecast:
        return forecast(settings, facts, chosen.kind, precision, available, TraceCache(workspace.cache, tracer))

    try:
        try:
            found = look(None)
        except NotTraced:
            if chosen.kind == "cpu" and sys.platform == "linux":
                _in_a_child(lambda: look(trace_here))
            found = look(trace_here)  # what the child could not do is done here, and its error said
    except UnderstudyError:
        raise
    except Exception as error:
        if ":" not in settings.model.name:
            raise
        # somebody's own net may ask for values, which shapes alone do not have; that is no reason not to train it
        say(f"note: no forecast of the memory of {settings.model.name} ({' '.join(str(error).split())[:120]})")
        return None
    if found.verdict == "cannot":
        raise UsageError(sentence(found), advice(found), kind="does_not_fit")
    if found.verdict == "edge":
        say(f"note: {sentence(found)}; {advice(found)}")
    return found


def _in_a_child(work: Callable[[], object]) -> None:
    """Do it in a copy of this process, which may fail; the cache is what stays of it."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def sentence(found: Forecast) -> str:
    """What a forecast says, in words."""
    verb = {"fits": "fits", "edge": "is at the edge", "cannot": "cannot fit"}[found.verdict]
    at_once = "" if found.micro_batch == found.batch_size else f" ({found.micro_batch} at a time)"
    return (
        f"a batch of {found.batch_size}{at_once} {verb}: it needs about {found.predicted_bytes / 2**30:.2f} GiB"
        f" of the {found.available_bytes / 2**30:.2f} GiB that {found.device} has free"
    )


def advice(found: Forecast) -> str:
    return f"this fits: {found.suggestion}" if found.suggestion else "take a smaller model, or a larger machine"
