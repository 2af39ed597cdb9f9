"""Engine commands that the console starts: they outlive it, and their outcome comes back as a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console import text
from console.words import _, said

ASK_S = 60.0
KEPT_LINES = 500


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its verb, exit code, one sentence, and where its output lies."""

    verb: str
    code: int
    sentence: str
    log: Path

    @property
    def role(self) -> str:
        return "good" if self.code == 0 else "warning" if self.code in (3, 4, 130) else "danger"


def logs_folder() -> Path:
    """Where the output of started commands lies."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "understudy" / "commands"


class Commands:
    """Starts commands and tells `done` (from a thread) how each ended."""

    def __init__(self, done: Callable[[Outcome], None], folder: Path | None = None) -> None:
        self.done = done
        self.folder = folder or logs_folder()
        self.running: dict[str, int] = {}
        self.last: Path | None = None

    def under_way(self) -> list[str]:
        """The verbs that have not ended yet; serving is not waited for."""
        return [verb for verb in self.running if verb != "serve"]

    def start(self, command: list[str], verb: str) -> Path:
        """Run an engine command apart from this terminal; the file that takes its output.

        Raises:
            OSError: it cannot be started, or the file cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{verb}-", suffix=".log", dir=self.folder)
        log = self.last = Path(name)
        answer = log.with_suffix(".json")
        with os.fdopen(handle, "wb") as errors, answer.open("wb") as output:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
            )
        self.running[verb] = child.pid
        threading.Thread(target=self._wait, args=(child, verb, log, answer), daemon=True).start()
        return log

    def ask(self, command: list[str], done: Callable[[dict[str, Any], str], None]) -> None:
        """Run a command that only answers; `done` is told, from a thread, its object and what was wrong ("")."""
        threading.Thread(target=self._ask, args=(command, done), daemon=True).start()

    def _ask(self, command: list[str], done: Callable[[dict[str, Any], str], None]) -> None:
        try:
            answer = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_S, start_new_session=True
            )
        except subprocess.TimeoutExpired:
            done({}, _("the engine did not answer in time"))
            return
        except OSError as error:
            done({}, f"{_('cannot start')}: {error.strerror}")
            return
        found = _object(answer.stdout.decode(errors="replace").splitlines())
        if isinstance(found.get("error"), dict):
            done({}, said(_error(found["error"])))
        elif answer.returncode:
            lines = answer.stderr.decode(errors="replace").strip().splitlines()
            done({}, lines[-1] if lines else f"{_('exit')} {answer.returncode}")
        else:
            done(found, "")

    def _wait(self, child: subprocess.Popen[bytes], verb: str, log: Path, answer: Path) -> None:
        code = child.wait()
        self.running.pop(verb, None)
        self.done(Outcome(verb, code, _sentence(verb, code, _read(answer), log), log))


class CommandLog:
    """What a started command has said so far, for the log pane."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        self.lines: list[str] = []
        self.problem = ""
        self.refresh()

    def refresh(self) -> None:
        """Read it again: what went wrong, then the answer."""
        self.lines, self.problem = [], ""
        for file in (self.path, self.path.with_suffix(".json")):
            try:
                self.lines += file.read_text(encoding="utf-8", errors="replace").splitlines()[-KEPT_LINES:]
            except OSError as error:
                self.problem = f"{file.name}: {error.strerror}"


def _read(answer: Path) -> dict[str, Any]:
    try:
        return _object(answer.read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return {}


def _object(lines: list[str]) -> dict[str, Any]:
    """The JSON object on the last line; {} where there is none."""
    try:
        value = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _error(error: dict[str, Any]) -> str:
    hint = f": {error['hint']}" if error.get("hint") else ""
    return f"{error.get('message', _('failed'))}{hint}"


def _sentence(verb: str, code: int, answer: dict[str, Any], log: Path) -> str:
    if isinstance(answer.get("error"), dict):
        return f"{verb}: {said(_error(answer['error']))}"
    if code == 0:
        return _done(verb, answer)
    if isinstance(answer.get("reason"), str):
        return f"{verb} {_('refused')}: {said(answer['reason'])}"
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else f"{verb}: {_('exit')} {code}"


def _done(verb: str, answer: dict[str, Any]) -> str:
    if verb == "promote":
        backup = f", {_('backup')} {answer['backup']}" if answer.get("backup") else ""
        return f"{_('promoted')} {text.short(answer.get('to'))} → AS-IS{backup}"
    if verb == "rollback":
        return f"{_('restored')} {text.short(answer.get('restored'))} → AS-IS"
    if verb == "sync":
        if answer.get("deployed"):
            return f"{_('synced')}: {text.short(answer.get('release'))} → TO-BE"
        return _("synced: nothing new") if not answer.get("changed") else _("synced: nothing deployed")
    if verb == "deploy":
        return f"{_('deployed')} {text.short(answer.get('release'))} → TO-BE"
    if verb == "ab":
        words = {"tobe": _("TO-BE is better"), "asis": _("AS-IS is better")}
        verdict = words.get(str(answer.get("verdict")), _("undecided"))
        return f"{_('compared')} {text.number(answer.get('n'))} {_('images')}: {verdict}"
    if verb == "analyze":
        figures = (
            f"{_('accuracy')} {text.percent(answer.get('accuracy'))}, F1 {text.number(answer.get('f1_macro'), 3)}"
        )
        return f"{_('analysed')} {text.number(answer.get('n'))} {_('images')}: {figures}"
    if verb == "export":
        files = answer.get("artifacts") or []
        said = [
            f"{one.get('format')} {text.times(one.get('size_ratio'), 1)} {_('smaller')},"
            f" {text.times(one.get('speedup'), 1)} {_('faster')}"
            for one in files
        ]
        return f"{_('exported')}: {'; '.join(said)}"
    if verb == "train":
        return f"{_('training')} {answer.get('run', '')} {_(str(answer.get('status', 'started')))}"
    return f"{verb}: {_('done')}"
