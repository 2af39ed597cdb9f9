"""People are told of a run: finished, failed, no number any more, died, stalled; each change of state once.

The run itself tells of its end and of a stall (a thread looks). A run that died without a word is found by whoever
looks next: `status`, `watch`, `doctor` and `sync` call `check_runs`.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from engine.config import Settings
from engine.errors import UnderstudyError
from engine.notify import notify
from engine.notify.alerts import clear_alert, raise_alert
from engine.store.clock import now, parse
from engine.store.locks import hold
from engine.store.workspace import Workspace
from engine.training.progress import clock
from engine.training.runs import RunFolder, describe_run, list_running_folders, second_metric
from engine.training.sweeps import list_sweeps

_DAYS = 7  # a run that died longer ago is nobody's news
_PAUSE_S = 5.0
_SWEEPS = 20  # an older one that died is nobody's news


class RunAlerts:
    """The observer that tells people of one run.

    Args:
        alone: whether its end is news by itself; a sweep tells of its runs' ends in one message.
    """

    def __init__(self, workspace: Workspace, settings: Settings, folder: RunFolder, alone: bool = True) -> None:
        self._workspace, self._settings, self._folder, self._alone = workspace, settings, folder, alone
        self._over = threading.Event()

    def started(self, manifest: dict[str, Any]) -> None:
        self._clear("goes on")
        if self._settings.training.stalled_minutes:
            threading.Thread(target=self._look_for_stalls, name="stalls", daemon=True).start()

    def epoch(self, row: dict[str, Any]) -> None:
        """Nothing: an epoch is no news."""

    def step(self, progress: dict[str, Any]) -> None:
        """Nothing: the thread reads what the run writes."""

    def ended(self, manifest: dict[str, Any]) -> None:
        self._over.set()
        if not self._alone:
            return
        if manifest["status"] == "completed":
            self._clear("is completed")
            notify(self._workspace, self._settings, "trained", finished_message(manifest))
        elif manifest["status"] == "failed":
            kind = "diverged" if manifest.get("error_kind") == "diverged" else "failed"
            _raise(self._workspace, self._settings, self._folder, kind, str(manifest.get("error")))

    def settle(self) -> None:
        """Nothing: a message that could not be sent waits in the outbox."""

    def _clear(self, how: str) -> None:
        with hold(self._workspace.lock("alerts-runs"), "tell of a run", wait=True, timeout_s=_PAUSE_S):
            key = _key(self._folder)
            clear_alert(self._workspace, self._settings, key, f"{key} {how}")

    def _look_for_stalls(self) -> None:
        while not self._over.wait(_PAUSE_S):
            try:
                check_run(self._workspace, self._settings, self._folder)
            except (UnderstudyError, OSError, ValueError):
                continue  # a full disk, or another look at the same moment: the next one comes soon


def check_runs(workspace: Workspace, settings: Settings) -> list[str]:
    """Tell of each run that died or stands still, once; runs that go on again are told of too.

    Returns:
        A sentence for each run that is in trouble now. It never raises for a file or a message.
    """
    found = []
    for folder in list_running_folders(workspace):
        try:
            trouble = check_run(workspace, settings, folder)
        except (UnderstudyError, OSError, ValueError):
            continue  # somebody else looks at this moment, or the file is damaged: `runs` shows it
        if trouble:
            found.append(trouble)
    for sweep in list_sweeps(workspace, _SWEEPS):
        try:
            if trouble := _check_sweep(workspace, settings, sweep):
                found.append(trouble)
        except (UnderstudyError, OSError, ValueError):
            continue
    return found


def check_run(workspace: Workspace, settings: Settings, folder: RunFolder) -> str | None:
    """The same for one run: its trouble in a sentence, or None.

    Raises:
        Busy: another process tells of a run right now.
    """
    entry = describe_run(folder)
    if entry["status"] not in ("running", "lost"):
        return None
    state, text = "", ""
    if entry["status"] == "lost":
        if folder.swept or time.time() - folder.manifest.stat().st_mtime > _DAYS * 86400:
            return None  # a sweep tells of its runs' ends
        state, text = "lost", str(entry["error"])
    elif silence := stalled_s(folder, entry.get("progress"), settings):
        state, text = "stalled", f"no step for {clock(silence)}"
    with hold(workspace.lock("alerts-runs"), "tell of a run"):
        if state:
            _raise(workspace, settings, folder, state, text, locked=True)
            return f"{_key(folder)}: {text}"
        clear_alert(workspace, settings, _key(folder), f"{_key(folder)} goes on")
    return None


def _check_sweep(workspace: Workspace, settings: Settings, sweep: dict[str, Any]) -> str | None:
    """The same for a sweep whose process is gone; its runs have stopped by themselves."""
    key = f"sweep {sweep['sweep']}"
    if sweep["state"] == "running":
        with hold(workspace.lock("alerts-runs"), "tell of a sweep"):
            clear_alert(workspace, settings, key, f"{key} goes on")
        return None
    began = parse(sweep["started_at"])
    if sweep["state"] != "lost" or (now() - began).total_seconds() > _DAYS * 86400:
        return None
    text = f"its process (pid {sweep['pid']}) ended without a word, {sweep['done']} of {sweep['total']} runs done"
    fix = f"go on with: python -m engine train --multirun --resume {sweep['sweep']}"
    with hold(workspace.lock("alerts-runs"), "tell of a sweep"):
        raise_alert(workspace, settings, key, "lost", f"{key} has died", text, fix)
    return f"{key}: {text}"


def stalled_s(folder: RunFolder, progress: dict[str, Any] | None, settings: Settings) -> float | None:
    """How long a run has done no step, seconds, if that is too long: for `training.stalled_minutes` and for
    `training.stalled_steps` times its usual step; validation may also take as long as the epoch's training."""
    if not progress or not settings.training.stalled_minutes:
        return None
    kept = (folder.read_manifest().get("settings") or {}).get("training") or {}
    size, rate = kept.get("batch_size"), progress.get("samples_per_s")
    step_s = size / rate if isinstance(size, int) and rate else 0.0
    limit_s = max(settings.training.stalled_minutes * 60, settings.training.stalled_steps * step_s)
    if progress.get("phase") == "validate":
        limit_s += step_s * (progress.get("steps") or 0)
    silence_s = (now() - parse(str(progress["updated_at"]))).total_seconds()
    return silence_s if silence_s > limit_s else None


