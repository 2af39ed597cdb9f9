"""From a checkpoint file to a release, or a reason why not.

The file is looked at (`candidate`), copied, hashed and then opened by a child process alone (`admission_child`).
What was refused, and the release that a checkpoint gave, are remembered (`remembered`): neither is worked out twice.
Torch-free.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from engine.config import Settings
from engine.errors import Failed
from engine.release.bundle import Manifest, Origin, Release, write_release
from engine.release.candidate import Candidate, examine, unread
from engine.release.child import Unchecked, run_child
from engine.release.hold import ANOTHER, rejection
from engine.release.refusal import Refusal, check_classes, check_task
from engine.release.remembered import known_refusal, known_release, note_refusal, note_release
from engine.release.slots import production_classes, production_task
from engine.store.files import digest_file
from engine.store.locks import hold
from engine.store.workspace import Workspace


class Rejected(Failed):
    """A checkpoint that is not admitted (exit 1).

    Attributes:
        check: the check that failed (`container`, `crc`, `pickle`, `classes`, ...).
        dangerous: it would have run code when opened.
        news: it was refused for the first time, so people should hear of it.
    """

    default_kind = "rejected"

    def __init__(
        self, message: str, hint: str, *, check: str, dangerous: bool = False, news: bool = False
    ) -> None:
        super().__init__(message, hint)
        self.check = check
        self.dangerous = dangerous
        self.news = news


def admit(
    workspace: Workspace,
    settings: Settings,
    checkpoint: Path,
    *,
    name: str,
    cycle: int | None,
    expect_classes: list[str] | None,
    new_classes_reason: str | None = None,
    notes: list[str] | None = None,
    for_slots: bool = True,
) -> Release:
    """Check a checkpoint and make its release, or find the one it gave before.

    Args:
        checkpoint: a file on this host; it is copied before it is looked at.
        name: what to call it: the file's name at the source.
        cycle: the cycle its folder says, used where the file does not say.
        expect_classes: the classes that AS-IS answers with; None compares with nothing.
        new_classes_reason: admits other classes than those; kept in the release.
        notes: gets sentences about what was done to make it fit.
        for_slots: False where AS-IS may do another kind of work, as for an export.

    Raises:
        UsageError: no such file.
        Rejected: it failed a check; remembered, and one `refused` event a hash.
        Unchecked: the child passed a limit or died; told once, and tried again the next time.
        Failed: it could not be checked for want of disk, or because it changes.
    """
    notes = [] if notes is None else notes
    try:
        digest = examine(checkpoint, settings)
    except Refusal as refusal:
        unknown = Candidate(checkpoint, unread(checkpoint, refusal), name, cycle, None, None, notes, read=False)
        with hold(workspace.lock("admit"), f"admission of {name}", wait=True):
            raise _refused(workspace, settings, refusal, unknown) from None
    if why := rejection(workspace, sha256=digest.sha256):
        raise Rejected(f"{name} is not deployed: {why}", ANOTHER, check="rejected")
    expected = None if new_classes_reason else expect_classes
    candidate = Candidate(
        checkpoint, digest, name, cycle, expected, new_classes_reason, notes, for_slots=for_slots
    )
    try:
        with hold(workspace.lock("admit"), f"admission of {name}", wait=True):
            return _admit(workspace, settings, candidate)
    except OSError as error:
        raise Failed(
            f"{name} could not be made into a release ({error.strerror or error})",
            "free disk space or mend the rights of the workspace, then try again",
            kind="disk",
        ) from error


def admit_unconverted(workspace: Workspace, settings: Settings, checkpoint: Path, *, name: str) -> Release:
    """A checkpoint that ONNX cannot express, put through every other check.

    Returns:
        a release without `model.onnx`, in the cache: no slot can have it, formats of torch can be made from it.

    Raises:
        As `admit`; nothing is remembered.
    """
    digest = examine(checkpoint, settings)
    candidate = Candidate(checkpoint, digest, name, None, None, None, [], for_slots=False)
    try:
        with hold(workspace.lock("admit"), f"admission of {name}", wait=True):
            return _make(workspace, settings, candidate, workspace.cache / "unconverted", convert=False)
    except Refusal as refusal:
        raise Rejected(f"{name} {refusal.message}", refusal.hint, check=refusal.check) from None


def refusal(workspace: Workspace, settings: Settings, sha256: str) -> str | None:
    """Why these bytes would be refused without looking at them again, or None when nothing is known.

    It forgets when the settings that mattered, the engine or torch change, or AS-IS's classes do.
    """
    if why := rejection(workspace, sha256=sha256):
        return why
    old = known_refusal(workspace, settings, sha256, production_classes(workspace))
    return f"{old['name']} {old['message']}: {old['hint']}" if old else None


def _admit(workspace: Workspace, settings: Settings, candidate: Candidate) -> Release:
    name = candidate.name
    _sweep(workspace)
    if old := known_refusal(workspace, settings, candidate.digest.sha256, candidate.expect_classes):
        raise Rejected(
            f"{name} {old['message']}", old["hint"], check=old["check"], dangerous=old.get("dangerous", False)
        )
    release = known_release(workspace, settings, candidate)
    try:
        if release is None:
            release = _make(workspace, settings, candidate)
            note_release(workspace, settings, candidate, release.id)
        else:
            if candidate.for_slots:
                check_task(release.manifest.task, production_task(workspace))
            if candidate.expect_classes is not None:
                check_classes(release.manifest.classes, candidate.expect_classes)
    except Refusal as refusal:
        raise _refused(workspace, settings, refusal, candidate) from None
    except Unchecked as error:
        unknown = Refusal(error.kind, error.message.removeprefix(f"{name} "), error.hint, lasting=False)
        error.news = note_refusal(workspace, settings, unknown, candidate)
        raise
    return release


def _refused(workspace: Workspace, settings: Settings, refusal: Refusal, candidate: Candidate) -> Rejected:
    """The refusal as an error, noted."""
    news = note_refusal(workspace, settings, refusal, candidate)
    words = f"{candidate.name} {refusal.message}"
    return Rejected(words, refusal.hint, check=refusal.check, dangerous=refusal.dangerous, news=news)


def _make(
    workspace: Workspace,
    settings: Settings,
    candidate: Candidate,
    target: Path | None = None,
    *,
    convert: bool = True,
) -> Release:
    digest, name = candidate.digest, candidate.name
    _need_room(workspace, 4 * digest.bytes + 64 * 1024 * 1024)
    with _scratch(workspace) as folder:
        copy = folder / "checkpoint.pth"
        shutil.copyfile(candidate.path, copy)
        if digest_file(copy) != digest:
            raise Failed(f"{name} changed while it was read", "try again when it is written", kind="moving")
        task = production_task(workspace) if candidate.for_slots else None
        result = run_child(
            workspace, settings, folder, copy, digest.bytes, name, candidate.expect_classes, task, convert=convert
        )
        if not result["ok"]:
            raise Refusal(
                result["check"],
                result["message"],
                result["hint"],
                dangerous=result["dangerous"],
                lasting=result["lasting"],
            )
        candidate.notes.extend(result["notes"])
        origin = result["origin"]
        origin["cycle"] = origin["cycle"] if origin["cycle"] is not None else candidate.cycle
        manifest = Manifest(
            task=result["task"],
            architecture=result["architecture"],
            classes=result["classes"],
            input=result["input"],
            output=result.get("output"),
            preprocess=result["preprocess"],
            parameters=result["parameters"],
            checkpoint=Origin(name=name, sha256=digest.sha256, md5=digest.md5, bytes=digest.bytes, **origin),
            new_classes_reason=candidate.new_classes_reason,
            golden=result["golden"],
            probes=result.get("probes"),
        )
        try:
            return write_release(
                target or workspace.releases,
                manifest,
                (folder / "model.onnx").read_bytes(),
                (folder / "weights.safetensors").read_bytes(),
            )
        except OSError as error:
            raise Failed(
                f"the release of {name} cannot be written ({error.strerror})", "free disk space"
            ) from None


@contextlib.contextmanager
def _scratch(workspace: Workspace) -> Iterator[Path]:
    folder = workspace.incoming / f"admission-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(workspace: Workspace) -> None:
    """Drop what a killed admission left; call it with the lock `admit` held."""
    for folder in workspace.incoming.glob("admission-*"):
        shutil.rmtree(folder, ignore_errors=True)
    for path in workspace.releases.glob(".*making-*.part"):
        path.unlink(missing_ok=True)


def _need_room(workspace: Workspace, needed: int) -> None:
    workspace.incoming.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(workspace.incoming).free
    if free < needed:
        raise Failed(
            f"no room to make a release: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free",
            "free disk space, then try again",
            kind="disk_full",
        )
