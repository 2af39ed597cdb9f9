"""`doctor`: everything that a person would check, and how to mend it."""

from __future__ import annotations

from typing import Any

import click

from engine.cli.verb import Session, Verb, table
from engine.watch.checkup import run_checks

_SIGNS = {"ok": "ok", "note": "note", "warn": "warn", "fail": "FAIL"}


@click.command(cls=Verb)
def doctor(session: Session) -> int:
    """Check installation, config, workspace, source, slots, backups, log, schedule, messages and devices."""
    checks = [check.as_json() for check in run_checks(session.workspace, session.loaded)]
    result = {"ok": all(check["ok"] for check in checks), "checks": checks}
    session.emit(result, _text)
    return 0 if result["ok"] else 1


def _text(result: dict[str, Any]) -> str:
    rows = [(_SIGNS[check["level"]], check["name"], check["detail"]) for check in result["checks"]]
    failed = [check for check in result["checks"] if not check["ok"]]
    lines = [table(rows), ""]
    lines += [f"mend {check['name']}: {check['fix']}" for check in failed if check["fix"]]
    lines.append(f"{len(failed)} of {len(rows)} checks failed" if failed else "all is well")
    return "\n".join(lines)
