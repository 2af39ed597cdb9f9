"""`data`: the data report without a training; what it finds and decodes is kept for the trainings that follow."""

from __future__ import annotations

from typing import Any

import click

from engine.cli.verb import Session, Verb, table
from engine.tasks.report import KINDS, counted, refuse


@click.command(cls=Verb, words=("DIR", 0, 1))
@click.option("--strict", is_flag=True, help="Exit 2 where a file or a class is at fault.")
def data(session: Session, words: list[str], strict: bool) -> None:
    """Check the data set, or the one in DIR, as `train` would: files, classes, duplicates, splits."""
    from engine.tasks.images.data import load_data

    if words:  # first, so that the line's own overrides win
        session.overrides[:0] = ["data=folder", f"data.root={words[0]}"]
    settings = session.settings

    def looked(done: int, count: int) -> None:
        if count > 2000 and done and (done % 2048 == 0 or done == count):
            session.say(f"  checked {done:,} of {count:,} files")

    cache = session.workspace.cache / "images"
    report = load_data(settings.data, settings.training.seed, cache=cache, on_progress=looked).report
    if strict and session.json:
        refuse(report)  # before the report: standard output carries one object
    session.emit(report, _text)
    if strict:
        refuse(report)


def _text(report: dict[str, Any]) -> str:
    rows = [(name, f"{count['train']:,}", f"{count['val']:,}") for name, count in report["images"].items()]
    lines = [
        table([*rows, ("all", f"{report['train']:,}", f"{report['val']:,}")], ("class", "train", "val")),
        "",
        f"{report['ok']:,} of {report['checked']:,} files are in order"
        + (f"; at fault: {counted(report)}" if report["ok"] < report["checked"] else ""),
    ]
    for kind in KINDS:
        lines += [
            f"  {kind:<12} {item['path']}: {item['reason']}" + (" (used all the same)" if item.get("used") else "")
            for item in report[kind]
        ]
    lines += [f"note: {problem['reason']}" for problem in report["class_problems"]]
    lines += [f"note: {warning}" for warning in report["warnings"]]
    if ignored := report["ignored"]:
        lines.append(f"passed over, no images by their names: {len(ignored):,} files, the first {ignored[0]}")
    return "\n".join(lines)
