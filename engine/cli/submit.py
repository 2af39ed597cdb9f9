"""`submit`: a CSV of answers in the order and columns of a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.cli.predict import CHECKPOINT, answer_items, finish, name_failed, open_checkpoint
from engine.cli.verb import Session, Verb
from engine.errors import UsageError


@click.command(cls=Verb)
@CHECKPOINT
@click.option("--data", metavar="DIR", required=True, help="The folder of the images.")
@click.option(
    "--sample", metavar="CSV", help="Its rows, columns and order are kept (default: image,label by name)."
)
@click.option("--output", metavar="CSV", required=True, help="Where the table goes.")
@click.option(
    "--values",
    type=click.Choice(["auto", "label", "index", "probabilities"]),
    default="auto",
    show_default=True,
    help="What to write; auto goes by the sample.",
)
@click.option("--fallback", metavar="LABEL", help="The answer for an image that cannot be used (default: empty).")
@click.option("--ignore-extra", is_flag=True, help="Images without a row in the sample are no error.")
def submit(
    session: Session,
    checkpoint: str,
    data: str,
    sample: str | None,
    output: str,
    values: str,
    fallback: str | None,
    ignore_extra: bool,
) -> None:
    """Answer the images of a folder into a CSV, for a competition or another program.

    Rows without an image and images without a row are errors before anything is computed. An image that cannot be
    used leaves its cells empty (or takes --fallback), is named, and the exit code is 1.
    """
    from engine.training.submission import filled, plain_sheet, sample_sheet

    folder, target = Path(data).expanduser(), Path(output).expanduser()
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise UsageError(
            f"cannot write {target}", "give --output a file in a folder that is there", kind="not_found"
        )
    loaded = open_checkpoint(session, checkpoint)
    if loaded.medium.output != "probabilities":
        raise UsageError(f"{loaded.shown} answers with values, not classes", "use: predict", kind="task")
    if fallback is not None and fallback not in loaded.classes:
        raise UsageError(f"unknown class '{fallback}'", f"known: {', '.join(loaded.classes[:12])}")
    if sample:
        sheet = sample_sheet(Path(sample).expanduser(), folder, loaded.classes, values, extra=ignore_extra)
    else:
        sheet = plain_sheet(folder)
    from engine.store.files import atomic_write
    from engine.tasks.labelled import Labelled

    items = [Labelled(path, row[sheet.image], "") for path, row in zip(sheet.files, sheet.rows, strict=True)]
    found = answer_items(session, [loaded], items)
    answers: list[Any] = [None] * len(items)
    for place, row in zip(found.kept, found.rows[0], strict=True):
        answers[place] = row
    atomic_write(target, filled(sheet, loaded.classes, answers, fallback))
    value = {
        "submission": str(target.absolute()),
        "rows": len(sheet.rows),
        "columns": sheet.header,
        "values": sheet.values,
        "failed": found.failed,
        "checkpoint": loaded.source,
    }
    finish(session, value, _text, [] if fallback is not None else found.failed)


def _text(value: dict[str, Any]) -> str:
    lines = [f"{value['rows']:,} rows, {value['values']}: {value['submission']}"]
    return "\n".join([*lines, *name_failed(value["failed"])])
