"""One training, from settings to a best checkpoint in its cycle folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from engine.config import Settings
from engine.errors import Failed, Interrupted, UnderstudyError, UsageError
from engine.store.clock import timestamp
from engine.store.locks import hold
from engine.store.workspace import Workspace
from engine.training.allocator import fix_allocator
from engine.training.distributed import joined, lost
from engine.training.loop import Stopped
from engine.training.plan import kept_settings
from engine.training.progress import ProcessMemory
from engine.training.record import Bystander, Record
from engine.training.runs import FIELDS, RunFolder, process_identity
from engine.training.session import Session
from engine.training.shortage import is_shortage
from engine.training.signals import stop_requests


def train(
    workspace: Workspace,
    settings: Settings,
    folder: RunFolder,
    *,
    task: str = "images",
    start_from: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    strict: bool = False,
    overwrite: bool = False,
    publish: bool = True,
    keep_folder: bool = False,
    repeats: str | None = None,
) -> dict[str, Any]:
    """Train in `folder`, from its `last.pth` where there is one.

    Args:
        folder: a claimed run; a resumed one brings its manifest.
        task: which kind of work, by its folder in `engine.tasks`.
        start_from: a checkpoint whose weights a new run begins with.
        say: takes lines for people.
        strict: stop at bad data instead of leaving it out.
        overwrite: replace a better best of the same cycle.
        publish: save the best to the cycle folder; else (a sweep's child) into the run's own.
        repeats: the run whose settings these are, to be compared with at the end.
        keep_folder: keep the folder of a run that could not begin (somebody was told its number).

    Returns:
        The contract's object of `train`, with `status` `completed`.

    Raises:
        UsageError: the data, model or settings cannot be used; a new run's folder is removed again.
        Interrupted: stopped by a signal; `payload` is the contract's object.
        Failed: diverged, or nothing could be saved.
        Busy: the run is going on in another process.
    """
    fix_allocator()
    memory = ProcessMemory()
    with stop_requests() as stop, hold(folder.lock, f"train run {folder.run}"), joined() as group:
        folder.sweep()
        manifest = folder.read_manifest()
        fresh = not manifest.get("settings")
        manifest = FIELDS | manifest | {"run": folder.run, "status": "running", "error": None, "finished_at": None}
        manifest |= {"task": task, "started_from": manifest.get("started_from") or start_from}
        manifest |= {"repeats": manifest.get("repeats") or repeats}
        manifest |= {"settings": kept_settings(settings), **process_identity()}
        manifest |= {"model": settings.model.name, "data": settings.defaults.data if fresh else manifest["data"]}
        manifest["started_at"] = manifest["started_at"] or timestamp()
        folder.write_manifest(manifest)
        record = Record(workspace, settings, folder, manifest, say, memory, overwrite=overwrite, publish=publish)
        try:
            group.told((workspace, settings, folder, manifest, strict))
            Session(settings, folder, record, say, stop, group).go(strict)
        except (Stopped, KeyboardInterrupt) as error:
            record.close("interrupted", f"stopped by {stop.asked or 'Ctrl-C'}")
            raise Interrupted(
                f"run {folder.run} was interrupted",
                f"go on with: python -m engine train --resume {folder.run}",
                payload=result_of(manifest),
            ) from error
        except UsageError as error:
            began = folder.last.exists() or not fresh
            if began or keep_folder:
                record.close("failed", str(error))
            else:
                record.give_back_cycle()
                shutil.rmtree(folder.root, ignore_errors=True)
            raise
        except Exception as error:
            if group.size > 1 and lost(error):
                error = Failed(
                    f"another process of run {folder.run} has ended", "see its words", kind="process_lost"
                )
            record.close("failed", str(error) or type(error).__name__, getattr(error, "kind", None))
            if isinstance(error, UnderstudyError) or not is_shortage(error):
                raise error
            raise Failed(
                f"out of memory on {manifest['device']} with batches of {settings.training.batch_size}",
                "try a smaller training.batch_size, then a smaller data.img_size, then a smaller model",
                kind="out_of_memory",
            ) from error
    return result_of(manifest)


def follow() -> None:
    """What every process of a run but the first does: the same steps, on its share of each batch.

    Raises:
        Interrupted: stopped with the others.
        UsageError, Failed: as `train`.
    """
    fix_allocator()
    memory = ProcessMemory()

    def silent(line: str) -> None:
        """The first process speaks."""

    with stop_requests() as stop, joined() as group:
        workspace, settings, folder, manifest, strict = group.told(None)
        record = Bystander(workspace, settings, folder, manifest, silent, memory, overwrite=False, publish=False)
        try:
            Session(settings, folder, record, silent, stop, group).go(strict)
        except (Stopped, KeyboardInterrupt) as error:
            raise Interrupted(f"process {group.rank} of run {folder.run} was interrupted") from error


def result_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The contract's object of `train` from a run's manifest."""
    names = ("run", "status", "cycle", "device", "precision", "epochs", "best", "checkpoint")
    figures = ("samples_per_s", "unit", "peak_memory_bytes", "seconds_s", "error")
    return {name: manifest.get(name) for name in names + figures}
