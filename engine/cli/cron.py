"""`cron`: the schedule of `sync` in the user's crontab, one line a workspace."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli.verb import Session, Verb
from engine.errors import Failed, UsageError, nearest

if TYPE_CHECKING:
    from crontab import CronTab

ACTIONS = ("show", "install", "remove")
PROJECT = Path(__file__).resolve().parents[2]


@click.command(cls=Verb, words=("show|install|remove", 0, 1))
def cron(session: Session, words: list[str]) -> None:
    """Show, install or remove the crontab line that runs sync every source.poll_minutes."""
    action = words[0] if words else "show"
    if action not in ACTIONS:
        raise UsageError(f"unknown action '{action}'", nearest(action, ACTIONS))
    schedule = cron_schedule(session.settings.source.poll_minutes)
    command, mark = _command(session), f"understudy sync {session.workspace.root}"
    line = f"{schedule} {command} # {mark}"
    result: dict[str, Any] = {"line": line, "installed": False, "action": action, "changed": False}
    if action == "show" and shutil.which("crontab") is None:
        session.emit(result, _text)
        return
    table = _read_table()
    ours = [job for job in table if job.comment == mark]
    result["installed"] = [str(job) for job in ours] == [line]
    if action == "install" and not result["installed"]:
        table.remove_all(comment=mark)
        job = table.new(command=command, comment=mark)
        job.setall(schedule)
        if str(job) != line:
            raise Failed(f"cron would not keep this line: {line}", f"it made of it: {job}", kind="cron")
        session.workspace.logs.mkdir(parents=True, exist_ok=True)
        _write_table(table)
        result |= {"installed": True, "changed": True}
    elif action == "remove":
        if ours:
            table.remove_all(comment=mark)
            _write_table(table)
        result |= {"installed": False, "changed": bool(ours)}
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
    words = [sys.executable, "-m", "engine"]
    if session.loaded.path:
        words += ["--config", str(session.loaded.path.absolute())]
    words += ["--workspace", str(session.workspace.root), "sync", "--json", *session.overrides]
    log = session.workspace.logs / "sync.log"
    command = f"cd {shlex.quote(str(PROJECT))} && {shlex.join(words)} >> {shlex.quote(str(log))} 2>&1"
    if "\n" in command:
        raise UsageError("a crontab line cannot hold a path with a line break", "move the config or the workspace")
    return command.replace("%", "\\%")  # cron turns a bare % into a line break


def _read_table() -> CronTab:
    if shutil.which("crontab") is None:
        raise Failed(
            "this host has no crontab",
            "install cron (Debian: apt install cron), or keep `sync --watch` running: service install",
            kind="no_cron",
        )
    from crontab import CronTab

    try:
        return CronTab(user=True)
    except OSError as error:
        raise Failed(f"cannot read the crontab ({error})", "try: crontab -l", kind="cron") from None


def _write_table(table: CronTab) -> None:
    try:
        table.write()
    except OSError as error:
        raise Failed(f"cannot write the crontab ({error})", "try: crontab -e", kind="cron") from None


def _text(result: dict[str, Any]) -> str:
    if result["action"] == "install":
        said = "installed" if result["changed"] else "installed already"
    elif result["action"] == "remove":
        said = "removed" if result["changed"] else "was not installed"
    else:
        said = "installed" if result["installed"] else "not installed (do it with: cron install)"
    return f"{result['line']}\n{said}"
