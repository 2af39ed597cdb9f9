"""The checkpoints of this host, listed as seldom as their folders change."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from engine.checkpoints.history import checkpoint_history
from engine.checkpoints.naming import is_checkpoint_folder
from engine.config import Settings
from engine.protocol import NEWEST, Checkpoint, Checkpoints, from_json
from engine.release.slots import pointer_path
from engine.release.standing import standings
from engine.store.workspace import SLOTS, Workspace
from engine.watch.run_snapshots import run_names
from engine.watch.snapshots import signature

_PAUSE_S = 2.0
_AGAIN_S = 60.0
_RUNS = 20  # a run older than these no longer saves anything


class CheckpointLister:
    """The history of checkpoints, listed again only when a folder changed, and never at a high cost.

    Listing hashes what is new and reads every run's manifest, so a slow one is followed by a longer pause.
    """

    def __init__(self, workspace: Workspace, settings: Settings) -> None:
        self._workspace, self._settings = workspace, settings
        self._mark: object = None
        self._not_before = self._again_at = 0.0
        self._found = Checkpoints()

    def look(self) -> Checkpoints:
        moment = time.monotonic()
        if moment < self._not_before:
            return self._found
        mark = signature(self._places())
        if mark == self._mark and moment < self._again_at:
            return self._found
        began = time.thread_time()
        every = checkpoint_history(self._workspace, self._settings, standings(self._workspace, self._settings))
        cost_s = time.thread_time() - began
        self._not_before = time.monotonic() + max(_PAUSE_S, 50 * cost_s)
        # A file overwritten in place changes no folder: now and then everything is looked at.
        self._again_at = time.monotonic() + max(_AGAIN_S, 200 * cost_s)
        self._mark = mark
        shown = [from_json(Checkpoint, one.as_json(), "checkpoint") for one in every[:NEWEST]]
        self._found = Checkpoints(checkpoints=shown, total=len(every))
        return self._found

    def _places(self) -> list[Path]:
        workspace = self._workspace
        root = self._settings.checkpoints_root
        places = [root, workspace.backups, workspace.runs]
        places += [workspace.state / name for name in ("refused.json", "rejected.json")]
        places += [pointer_path(workspace, slot) for slot in SLOTS]
        with contextlib.suppress(OSError):
            places += [Path(entry.path) for entry in os.scandir(root) if is_checkpoint_folder(entry.name)]
        for name in run_names(workspace)[:_RUNS]:
            places += [workspace.runs / name / file for file in ("best.pth", "last.pth", "checkpoints")]
        return places
