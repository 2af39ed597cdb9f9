"""`cron`: the schedule of `sync` in the user's crontab, one line a workspace."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from engine.cli.verb import Session, Verb
from engine.config.load import portable_overrides
from engine.errors import Failed, UsageError, nearest

ACTIONS = ("show", "install", "remove")
PROJECT = Path(__file__).resolve().parents[2]


@click.command(cls=Verb, words=("show|install|remove", 0, 1))
def cron(session: Session, words: list[str]) -> None:
    """Show, install or remove the crontab line that runs sync every source.poll_minutes."""
    action = words[0] if words else "show"
    if action not in ACTIONS:
        raise UsageError(f"unknown action '{action}'", nearest(action, ACTIONS))
    mark = f"understudy sync {session.workspace.root}"
    line = ""
    if action != "remove":  # an interval that cron cannot say must not keep an old line from being removed
        line = f"{cron_schedule(session.settings.source.poll_minutes)} {_command(session)} # {mark}"
    result: dict[str, Any] = {"line": line, "installed": False, "action": action, "changed": False}
    if action == "show" and shutil.which("crontab") is None:
        session.emit(result, _text)
        return
    lines = _read_table()
    ours = [entry for entry in lines if entry.endswith(f" # {mark}")]
    others = [entry for entry in lines if entry not in ours]
    result["installed"] = ours == [line]
    if action == "install" and not result["installed"]:
        session.workspace.logs.mkdir(parents=True, exist_ok=True)
        _write_table([*others, line])
        result |= {"installed": True, "changed": True}
    if action == "install":
        result["notes"] = session.forgotten_secrets(PROJECT)
    elif action == "remove":
        if ours:
            _write_table(others)
        result |= {"line": ours[0] if ours else "", "installed": False, "changed": bool(ours)}
    session.emit(result, _text)


def cron_schedule(minutes: float) -> str:
    """The five fields of cron for "every so many minutes": the documents' 30 gives `*/30 * * * *`.

    Raises:
        UsageError: cron cannot say it evenly: not a divisor of an hour, nor whole hours that divide a day.
    """
    whole = int(minutes)
    if whole == minutes:
        if whole == 1:
            return "* * * * *"
        if whole < 60 and 60 % whole == 0:
            return f"*/{whole} * * * *"
        if whole == 60:
            return "0 * * * *"
        if whole == 24 * 60:
            return "0 0 * * *"
        if whole % 60 == 0 and whole < 24 * 60 and 24 % (whole // 60) == 0:
            return f"0 */{whole // 60} * * *"
    raise UsageError(
        f"cron cannot run every {minutes:g} minutes evenly",
        "set source.poll_minutes to 1, 2, 3, 4, 5, 6, 10, 12, 15, 20 or 30, or to 60, 120, 180, 240, 360, 480, 720 "
        "or 1440; or run: sync --watch",
        kind="bad_value",
    )


def _command(session: Session) -> str:
    words = [sys.executable, "-m", "engine", *session.loaded.options]
    words += ["--workspace", str(session.workspace.root), "sync", "--json", *portable_overrides(session.loaded)]
    log = session.workspace.logs / "sync.log"
    command = f"cd {shlex.quote(str(PROJECT))} && {shlex.join(words)} >> {shlex.quote(str(log))} 2>&1"
    if "\n" in command:
        raise UsageError("a crontab line cannot hold a path with a line break", "move the config or the workspace")
    return command.replace("%", "\\%")  # cron turns a bare % into a line break


def _read_table() -> list[str]:
    """The lines of the user's crontab, as they stand.

    By hand and not through python-crontab, which loses a comment that stands before a variable.
    """
    done = _crontab("-l")
    if done.returncode == 0:
        return done.stdout.splitlines()
    if "no crontab for" in done.stderr.lower():
        return []
    raise Failed(f"cannot read the crontab ({done.stderr.strip()})", "try: crontab -l", kind="cron")


def _write_table(lines: list[str]) -> None:
    done = _crontab("-", text="".join(f"{line}\n" for line in lines))
    if done.returncode != 0:
        raise Failed(f"cannot write the crontab ({done.stderr.strip()})", "try: crontab -e", kind="cron")


def _crontab(word: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    if shutil.which("crontab") is None:
        raise Failed(
            "this host has no crontab",
            "install cron (Debian: apt install cron), or keep `sync --watch` running: service install",
            kind="no_cron",
        )
    try:
        return subprocess.run(
            ["crontab", word], input=text, capture_output=True, text=True, errors="surrogateescape", check=False
        )
    except OSError as error:
        raise Failed(f"cannot run crontab ({error.strerror})", "check its rights", kind="cron") from None


def _text(result: dict[str, Any]) -> str:
    if result["action"] == "install":
        said = "installed" if result["changed"] else "installed already"
    elif result["action"] == "remove":
        said = "removed" if result["changed"] else "was not installed"
    else:
        said = "installed" if result["installed"] else "not installed (do it with: cron install)"
    return "\n".join([result["line"], said, *(f"note: {note}" for note in result.get("notes", []))]).lstrip()
