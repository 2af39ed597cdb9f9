"""One look at the source: choose, hash, and, when the best one changed, take it to TO-BE.

Everything moves one way: list → choose → hash → (changed) look again → fetch → hash → admit and deploy.
What cannot be taken is named with its reason, and the next best is considered.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.checkpoints.naming import Candidate, choose
from engine.config import Settings
from engine.errors import Busy, Failed, UnderstudyError, UsageError
from engine.release.hold import held
from engine.release.journal import settle
from engine.release.slots import Pointer, read_pointer
from engine.store.clock import timestamp
from engine.store.events import append_event
from engine.store.files import fsync_folder, sha256_file
from engine.store.locks import hold
from engine.store.workspace import Workspace
from engine.sync.source import Seen, Source, Unreachable, Unreadable, open_source
from engine.sync.state import arrival, begin_taking, clear_arrivals, end_taking, read_last, write_last

if TYPE_CHECKING:
    from engine.release.deploy import Deployed

_SPARE_BYTES = 64 << 20  # left free on the disk beside a checkpoint and the release made from it


class NothingAdmissible(Failed):
    """Exit 1: there are checkpoints, and none of them can be deployed.

    Its JSON is the error's object together with the verb's own (`payload`).
    """

    default_kind = "nothing_admissible"

    def as_json(self) -> dict[str, Any]:
        return {**Failed(self.message, self.hint, kind=self.kind).as_json(), **self.payload}


def sync(
    workspace: Workspace,
    settings: Settings,
    *,
    dry_run: bool = False,
    wait: bool = False,
    say: Callable[[str], None] = lambda line: None,
    alert: Callable[[str, str, str], None] = lambda subject, text, fix: None,
) -> dict[str, Any]:
    """Look at the source once; fetch, check and deploy a changed best checkpoint to TO-BE.

    Args:
        dry_run: say what would be done; nothing is written, not even a lock.
        wait: wait for another sync, a comparison or a change of a slot.
        say: takes progress lines for people.
        alert: takes subject, text and fix, once a change of state that somebody should hear of: the source
            out of reach, or back; a checkpoint refused for the first time.

    Returns:
        The contract's object: `changed`, `candidate`, `deployed`, `release`, `skipped`, `seconds_s`, and
        `warnings` (list of sentences).

    Raises:
        Busy: another sync is at work, or another command changes a slot; with a comparison running or
            TO-BE on hold the checkpoint waits in `skipped` instead.
        Unreachable: the source cannot be looked at.
        NothingAdmissible: every checkpoint there is refused or unreadable.
        UsageError: the settings do not name a source.
    """
    source = open_source(workspace, settings)
    look = _Look(workspace, settings, source, dry_run, wait, say, alert)
    if dry_run:
        return look.run()
    with hold(workspace.lock("sync"), "sync", wait=wait):
        settle(workspace, "sync")
        return look.run_and_record()


class _PutOff(Exception):
    """The candidate must be left alone until the next look; the text says why."""


class _Look:
    """The state of one look: what was passed over so far, and what the last look knew."""

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        source: Source,
        dry_run: bool,
        wait: bool,
        say: Callable[[str], None],
        alert: Callable[[str, str, str], None],
    ) -> None:
        self.workspace, self.settings, self.source = workspace, settings, source
        self.dry_run, self.wait, self.say, self.alert = dry_run, wait, say, alert
        self.started = time.monotonic()
        self.last = read_last(workspace)
        self.skipped: dict[str, str] = {}
        self.warnings: list[str] = []
        self.refused: list[str] = []
        self.root = ""

    def run_and_record(self) -> dict[str, Any]:
        end_taking(self.workspace, None)
        before = (self.last.get("error") or {}).get("kind")
        try:
            result = self.run()
        except Unreachable as error:
            if before != error.kind:
                append_event(self.workspace, "alert", "source", {"reason": error.message, "kind": error.kind})
                self.alert("sync cannot look at its source", error.message, error.hint)
            self._record(self._result(None), error)
            raise
        except (Busy, UsageError):
            raise
        except UnderstudyError as error:
            self._record(error.payload if isinstance(error, NothingAdmissible) else self._result(None), error)
            raise
        if before in ("source_unreachable", "host_key_changed", "host_key_unknown"):
            since = self.last.get("failing_since")
            append_event(self.workspace, "alert", "source", {"reason": "reachable again", "since": since})
            self.alert("sync can look at its source again", f"it could not since {since}", "")
        self._record(result, None)
        return result

    def run(self) -> dict[str, Any]:
        with self.source as source:
            choice = choose(source.listing(), time.time())
            self.root = source.root
            self.skipped = {self._full(item["path"]): item["reason"] for item in choice.skipped}
            self.warnings = choice.warnings
            for line in choice.warnings:
                self.say(f"warning: {line}")
            for candidate in choice.candidates:
                result = self._consider(source, candidate)
                if result is not None:
                    return result
        if not choice.candidates:
            return self._result(None)
        if self.refused:
            raise NothingAdmissible(
                f"no checkpoint of {source.name} can be deployed: {self.refused[0]}",
                "mend or replace it at the source, then: python -m engine sync",
                payload=self._result(None),
            )
        return self._result(None)

    def _consider(self, source: Source, candidate: Candidate) -> dict[str, Any] | None:
        """The look's result if it ends with this candidate; None when the next best is to be considered."""
        path = self._full(candidate.path)
        if candidate.problem:
            self._pass_over(path, candidate.problem)
            return None
        try:
            seen = source.digest(candidate.path)
        except Unreadable as problem:
            if problem.gone:
                return self._put_off(path, str(problem), None)
            self._pass_over(path, str(problem))
            return None
        facts = _facts(path, candidate, seen)
        tobe = read_pointer(self.workspace, "tobe")
        if self._is_known(candidate, seen, tobe):
            self.skipped.pop(path, None)
            if tobe and tobe.checkpoint.sha256 == seen.sha256:
                self.last["taken"] = {"sha256": seen.sha256, "modified": seen.modified}
            return self._result(facts)
        if reason := self._known_refusal(seen.sha256):
            self._pass_over(path, f"refused before: {reason}")
            return None
        if self.dry_run:
            self.skipped.pop(path, None)
            return self._result(facts, changed=True)
        if standing := held(self.workspace):
            since = str(standing.get("at"))[:16]
            return self._put_off(path, f"newer, but TO-BE is on hold since {since}: it waits for unhold", facts)
        return self._take(source, candidate, seen, facts)

    def _take(
        self, source: Source, candidate: Candidate, seen: Seen, facts: dict[str, Any]
    ) -> dict[str, Any] | None:
        path = facts["path"]
        self.say(f"changed: {path} (md5 {seen.md5[:8]}, {seen.bytes / 1e6:.1f} MB)")
        try:
            self._settle(source, candidate, seen)
            if seen.bytes == 0:
                self._pass_over(path, "empty")
                return None
            fetched = self._fetch(source, candidate, seen)
        except _PutOff as reason:
            return self._put_off(path, str(reason), facts)
        except Unreadable as problem:
            return self._put_off(path, f"{problem}; looked at again next time", facts)
        self.say("checking it and making its release")
        try:
            begin_taking(self.workspace, facts)
            done = self._deploy(fetched, candidate)
        except Busy as error:
            if error.kind not in ("held", "comparing"):
                raise
            return self._put_off(path, f"newer, but not deployed now: {error.message}; it waits", facts)
        except Failed as error:
            if error.kind not in ("rejected", "limits", "crashed"):
                raise
            if getattr(error, "news", True):
                self.alert(f"checkpoint {path} was refused", error.message, error.hint)
            self._pass_over(path, str(error))
            return None
        finally:
            clear_arrivals(self.workspace)
        self.warnings += done.notes
        for line in done.notes:
            self.say(f"note: {line}")
        end_taking(self.workspace, done.release.id)
        self.skipped.pop(path, None)
        self.last["taken"] = {"sha256": seen.sha256, "modified": seen.modified}
        return self._result(facts, changed=True, release=done.release.id)

    def _settle(self, source: Source, candidate: Candidate, seen: Seen) -> None:
        time.sleep(self.settings.source.settle_s)
        if source.digest(candidate.path) != seen:
            raise _PutOff("still being written: it changed between two looks; looked at again next time")

    def _fetch(self, source: Source, candidate: Candidate, seen: Seen) -> Path:
        """Fetch into `incoming` under the content's hash; only what hashes as it did at the source arrives."""
        clear_arrivals(self.workspace, keep=seen.sha256)
        target = arrival(self.workspace, seen.sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        needed = 3 * seen.bytes + _SPARE_BYTES
        if free < needed:
            raise Failed(
                f"{free / 1e6:,.0f} MB free in {self.workspace.root}, {needed / 1e6:,.0f} MB needed",
                "make room, or prune old releases",
                kind="disk_full",
            )
        part = target.with_name(f"{target.name}.part")
        resumed = part.exists() and part.stat().st_size <= seen.bytes
        if not resumed:
            part.unlink(missing_ok=True)
        self.say(f"fetching {candidate.path}")
        try:
            source.fetch(candidate.path, part)
            if resumed and sha256_file(part) != seen.sha256:
                part.unlink()
                source.fetch(candidate.path, part)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise Failed(
                f"cannot write the checkpoint to {part.parent} ({error.strerror})",
                "make room there",
                kind="disk_full",
            ) from None
        if sha256_file(part) != seen.sha256 or source.digest(candidate.path).sha256 != seen.sha256:
            part.unlink()
            raise _PutOff("changed while it was copied; the copy was dropped, looked at again next time")
        part.replace(target)
        fsync_folder(target.parent)
        return target

    def _deploy(self, fetched: Path, candidate: Candidate) -> Deployed:
        from engine.release.deploy import deploy

        name = candidate.path.rpartition("/")[2]
        return deploy(self.workspace, self.settings, fetched, name=name, cycle=candidate.cycle, wait=self.wait)

    def _is_known(self, candidate: Candidate, seen: Seen, tobe: Pointer | None) -> bool:
        """Whether nothing is to be done about this content: TO-BE has it, or it was taken before."""
        if tobe is None:
            return False
        taken = self.last.get("taken") or {}
        if seen.sha256 in (tobe.checkpoint.sha256, taken.get("sha256")):
            return True
        if not self.refused:
            return False
        # A stand-in for a refused best must not take TO-BE back to something older than what it holds.
        asis = read_pointer(self.workspace, "asis")
        if asis is not None and asis.checkpoint.sha256 == seen.sha256:
            return True
        return taken.get("sha256") == tobe.checkpoint.sha256 and candidate.modified <= taken["modified"]

    def _known_refusal(self, sha256: str) -> str | None:
        state = self.workspace.state
        if not (state / "refused.json").exists() and not (state / "rejected.json").exists():
            return None
        from engine.release.admit import refusal

        return refusal(self.workspace, self.settings, sha256)

    def _pass_over(self, path: str, reason: str) -> None:
        self.skipped[path] = reason
        self.refused.append(f"{path}: {reason}")

    def _put_off(self, path: str, reason: str, facts: dict[str, Any] | None) -> dict[str, Any]:
        self.skipped[path] = reason
        return self._result(facts, changed=facts is not None)

    def _result(
        self, facts: dict[str, Any] | None, *, changed: bool = False, release: str | None = None
    ) -> dict[str, Any]:
        return {
            "changed": changed,
            "candidate": facts,
            "deployed": release is not None,
            "release": release,
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped.items()],
            "warnings": self.warnings,
            "seconds_s": round(time.monotonic() - self.started, 3),
        }

    def _record(self, result: dict[str, Any], error: UnderstudyError | None) -> None:
        problem = {"kind": error.kind, "message": error.message, "hint": error.hint} if error else None
        write_last(self.workspace, self.last, {**result, "error": problem, "taken": self.last.get("taken")})

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"


def _facts(path: str, candidate: Candidate, seen: Seen) -> dict[str, Any]:
    return {
        "path": path,
        "cycle": candidate.cycle,
        "md5": seen.md5,
        "sha256": seen.sha256,
        "bytes": seen.bytes,
        "modified_at": timestamp(seen.modified),
    }
