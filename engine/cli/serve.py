"""`serve`: the two slots, until stopped."""

from __future__ import annotations

from typing import Any

import click

from engine.cli.bake import Keeper
from engine.cli.verb import Session, Verb
from engine.errors import UsageError, nearest
from engine.store.workspace import SLOTS


@click.command(cls=Verb, words=("asis|tobe|all", 0, 1))
@click.option("--tied", is_flag=True, hidden=True, help="End when standard input closes.")
def serve(session: Session, words: list[str], tied: bool) -> None:
    """Serve AS-IS, TO-BE or both until stopped; with --json one object a line for each change of a slot."""
    wanted = words[0] if words else "all"
    if wanted not in (*SLOTS, "all"):
        raise UsageError(f"unknown slot '{wanted}'", nearest(wanted, [*SLOTS, "all"]), kind="unknown_slot")
    settings, workspace = session.settings, session.workspace
    if settings.servers.asis.port == settings.servers.tobe.port:
        raise UsageError(
            f"both slots have port {settings.servers.asis.port}", "set servers.asis.port or servers.tobe.port"
        )
    from engine.notify.flusher import keep_flushing
    from engine.serving.service import line
    from engine.serving.service import serve as run

    keeper = Keeper(session)
    messages = keep_flushing(workspace, session.engine_command("notify", "--flush"))

    def announce(state: dict[str, Any]) -> None:
        session.emit(state, line)
        if state["slot"] == "asis" and state["release"] and not tied:  # a tied one's parent keeps the bake
            keeper.wake()

    try:
        run(workspace, settings, list(SLOTS) if wanted == "all" else [wanted], announce, tied=tied)
    finally:
        keeper.close()
        messages.set()
