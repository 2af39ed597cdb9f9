"""`train` in several processes: of this machine, or of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.cli.verb import Session
from engine.config import Settings
from engine.errors import Busy, Failed, Interrupted, UsageError
from engine.training.launch import launch
from engine.training.runs import RunFolder
from engine.training.signals import StopRequest, stop_requests

RESULT = ("run", "status", "cycle", "device", "precision", "epochs", "best", "checkpoint",
           "samples_per_s", "unit", "peak_memory_bytes", "seconds_s")  # fmt: skip


def train_together(
    session: Session, folder: RunFolder, task: str, processes: int, flags: list[str], settings: Settings
) -> dict[str, Any]:
    """Train in several processes of this machine, or of the cluster, anew from the last save when memory runs out for
    one of them.

    Returns:
        What `train` says of the run.

    Raises:
        Interrupted, UsageError, Busy, Failed: as the first process ended.
    """
    verb = ("go", "train") if task == "go" else ("train",)

    def command(word: str) -> list[str]:
        return session.engine_command(*verb, word, folder.run, *flags)

    while True:
        with stop_requests() as stop:
            if settings.cluster.address:
                code = _on_cluster(session, folder, command, processes, settings, stop)
            else:
                word = "--resume" if folder.last.exists() else "--claimed"
                code = launch(command(word), processes, stop, session.say)
        if not (code and folder.smaller.exists()) or stop:
            break
        session.say("beginning anew with smaller parts")
    manifest = folder.read_manifest()
    if not code:
        return {name: manifest.get(name) for name in RESULT}
    said = str(manifest.get("error") or f"run {folder.run} did not begin: see the words above")
    if code == Interrupted.exit_code:
        raise Interrupted(f"run {folder.run} was interrupted", f"go on with: python -m engine train --resume {folder.run}",
                          payload={name: manifest.get(name) for name in RESULT})  # fmt: skip
    raise {UsageError.exit_code: UsageError, Busy.exit_code: Busy}.get(code, Failed)(said)


def _on_cluster(
    session: Session,
    folder: RunFolder,
    command: Callable[[str], list[str]],
    processes: int,
    settings: Settings,
    stop: StopRequest,
) -> int:
    """The same by Ray Train over the nodes of the cluster; the first process's exit code."""
    from engine.cluster import joining
    from engine.cluster.processes import train as train_over_nodes

    wanted = settings.cluster
    assert wanted.address
    with joining.join(wanted.address, session.say) as cluster:
        gpu = settings.device.prefer in ("auto", "cuda")
        share, _ = cluster.share(wanted.cpus, gpu=gpu, at_once=processes)
        session.say(f"run {folder.run}: {processes} processes on the cluster; its words: {folder.log}")
        return train_over_nodes(
            cluster, folder, lambda word: [*command(word)[3:], "--tied"], processes, share, wanted.retries, stop
        )
