"""`logs`: what a slot, `sync` or a run said."""

from __future__ import annotations

import contextlib

import click

from engine.cli.verb import Session, Verb, reader_gone
from engine.errors import UsageError, nearest
from engine.store.logfile import NAMES, follow_lines, last_lines, log_path
from engine.training.runs import find_run, newest_running


@click.command(cls=Verb, words=("NAME", 0, 1))
@click.option("--lines", type=click.IntRange(min=0), default=100, show_default=True, help="Only the newest N.")
@click.option("--follow", is_flag=True, help="Go on printing new lines until stopped.")
def logs(session: Session, words: list[str], lines: int, follow: bool) -> None:
    """Show or follow a log: asis, tobe, sync, or a run; without NAME the run that goes on, else asis."""
    name = _find(session, words[0] if words else None)
    path = log_path(session.workspace, name)
    if not follow:
        found = last_lines(path, lines)
        nothing = f"nothing is in {path} yet"
        session.emit({"name": name, "path": str(path), "lines": found}, "\n".join(found) or nothing)
        return
    with contextlib.suppress(KeyboardInterrupt):  # a signal is this stream's ordinary end
        for line in follow_lines(path, lines, reader_gone()):
            session.emit({"name": name, "line": line}, line or "\n")


def _find(session: Session, name: str | None) -> str:
    if name is None:
        run = newest_running(session.workspace)
        return run.run if run else "asis"
    if name in NAMES:
        return name
    try:
        return find_run(session.workspace, name).run
    except UsageError as error:
        hint = nearest(name, NAMES) if not name.isdigit() else error.hint
        raise UsageError(f"no log '{name}'", f"{hint}; a run's number works too", kind="unknown_log") from None
