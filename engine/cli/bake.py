"""`bake`: the watch over a promoted release; and its keeper, a child of whatever serves AS-IS."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from typing import Any

import click

from engine.cli.verb import Session, Verb
from engine.errors import Failed
from engine.notify import messages, notify
from engine.release import bake as room
from engine.serving.lifeline import child_environment, die_with_parent

_PAUSE_S = 2.0


@click.command(cls=Verb)
@click.option("--watch", is_flag=True, help="Go on looking until the watch is over.")
@click.option("--tied", is_flag=True, hidden=True, help="End with the process that started it.")
def bake(session: Session, watch: bool, tied: bool) -> None:
    """Look at the release that was promoted last: does it do worse live than the one it replaced?"""
    if tied:
        die_with_parent(signal.SIGTERM)
    while True:
        found = _look(session)
        if not watch or not room.due(session.workspace, session.settings):
            break
        time.sleep(_PAUSE_S)
    session.emit({"bake": found}, _text)


class Keeper:
    """Keeps `bake --watch` running beside AS-IS's server while there is something to watch.

    All that it knows is in the workspace, so it can be ended and begun again at any moment. It works in a
    thread of its own, so that no request waits for it; that thread stays, for Linux ends a tied child with the
    thread that started it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._woken, self._closed = threading.Event(), False
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """AS-IS holds another release, or is served again: watch that."""
        self._woken.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="bake", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._closed = True
        self._woken.set()
        if self._thread is not None:
            self._thread.join()
        self._end()

    def _run(self) -> None:
        while self._woken.wait() and not self._closed:
            self._woken.clear()
            if room.due(self._session.workspace, self._session.settings):
                self._end()
                self._child = subprocess.Popen(
                    self._session.engine_command("bake", "--watch", "--tied", "--json"),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                    env=child_environment(),
                )

    def _end(self) -> None:
        if self._child is not None:
            self._child.terminate()
            self._child.wait()
            self._child = None


def _look(session: Session) -> dict[str, Any] | None:
    workspace, settings = session.workspace, session.settings

    def tell(subject: str, text: str, fix: str) -> None:
        notify(workspace, settings, "alert", messages.alert_message(subject, text, fix=fix))

    before = room.standing(workspace)
    try:
        found = room.look(workspace, settings, tell)
    except Failed as error:  # a damaged pointer, say: the next look may find it mended
        session.say(f"error: {error}")
        return before
    if found and found["by_itself"] and before and not before["by_itself"]:  # `rollback` tells of a person's
        notify(workspace, settings, "rolled_back", f"AS-IS left {found['release'][:8]}: {found['reason']}")
    return found


def _text(result: dict[str, Any]) -> str:
    found = result["bake"]
    if found is None:
        return "nothing was promoted that could be watched"
    state = {"rolled_back": "rolled back", "unjudged": "not judged"}.get(found["state"], found["state"])
    lines = [f"{found['release'][:8]} in place of {found['replaced'][:8]}: {state}"]
    until = f", watched until {found['until'][11:16]}" if found["state"] == "watching" else ""
    lines.append(f"{found['requests']} answers, {found['errors']} errors{until}")
    if found["reason"]:
        lines.append(found["reason"])
    if found["state"] == "unjudged":
        lines.append(f"next:   {room.JUDGE_LATER}")
    if found["state"] in ("alarm", "unjudged"):
        lines.append(f"undo:   python -m engine rollback {found['backup']}")
    return "\n".join(lines)
