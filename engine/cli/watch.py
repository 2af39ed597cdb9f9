"""`watch`: the stream that the console draws."""

from __future__ import annotations

import contextlib
import os
import sys

import click

from engine.cli.devices import choose_hosts
from engine.cli.verb import FiniteRange, Session, Verb, reader_gone
from engine.cloud.machines import start_missing_guards
from engine.watch.stream import watch as stream


@click.command(cls=Verb)
@click.option("--interval", type=FiniteRange(min=0.2), default=1.0, show_default=True, help="Seconds between.")
@click.option("--host", "names", multiple=True, metavar="NAME", help="Of hosts.*, only this one; may be repeated.")
def watch(session: Session, interval: float, names: tuple[str, ...]) -> None:
    """Print JSON Lines until stopped: each kind at the start, on change and every 30 s."""
    hosts = choose_hosts(session.settings.hosts, names)
    start_missing_guards(session.workspace, session.engine_command)

    def write(line: str) -> None:
        sys.stdout.write(line)
        sys.stdout.flush()

    # Being stopped is how it ends: Ctrl-C, SIGTERM and a reader that left are no failure, and nothing follows
    # the last message.
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        stream(session.workspace, session.settings, hosts, interval, write, ends=reader_gone())
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit would complain
