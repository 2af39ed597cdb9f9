"""Small releases without torch, for tests of pointers, journals and backups."""

from __future__ import annotations

import hashlib

from engine.release.bundle import Manifest, Origin, Release, write_release
from engine.release.journal import slots_lock, switch
from engine.release.slots import open_slot
from engine.store.workspace import Workspace

PORT = 8891


def make_release(workspace: Workspace, name: str, cycle: int = 1, accuracy: float = 0.9) -> Release:
    """A release whose files are a few bytes of `name`; enough for everything but serving."""
    content = name.encode() * 50
    manifest = Manifest(
        architecture={"name": "litecnn", "settings": {}},
        classes=["cat", "dog"],
        input={"name": "image", "dtype": "FP32", "shape": [-1, 3, 32, 32]},
        preprocess={"img_size": 32, "resize": "crop", "mean": [0.5] * 3, "std": [0.5] * 3},
        parameters=10,
        checkpoint=Origin(
            name=f"best_model_cycle{cycle}.pth",
            sha256=hashlib.sha256(content).hexdigest(),
            md5=hashlib.md5(content).hexdigest(),
            bytes=len(content),
            cycle=cycle,
            accuracy=accuracy,
        ),
    )
    return write_release(workspace.releases, manifest, content, content)


def put(workspace: Workspace, slot: str, release: Release) -> str | None:
    """Give a slot a release by the real transaction; returns the backup made."""
    with slots_lock(workspace, "test"):
        done = switch(
            workspace,
            slot,
            release,
            verb="promote" if slot == "asis" else "deploy",
            backup_of=open_slot(workspace, slot) if slot == "asis" else None,
            detail={},
            event_kind="promoted" if slot == "asis" else "deployed",
            subject=release.id,
            port=PORT,
        )
    return done.backup


def state(workspace: Workspace) -> dict[str, bytes]:
    """Everything that a refusal must leave as it is."""
    folders = (workspace.slots, workspace.backups, workspace.releases)
    files = [path for folder in folders for path in folder.glob("*")] + [workspace.events]
    return {str(path): path.read_bytes() for path in files if path.is_file()}
