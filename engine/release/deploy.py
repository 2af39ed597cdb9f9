"""A checkpoint straight to TO-BE: admitted, then switched as one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.config import Settings
from engine.errors import Busy, Failed
from engine.release.admit import Rejected, admit
from engine.release.bundle import Release
from engine.release.candidate import require_there
from engine.release.hold import ANOTHER, held, rejection
from engine.release.journal import slots_lock, switch
from engine.release.promote import no_comparison
from engine.release.refusal import Refusal, check_classes, check_task
from engine.release.slots import open_slot, production_classes, production_task, read_pointer
from engine.store.workspace import Workspace


@dataclass(frozen=True)
class Deployed:
    """What a deploy did. `changed` is False when TO-BE held that release already; `previous`: what it held."""

    release: Release
    changed: bool
    previous: str | None
    live: bool = False
    event: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


def deploy(
    workspace: Workspace,
    settings: Settings,
    checkpoint: Path,
    *,
    name: str,
    cycle: int | None,
    new_classes_reason: str | None = None,
    wait: bool = False,
    build: Callable[[Release], Release] | None = None,
) -> Deployed:
    """Admit a checkpoint and give it to TO-BE.

    Args:
        name: what the source calls the file, for events and the release.
        cycle: the cycle of its folder, used where the file does not say.
        new_classes_reason: lets it have other classes than AS-IS.
        wait: wait for a comparison or another change of a slot instead of Busy.
        build: makes another release of the admitted one, an INT8 build for instance; that one is deployed.

    Raises:
        Busy: TO-BE is on hold (kind `held`), a comparison runs (`comparing`), another command changes a
            slot (`busy`).
        UsageError: no such file.
        Rejected: it is not admitted, or an operator rejected it.
        Failed: it could not be checked, or the server does not load it; TO-BE holds what it held.
    """
    require_there(checkpoint)  # a wrong argument is said before a slot that is busy
    _refuse_when_held(workspace)
    notes: list[str] = []
    release = admit(
        workspace,
        settings,
        checkpoint,
        name=name,
        cycle=cycle,
        expect_classes=production_classes(workspace),
        new_classes_reason=new_classes_reason,
        notes=notes,
    )
    if build:
        release = build(release)
    with no_comparison(workspace, "deploy", wait), slots_lock(workspace, "deploy", wait):
        _refuse_when_held(workspace)  # decided while the checkpoint was being checked, perhaps
        origin = release.manifest.checkpoint
        if why := rejection(workspace, release=release.id, sha256=origin.sha256):
            raise Rejected(f"{name} is not deployed: {why}", ANOTHER, check="rejected")
        _check_against_production(workspace, release, name, new_classes_reason)
        present = _held_by_tobe(workspace)
        if present == release.id:
            return Deployed(release, False, present, notes=notes)
        done = switch(
            workspace,
            "tobe",
            release,
            verb="deploy",
            backup_of=None,
            detail={
                "checkpoint": name,
                "cycle": origin.cycle,
                "accuracy": origin.accuracy,
                "sha256": origin.sha256,
                "md5": origin.md5,
                "new_classes_reason": new_classes_reason,
                "notes": notes,
            },
            event_kind="deployed",
            subject=release.id,
        )
    return Deployed(release, True, done.previous, done.live, done.event, notes)


def _refuse_when_held(workspace: Workspace) -> None:
    if standing := held(workspace):
        since = str(standing.get("at"))[:16].replace("T", " ")
        why = f": {standing['reason']}" if standing.get("reason") else ""
        raise Busy(
            f"TO-BE is held by {standing.get('actor')} since {since}{why}",
            "let it change again: python -m engine unhold",
            kind="held",
        )


def _check_against_production(workspace: Workspace, release: Release, name: str, reason: str | None) -> None:
    # AS-IS may have changed while the checkpoint was being checked
    expected = production_classes(workspace)
    try:
        check_task(release.manifest.task, production_task(workspace))
        if expected is not None and reason is None:
            check_classes(release.manifest.classes, expected)
    except Refusal as refusal:
        raise Rejected(f"{name} {refusal.message}", refusal.hint, check=refusal.check) from None


def _held_by_tobe(workspace: Workspace) -> str | None:
    """The release that TO-BE truly holds; a damaged file or pointer counts as holding nothing."""
    try:
        pointer = read_pointer(workspace, "tobe")
        release = open_slot(workspace, "tobe") if pointer else None
    except Failed:
        return None
    return release.id if release else None
