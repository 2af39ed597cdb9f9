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
from engine.release.slots import read_pointer
from engine.store.clock import timestamp
from engine.store.events import append_event
from engine.store.locks import hold, holder
from engine.store.workspace import SLOTS, Workspace
from engine.sync.factory import open_source
from engine.sync.part import Part
from engine.sync.source import Seen, Source, Unreachable, Unreadable
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
        alert: takes subject, text and fix of a checkpoint that was refused for the first time. A source that
            is out of reach, or back, is told from here.

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
    source = open_source(settings)
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
        self.waiting: dict[str, str] | None = None
        self.fetched: dict[str, Any] = {}
        self.root = ""

    def run_and_record(self) -> dict[str, Any]:
        end_taking(self.workspace, None)
        try:
            result = self.run()
        except (Busy, UsageError):
            raise
        except UnderstudyError as error:
            self._record(error.payload if isinstance(error, NothingAdmissible) else self._result(None), error)
            self._tell(error)
            raise
        self._record(result, None)
        self._tell(None)
        return result

    def _tell(self, error: UnderstudyError | None) -> None:
        """One event and one message a change between looks that work and looks that fail, and why.

        A look whose every checkpoint was refused has worked: each refusal is told by itself.
        """
        if isinstance(error, NothingAdmissible):
            error = None
        if error is None and not self.last.get("error"):
            return
        from engine.notify.alerts import clear_alert, raise_alert

        if error is None:
            clear_alert(self.workspace, self.settings, "source", "sync works again")
            return
        what = "sync cannot look at its source" if isinstance(error, Unreachable) else "sync fails"
        raise_alert(self.workspace, self.settings, "source", error.kind, what, error.message, error.hint)

    def run(self) -> dict[str, Any]:
        with self.source as source:
            choice = choose(source.listing(), time.time())
            self.root = source.root
            self.skipped = {self._full(item["path"]): item["reason"] for item in choice.skipped}
            for line in choice.warnings:
                self._warn(line)
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
        if candidate.bytes > (limit := self.settings.source.max_bytes):
            self._pass_over(
                path, f"{candidate.bytes / 1e9:.1f} GB, more than source.max_bytes ({limit / 1e9:.1f} GB)"
            )
            return None
        try:
            seen = source.look(candidate.path)
            release = self._known_release(candidate, seen)
            if release is None and (reason := self._known_refusal(seen.sha256)):
                self._pass_over(path, f"refused before: {reason}")
                return None
            facts = self._facts(source, candidate, seen)
        except Unreadable as problem:
            if problem.gone:
                return self._put_off(path, str(problem), None)
            self._pass_over(path, str(problem))
            return None
        if release is not None:
            self.skipped.pop(path, None)
            if not self.dry_run:
                clear_arrivals(self.workspace)
            return self._result(facts, release=release)
        if self.dry_run:
            self.skipped.pop(path, None)
            return self._result(facts, changed=True)
        if standing := held(self.workspace):
            since = str(standing.get("at"))[:16]
            return self._put_off(path, f"newer, but TO-BE is on hold since {since}: it waits for unhold", facts)
        # Before the copy: fetching and checking it would disturb what is compared, and at each look again.
        comparing = None if self.wait else holder(self.workspace.lock("compare"))
        if comparing and comparing.get("purpose") == "ab":
            since = str(comparing.get("since"))[:16]
            return self._put_off(
                path, f"newer, but a comparison of both slots runs since {since}: it waits", facts
            )
        return self._take(source, candidate, seen, facts)

    def _take(
        self, source: Source, candidate: Candidate, seen: Seen, facts: dict[str, Any]
    ) -> dict[str, Any] | None:
        path = facts["path"]
        self.say(f"changed: {path} (md5 {facts['md5'][:8]}, {seen.bytes / 1e6:.1f} MB)")
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
            begin_taking(self.workspace, {**facts, "fetched": self.fetched, "warnings": self.warnings})
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
        self.last["taken"] = _taken(seen, facts["md5"], done.release.id)
        return self._result(facts, changed=True, release=done.release.id)

    def _settle(self, source: Source, candidate: Candidate, seen: Seen) -> None:
        time.sleep(self.settings.source.settle_s)
        if source.look(candidate.path) != seen:
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
        self.say(f"fetching {candidate.path}")
        self._copy(source, candidate, seen, target)
        # A file that was overwritten in place never gets here; this finds one replaced by a rename.
        try:
            if source.look(candidate.path).sha256 != seen.sha256:
                self._warn(
                    f"{candidate.path} was replaced while it was copied; the newer one is for the next look"
                )
        except Unreadable:
            target.unlink()
            raise
        return target

    def _copy(self, source: Source, candidate: Candidate, seen: Seen, target: Path) -> None:
        unfinished, began = target.with_name(f"{target.name}.part"), time.monotonic()
        try:
            with Part(unfinished, seen.bytes) as part:
                source.fetch(candidate.path, seen, part)
                if part.sha256() != seen.sha256:
                    raise Unreadable("changed while it was copied; the copy was dropped")
            unfinished.replace(target)
        except Unreadable:
            clear_arrivals(self.workspace)
            raise
        except OSError as error:
            clear_arrivals(self.workspace)
            raise Failed(
                f"cannot write the checkpoint to {target.parent} ({error.strerror})",
                "make room there",
                kind="disk_full",
            ) from None
        self.fetched = {
            "seconds_s": round(time.monotonic() - began, 3),
            "kept_bytes": part.kept,
            "reconnects": part.reconnects,
        }

    def _deploy(self, fetched: Path, candidate: Candidate) -> Deployed:
        from engine.release.deploy import deploy

        name = candidate.path.rpartition("/")[2]
        return deploy(self.workspace, self.settings, fetched, name=name, cycle=candidate.cycle, wait=self.wait)

    def _known_release(self, candidate: Candidate, seen: Seen) -> str | None:
        """The release that this content is, where nothing is to be done about it: TO-BE has it, or it was taken."""
        tobe = read_pointer(self.workspace, "tobe")
        if tobe is None:
            return None
        taken = self.last.get("taken") or {}
        if tobe.checkpoint.sha256 == seen.sha256:
            self.last["taken"] = _taken(seen, tobe.checkpoint.md5, tobe.release)
            return tobe.release
        if taken.get("sha256") == seen.sha256:
            return str(taken.get("release") or tobe.release)
        if not self.refused:
            return None
        # A stand-in for a refused best must not take TO-BE back to something older than what it holds.
        asis = read_pointer(self.workspace, "asis")
        if asis is not None and asis.checkpoint.sha256 == seen.sha256:
            return asis.release
        older = taken.get("sha256") == tobe.checkpoint.sha256 and candidate.modified <= taken["modified"]
        return tobe.release if older else None

    def _facts(self, source: Source, candidate: Candidate, seen: Seen) -> dict[str, Any]:
        """The contract's `candidate`; the MD5 from what is known of this content, else from the source.

        Raises:
            Unreadable: as `Source.look`.
        """
        pointers = (read_pointer(self.workspace, slot) for slot in SLOTS)
        known = {pointer.checkpoint.sha256: pointer.checkpoint.md5 for pointer in pointers if pointer}
        taken = self.last.get("taken") or {}
        if taken.get("md5"):
            known[taken["sha256"]] = taken["md5"]
        return {
            "path": self._full(candidate.path),
            "cycle": candidate.cycle,
            "md5": known.get(seen.sha256) or source.md5(candidate.path),
            "sha256": seen.sha256,
            "bytes": seen.bytes,
            "modified_at": timestamp(seen.modified),
        }

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
        """End the look with this candidate left alone until the next; one event, however often it is put off so."""
        self.skipped[path] = reason
        self.waiting = {"path": path, "reason": reason}
        if not self.dry_run and self.last.get("waiting") != self.waiting:
            append_event(self.workspace, "postponed", path, {**(facts or {}), "reason": reason})
        return self._result(facts, changed=facts is not None)

    def _warn(self, line: str) -> None:
        self.warnings.append(line)
        self.say(f"warning: {line}")

    def _result(
        self, facts: dict[str, Any] | None, *, changed: bool = False, release: str | None = None
    ) -> dict[str, Any]:
        return {
            "changed": changed,
            "candidate": facts,
            "deployed": changed and release is not None,
            "release": release,
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped.items()],
            "warnings": self.warnings,
            "seconds_s": round(time.monotonic() - self.started, 3),
        }

    def _record(self, result: dict[str, Any], error: UnderstudyError | None) -> None:
        problem = {"kind": error.kind, "message": error.message, "hint": error.hint} if error else None
        facts = {"error": problem, "taken": self.last.get("taken"), "waiting": self.waiting}
        write_last(self.workspace, self.last, {**result, **facts})

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"


def _taken(seen: Seen, md5: str, release: str) -> dict[str, Any]:
    return {"sha256": seen.sha256, "md5": md5, "release": release, "modified": seen.modified}
