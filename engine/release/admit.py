"""From a checkpoint file to a release, or a reason why not.

The file is copied, hashed and then opened by a child process alone (`admission_child`). What was
refused is remembered by its hash and the settings that mattered, and so is the release that a
checkpoint gave: neither is worked out twice. Torch-free.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine import __version__
from engine.config import Settings
from engine.errors import Failed, UsageError
from engine.release.bundle import Manifest, Origin, Release, read_release, release_path, write_release
from engine.release.child import Unchecked, run_child
from engine.release.hold import ANOTHER, rejection
from engine.release.refusal import Refusal, check_classes, check_task
from engine.release.slots import production_classes, production_task
from engine.store.clock import timestamp
from engine.store.events import append_event, search_events
from engine.store.files import Digest, digest_file, read_json, write_json
from engine.store.locks import hold
from engine.store.workspace import Workspace

_REMEMBERED = 500


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


@dataclass(frozen=True)
class _Candidate:
    """A checkpoint on its way in; `expect_classes` is None where any classes will do.

    `read` is False for what is refused before a byte of it is read: `digest` then stands for its path.
    `for_slots` is False for what no slot will get: AS-IS may do another kind of work.
    """

    path: Path
    digest: Digest
    name: str
    cycle: int | None
    expect_classes: list[str] | None
    new_classes_reason: str | None
    notes: list[str]
    read: bool = True
    for_slots: bool = True


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
        unread = _Candidate(checkpoint, _unread(checkpoint, refusal), name, cycle, None, None, notes, read=False)
        with hold(workspace.lock("admit"), f"admission of {name}", wait=True):
            raise _record(workspace, settings, refusal, unread) from None
    if why := rejection(workspace, sha256=digest.sha256):
        raise Rejected(f"{name} is not deployed: {why}", ANOTHER, check="rejected")
    expected = None if new_classes_reason else expect_classes
    candidate = _Candidate(
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
    candidate = _Candidate(checkpoint, digest, name, None, None, None, [], for_slots=False)
    try:
        with hold(workspace.lock("admit"), f"admission of {name}", wait=True):
            return _make(workspace, settings, candidate, workspace.cache / "unconverted", convert=False)
    except Refusal as refusal:
        raise Rejected(f"{name} {refusal.message}", refusal.hint, check=refusal.check) from None


def require_there(checkpoint: Path) -> int:
    """The bytes of what the path names.

    Raises:
        UsageError: nothing is there, a folder is, or it may not be looked at.
    """
    try:
        facts = checkpoint.stat()
    except FileNotFoundError:
        what = "is a link to nothing" if checkpoint.is_symlink() else "does not exist"
        raise UsageError(f"{checkpoint} {what}", "check the path", kind="not_found") from None
    except OSError as error:
        raise UsageError(f"{checkpoint} cannot be read ({error.strerror})", "check its rights") from None
    if checkpoint.is_dir():
        raise UsageError(f"{checkpoint} is a folder", "give the checkpoint file itself", kind="not_a_file")
    return facts.st_size


def examine(checkpoint: Path, settings: Settings) -> Digest:
    """Hash a checkpoint after making sure that it is a file of a sane size that may be read.

    Raises:
        UsageError: not there, a folder, or not readable.
        Refusal: a link that leads away, a device or pipe, empty, or far too large.
    """
    size = require_there(checkpoint)
    if checkpoint.is_symlink() and not _stays(checkpoint, settings):
        hint = f"deploy the file itself: {checkpoint.resolve()}"
        raise Refusal("file", "is a link that leads out of its folder", hint)
    if not checkpoint.is_file():
        raise Refusal("file", "is not a regular file", "give the file that torch.save wrote")
    if size == 0:
        raise Refusal("file", "is empty (0 bytes)", "copy it again from where it was made")
    if size > (limit := settings.source.max_bytes):
        raise Refusal(
            "file",
            f"has {size / 1e9:.1f} GB, more than {limit / 1e9:.1f} GB",
            "save the weights alone, without the optimiser, or raise source.max_bytes",
        )
    try:
        return digest_file(checkpoint)
    except PermissionError:
        raise UsageError(f"{checkpoint} may not be read", f"chmod 644 {checkpoint}", kind="unreadable") from None
    except OSError as error:
        raise Failed(f"{checkpoint} cannot be read ({error.strerror})", "check the disk it lies on") from None


def _unread(checkpoint: Path, refusal: Refusal) -> Digest:
    """What stands for the content of a file that is not read: its place and what is wrong with it."""
    size = checkpoint.stat().st_size if checkpoint.is_file() else 0
    words = f"{checkpoint.absolute()}\0{refusal.message}\0{size}"
    return Digest(hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest(), "", size)


def refusal(workspace: Workspace, settings: Settings, sha256: str) -> str | None:
    """Why these bytes would be refused without looking at them again, or None when nothing is known.

    It forgets when the settings that mattered, the engine or torch change, or AS-IS's classes do.
    """
    if why := rejection(workspace, sha256=sha256):
        return why
    old = _remembered(workspace, settings, sha256, production_classes(workspace))
    return f"{old['name']} {old['message']}: {old['hint']}" if old else None


def _admit(workspace: Workspace, settings: Settings, candidate: _Candidate) -> Release:
    key, name, sha256 = _fingerprint(settings), candidate.name, candidate.digest.sha256
    _sweep(workspace)
    if old := _remembered(workspace, settings, sha256, candidate.expect_classes):
        raise Rejected(
            f"{name} {old['message']}", old["hint"], check=old["check"], dangerous=old.get("dangerous", False)
        )
    release = _made_before(workspace, sha256, key, candidate.new_classes_reason)
    try:
        if release is None:
            release = _make(workspace, settings, candidate)
            _note_release(workspace, sha256, key, candidate.new_classes_reason, release.id)
        else:
            if candidate.for_slots:
                check_task(release.manifest.task, production_task(workspace))
            if candidate.expect_classes is not None:
                check_classes(release.manifest.classes, candidate.expect_classes)
    except Refusal as refusal:
        raise _record(workspace, settings, refusal, candidate) from None
    except Unchecked as error:
        unknown = Refusal(error.kind, error.message.removeprefix(f"{name} "), error.hint, lasting=False)
        error.news = _record(workspace, settings, unknown, candidate).news
        raise
    return release


def _stays(link: Path, settings: Settings) -> bool:
    """Whether a link leads to a file below the source's root, or below its own folder."""
    roots = [link.absolute().parent, settings.checkpoints_root]
    if settings.source.kind == "local" and settings.source.root:
        roots.append(Path(settings.source.root))
    return any(link.resolve().is_relative_to(root.resolve()) for root in roots)


