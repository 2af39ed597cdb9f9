"""`prune`: old releases and backups that nothing needs."""

from __future__ import annotations

from typing import Any

import click

from engine.cli.verb import Session, Verb
from engine.release.prune import prune as clear


@click.command(cls=Verb)
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@click.option("--wait", is_flag=True, help="Wait for another command that holds the slots.")
def prune(session: Session, dry_run: bool, wait: bool) -> None:
    """Remove releases and backups beyond the numbers and the age of [retention]; never one that is needed."""
    result = {**clear(session.workspace, session.settings, dry_run=dry_run, wait=wait), "dry_run": dry_run}
    session.emit(result, _text)


def _text(result: dict[str, Any]) -> str:
    names = [*result["backups"], *(f"release {release[:8]}" for release in result["releases"])]
    said = "would go" if result["dry_run"] else "removed"
    lines = [f"{said}: {name}" for name in names]
    lines += [f"kept: {name[:40]}: {why}" for name, why in result["kept"].items()]
    lines.append(f"{result['bytes'] / 1e6:.1f} MB" if names else "nothing to remove")
    return "\n".join(lines)
