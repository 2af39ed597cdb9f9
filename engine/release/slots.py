"""A slot's pointer: which release it holds, since when. The pointer file is the truth; servers follow it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import Failed
from engine.release.bundle import Manifest, Origin, Release, read_release, release_path
from engine.store.clock import timestamp
from engine.store.files import atomic_write
from engine.store.workspace import Workspace


class Pointer(BaseModel):
    """The release that a slot holds, with what `status` wants to say without opening it."""

    model_config = ConfigDict(extra="forbid")

    release: str
    since: str
    precision: str
    architecture: str
    checkpoint: Origin
    transaction: str


def pointer_path(workspace: Workspace, slot: str) -> Path:
    return workspace.slots / f"{slot}.json"


def read_pointer(workspace: Workspace, slot: str) -> Pointer | None:
    """What slot "asis" or "tobe" holds, or None when it is empty.

    Raises:
        Failed: the pointer file is damaged.
    """
    path = pointer_path(workspace, slot)
    try:
        return Pointer.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise Failed(f"{path} is damaged", "roll back to a backup", kind="damaged") from None


def write_pointer(workspace: Workspace, slot: str, release: Release, transaction: str) -> Pointer:
    """Point the slot at a release, atomically. Only the release transaction calls this."""
    manifest = release.manifest
    pointer = Pointer(
        release=release.id,
        since=timestamp(),
        precision=manifest.precision,
        architecture=manifest.architecture["name"],
        checkpoint=manifest.checkpoint,
        transaction=transaction,
    )
    atomic_write(pointer_path(workspace, slot), pointer.model_dump_json(indent=2) + "\n")
    return pointer


def open_slot(workspace: Workspace, slot: str) -> Release | None:
    """The verified release that the slot holds, or None when it is empty."""
    pointer = read_pointer(workspace, slot)
    return read_release(release_path(workspace, pointer.release), expect=pointer.release) if pointer else None


def production_classes(workspace: Workspace) -> list[str] | None:
    """The classes that AS-IS answers with, or None while it is empty or its release cannot be read."""
    manifest = _production(workspace)
    return manifest.classes if manifest else None


def production_task(workspace: Workspace) -> str | None:
    """The task that AS-IS serves, or None as `production_classes`."""
    manifest = _production(workspace)
    return manifest.task if manifest else None


def _production(workspace: Workspace) -> Manifest | None:
    try:
        pointer = read_pointer(workspace, "asis")
        return read_release(release_path(workspace, pointer.release)).manifest if pointer else None
    except Failed:
        return None
