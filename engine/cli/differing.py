"""`differing`: the images of a comparison on which the two releases differ, small enough for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.cli.verb import Session, Verb, table
from engine.errors import UsageError


@click.command(cls=Verb, words=("ID", 0, 1))
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=50, help="At most this many (50).")
@click.option("--width", metavar="W", type=click.IntRange(1, 1024), default=48, help="Columns of an image (48).")
def differing(session: Session, words: list[str], limit: int, width: int) -> None:
    """Show the images on which the two releases of a comparison (the newest) differ, with their pixels."""
    from engine.compare import records

    newest = records.newest_id(session.workspace)
    if newest is None:
        raise UsageError("nothing was compared yet", "run: python -m engine ab", kind="no_comparison")
    identity = int(words[0]) if words and words[0].isdigit() else newest
    if (words and not words[0].isdigit()) or not records.comparison_path(session.workspace, identity).exists():
        raise UsageError(f"there is no comparison {words[0]}", f"the newest is {newest}", kind="not_found")
    rows = records.differing_rows(session.workspace, identity)
    shown = [_image(row, width if session.json else None) for row in rows[:limit]]
    session.emit({"id": identity, "total": len(rows), "images": shown}, _text)


def _image(row: dict[str, Any], width: int | None) -> dict[str, Any]:
    """One image: what was said of it, and with a width its pixels too (only programs read those)."""
    from engine.compare.thumbnails import thumbnail_of

    said = {key: row[key] for key in ("label", "asis", "tobe", "sha256")} | {"path": row["path"] or row["name"]}
    if width is None:
        return said
    if row["path"] is None:
        return {**said, "width": 0, "height": 0, "rgb": "", "problem": "its place was not kept"}
    return said | thumbnail_of(Path(row["path"]), row["sha256"], width)


def _text(result: dict[str, Any]) -> str:
    if not result["total"]:
        return f"comparison {result['id']}: both gave the same answer on every image"
    rows = [
        (image["label"], _said(image, "asis"), _said(image, "tobe"), image["path"]) for image in result["images"]
    ]
    left = result["total"] - len(rows)
    lines = [table(rows, ("label", "AS-IS", "TO-BE", "image"))]
    return "\n".join([*lines, *([f"and {left:,} more: --limit {result['total']}"] if left else [])])


def _said(image: dict[str, Any], slot: str) -> str:
    answer = image[slot]
    if answer is None:
        return "no answer"
    return f"{answer} (right)" if answer == image["label"] else str(answer)
