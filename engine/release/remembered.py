"""What admission remembers: which checkpoints were refused and why, and which release another one gave.

Both are kept by the checkpoint's hash and by the settings that mattered, and both only save work: a memory that is
lost costs one more look, and the log knows of each refusal that people were told of it.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import Any

from engine import __version__
from engine.config import Settings
from engine.errors import Failed
from engine.release.bundle import Release, read_release, release_path
from engine.release.candidate import Candidate
from engine.release.refusal import Refusal
from engine.store.clock import timestamp
from engine.store.events import append_event, search_events
from engine.store.files import read_json, write_json
from engine.store.workspace import Workspace

_REMEMBERED = 500


def known_refusal(
    workspace: Workspace, settings: Settings, sha256: str, expect_classes: list[str] | None
) -> dict[str, Any] | None:
    """What was noted of these bytes (`name, message, hint, check, dangerous`) where it would be refused again."""
    entry = _read(workspace, "refused.json").get(sha256)
    if not isinstance(entry, dict) or entry.get("fingerprint") != _fingerprint(settings):
        return None
    if not entry.get("lasting"):  # told once, but looked at again: a fuller machine or another package may do
        return None
    if entry["check"] == "classes" and entry.get("expected") != expect_classes:
        return None
    return entry


def note_refusal(workspace: Workspace, settings: Settings, refusal: Refusal, candidate: Candidate) -> bool:
    """One event a hash, and a memory of the refusal where it will come again; whether people have not heard of it.

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
    return news


def known_release(workspace: Workspace, settings: Settings, candidate: Candidate) -> Release | None:
    """The release that this checkpoint gave before, whole; None where it gave none, or that is gone or damaged."""
    identity = _read(workspace, "releases.json").get(_index_key(settings, candidate))
    if not isinstance(identity, str):
        return None
    try:
        return read_release(release_path(workspace, identity), expect=identity)
    except Failed:  # made again, under the same name
        return None


def note_release(workspace: Workspace, settings: Settings, candidate: Candidate, identity: str) -> None:
    """Remember the release that this checkpoint gave; a refusal of it is forgotten."""
    known = _read(workspace, "releases.json")
    known[_index_key(settings, candidate)] = identity
    write_json(workspace.state / "releases.json", dict(list(known.items())[-_REMEMBERED:]))
    refused = _read(workspace, "refused.json")
    if refused.pop(candidate.digest.sha256, None) is not None:
        write_json(workspace.state / "refused.json", refused)


def _tell(workspace: Workspace, refusal: Refusal, candidate: Candidate) -> bool:
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


def _index_key(settings: Settings, candidate: Candidate) -> str:
    words = f"{candidate.digest.sha256} {_fingerprint(settings)} {candidate.new_classes_reason or ''}"
    return hashlib.sha256(words.encode()).hexdigest()


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


def _read(workspace: Workspace, name: str) -> dict[str, Any]:
    try:
        found = read_json(workspace.state / name)
    except Failed:  # a memory that is lost costs one more look
        return {}
    return dict(found) if isinstance(found, dict) else {}