def finished_message(manifest: dict[str, Any]) -> str:
    """A run is completed: what it reached and where that lies."""
    best = manifest.get("best") or {}
    lines = [
        f"Trained: run {manifest['run']}, {manifest.get('model')} on {manifest.get('data')}",
        f"accuracy {best.get('accuracy', 0):.2%},{second_metric(best)[1:]} at epoch {best.get('epoch')}"
        f" of {manifest.get('epochs')}, in {clock(manifest.get('seconds_s') or 0)} on {manifest.get('device')}",
        f"checkpoint: {manifest.get('checkpoint')}",
    ]
    return "\n".join(lines)


def tell_of_sweep(workspace: Workspace, settings: Settings, text: str, trouble: str | None, sweep: str) -> None:
    """A sweep has ended: one message, and an alert where runs of it failed."""
    with hold(workspace.lock("alerts-runs"), "tell of a sweep", wait=True, timeout_s=_PAUSE_S):
        key = f"sweep {sweep}"
        if trouble:
            raise_alert(
                workspace, settings, key, "failed", f"{key}: runs failed", trouble, "see: train.log of each"
            )
        else:
            clear_alert(workspace, settings, key, f"{key} is completed")
    notify(workspace, settings, "trained", text)


def _raise(
    workspace: Workspace, settings: Settings, folder: RunFolder, state: str, text: str, *, locked: bool = False
) -> None:
    words = {
        "lost": ("has died", "go on with: python -m engine train --resume {}"),
        "stalled": (
            "stands still",
            "see: python -m engine logs {}; stop it with: python -m engine train --stop {}",
        ),
        "diverged": ("has diverged", "train again with a lower training.learning_rate"),
        "failed": ("has failed", "see: python -m engine logs {}"),
    }
    subject, fix = words[state]
    key = _key(folder)
    fix = fix.replace("{}", folder.run)
    if locked:
        raise_alert(workspace, settings, key, state, f"{key} {subject}", text, fix)
        return
    with hold(workspace.lock("alerts-runs"), "tell of a run", wait=True, timeout_s=_PAUSE_S):
        raise_alert(workspace, settings, key, state, f"{key} {subject}", text, fix)


def _key(folder: RunFolder) -> str:
    return f"run {folder.run}"