def _fingerprint(settings: Settings) -> str:
    """What besides the bytes decides whether and to what a checkpoint is converted."""
    source = settings.source
    facts = {
        "source": source.model_dump(mode="json", include={"model", "classes", "img_size", "mean", "std"}),
        "resize": settings.data.resize,
        "model": [settings.model.name, settings.model.settings],
        "task": settings.task,
        "versions": [__version__, version("torch"), version("onnx")],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _remembered(
    workspace: Workspace, settings: Settings, sha256: str, expect_classes: list[str] | None
) -> dict[str, Any] | None:
    entry = _read(workspace, "refused.json").get(sha256)
    if not isinstance(entry, dict) or entry.get("fingerprint") != _fingerprint(settings):
        return None
    if not entry.get("lasting"):  # told once, but looked at again: a fuller machine or another package may do
        return None
    if entry["check"] == "classes" and entry.get("expected") != expect_classes:
        return None
    return entry


def _record(workspace: Workspace, settings: Settings, refusal: Refusal, candidate: _Candidate) -> Rejected:
    """One event a hash, and a memory of the refusal where it will come again.

    The log comes first: whoever is killed between the two is told again of nothing, and nothing is lost.
    """
    digest, name = candidate.digest, candidate.name
    known = _read(workspace, "refused.json")
    news = digest.sha256 not in known and _tell(workspace, refusal, candidate)
    known.pop(digest.sha256, None)
    known[digest.sha256] = {
        "fingerprint": _fingerprint(settings),
        "check": refusal.check,
        "name": name,
        "message": refusal.message,
        "hint": refusal.hint,
        "dangerous": refusal.dangerous,
        "lasting": refusal.lasting,
        "expected": candidate.expect_classes if refusal.check == "classes" else None,
        "at": timestamp(),
    }
    write_json(workspace.state / "refused.json", dict(list(known.items())[-_REMEMBERED:]))
    return Rejected(
        f"{name} {refusal.message}", refusal.hint, check=refusal.check, dangerous=refusal.dangerous, news=news
    )


def _tell(workspace: Workspace, refusal: Refusal, candidate: _Candidate) -> bool:
    """Append what the log does not have yet of this refusal; whether anything was missing."""
    digest, told = candidate.digest, set()
    for event in search_events(workspace, digest.sha256):
        if event["kind"] in ("deployed", "synced"):
            break  # it was admitted since: a refusal now is another one
        if event["detail"].get("sha256") == digest.sha256 or event["detail"].get("mark") == digest.sha256:
            told.add(event["kind"])
    content = {"sha256": digest.sha256, "md5": digest.md5} if candidate.read else {"mark": digest.sha256}
    detail = {
        **content,
        "bytes": digest.bytes,
        "cycle": candidate.cycle,
        "check": refusal.check,
        "reason": refusal.message,
        "fix": refusal.hint,
    }
    if "refused" not in told:
        append_event(workspace, "refused", candidate.name, detail)
    if refusal.dangerous and "alert" not in told:
        append_event(workspace, "alert", candidate.name, {"severity": "critical", **detail})
        return True
    return "refused" not in told


def _make(
    workspace: Workspace,
    settings: Settings,
    candidate: _Candidate,
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


def _made_before(workspace: Workspace, sha256: str, key: str, reason: str | None) -> Release | None:
    identity = _read(workspace, "releases.json").get(_index_key(sha256, key, reason))
    if not isinstance(identity, str):
        return None
    try:
        return read_release(release_path(workspace, identity), expect=identity)
    except Failed:  # gone or damaged: made again, under the same name
        return None


def _note_release(workspace: Workspace, sha256: str, key: str, reason: str | None, identity: str) -> None:
    known = _read(workspace, "releases.json")
    known[_index_key(sha256, key, reason)] = identity
    write_json(workspace.state / "releases.json", dict(list(known.items())[-_REMEMBERED:]))
    refused = _read(workspace, "refused.json")
    if refused.pop(sha256, None) is not None:
        write_json(workspace.state / "refused.json", refused)


def _index_key(sha256: str, key: str, reason: str | None) -> str:
    return hashlib.sha256(f"{sha256} {key} {reason or ''}".encode()).hexdigest()


def _read(workspace: Workspace, name: str) -> dict[str, Any]:
    try:
        found = read_json(workspace.state / name)
    except Failed:  # a memory that is lost costs one more look
        return {}
    return dict(found) if isinstance(found, dict) else {}
