"""What the messages say: the content that the team's own scripts posted, in a few lines each."""

from __future__ import annotations

from typing import Any

from engine.store.events import read_events
from engine.store.workspace import Workspace


def deployed_message(
    *,
    cycle: int | None,
    name: str,
    path: str,
    md5: str,
    release: str,
    port: int,
    accuracy: float | None = None,
    host: str | None = None,
) -> str:
    """A new model is on TO-BE. `md5` is the checkpoint's; its first 8 hex digits are the hash people know."""
    where = f"{host}:{path}" if host else path
    lines = [
        f"New model: {'combined' if cycle is None else f'cycle {cycle}'}, {name}",
        f"path: {where}",
        f"hash: {md5[:8]} (release {release[:8]})",
    ]
    if accuracy is not None:
        lines.append(f"accuracy in training: {accuracy:.2%}")
    lines += [f"deployed to TO-BE ({port})", "next: compare, run: python -m engine ab --notify"]
    return "\n".join(lines)


def compared_message(result: dict[str, Any]) -> str:
    """A comparison's outcome from `ab`'s object, in the form of the team's script, with the verdict."""
    lines = ["A/B test"]
    for slot, title in (("asis", "AS-IS"), ("tobe", "TO-BE")):
        side, n = result[slot], result["n"]
        lines.append(f"{title} ({side['port']}): accuracy {side['accuracy'] or 0.0:.2%} ({side['correct']}/{n})")
    winner = {"tobe": "TO-BE", "asis": "AS-IS"}.get(result["verdict"])
    figure = f"p {result['p_value']:.3g}"
    if pooled := result.get("pooled"):  # it ran until it was decided: a p-value says nothing then
        figure = f"e-value {pooled['e_value']:.3g} on {pooled['n']:,} images"
    if winner:
        lines.append(f"winner: {winner} ({figure})")
    else:
        needed = result.get("images_needed")
        more = f"; a gap of this size needs about {needed:,} images" if needed else ""
        lines.append(f"winner: undecided ({figure}){more}")
    return "\n".join(lines)


def promoted_message(result: dict[str, Any], *, port: int, head: str | None = None) -> str:
    """A promotion, from `promote`'s object, with the backup's name and the audit log's head hash."""
    came = f"{result['from'][:8]} → " if result.get("from") else ""
    facts = _facts(result)
    lines = [f"Promoted: AS-IS ({port}) {came}{result['to'][:8]}{facts}"]
    if result.get("forced"):
        lines.append(f"forced: {result.get('reason')}")
    elif result.get("reason"):
        lines.append(f"evidence: {result['reason']}")
    lines.append(f"backup: {result.get('backup') or 'none, AS-IS was empty'}")
    return "\n".join([*lines, *_head(result, head)])


def rolled_back_message(result: dict[str, Any], *, port: int, head: str | None = None) -> str:
    """A rollback, from `rollback`'s object, with what was put back and the backup of what it replaced."""
    came = f"{result['from'][:8]} → " if result.get("from") else ""
    lines = [
        f"Rolled back: AS-IS ({port}) {came}{result['restored'][:8]}{_facts(result)}",
        f"put back: {result['backup']}",
    ]
    if result.get("backup_made"):
        lines.append(f"backup: {result['backup_made']}")
    return "\n".join([*lines, *_head(result, head)])


def alert_message(subject: str, text: str, *, fix: str = "", host: str | None = None) -> str:
    """Something is wrong: what, where, and what to do."""
    lines = [f"Alert{f' on {host}' if host else ''}: {subject}", text]
    return "\n".join([*lines, *([f"do: {fix}"] if fix else [])])


def log_head(workspace: Workspace) -> str | None:
    """The hash of the audit log's last line: whoever keeps it can prove that nothing before it was edited."""
    events = read_events(workspace, last=1)
    return str(events[-1]["hash"]) if events else None


def _facts(result: dict[str, Any]) -> str:
    facts = [f"cycle {result['cycle']}"] if result.get("cycle") is not None else []
    if result.get("accuracy") is not None:
        facts.append(f"accuracy {result['accuracy']:.2%}")
    return f" ({', '.join(facts)})" if facts else ""


def _head(result: dict[str, Any], head: str | None) -> list[str]:
    head = head or result.get("head")
    return [f"log: {head}"] if head else []
