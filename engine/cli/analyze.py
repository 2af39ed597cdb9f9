"""`analyze`: where a checkpoint or a release is right and where not; what `ensemble` shares of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli.predict import CHECKPOINT, answer_items, name_failed, open_checkpoint
from engine.cli.verb import Session, Verb, table
from engine.errors import Failed, UsageError

if TYPE_CHECKING:
    from engine.tasks.labelled import LabelledSet
    from engine.training.evaluate import Evaluation
    from engine.training.inference import Loaded

DATA = click.option(
    "--data", metavar="DIR", help="Labelled: class folders, or a CSV (default: ab.data, else data.root)."
)
OUTPUT = click.option(
    "--output-dir", metavar="DIR", default="analysis_results", show_default=True, help="Where the pictures go."
)


@click.command(cls=Verb)
@CHECKPOINT
@DATA
@OUTPUT
def analyze(session: Session, checkpoint: str, data: str | None, output_dir: str) -> None:
    """Write confusion_matrix.png, calibration.png and analysis.json, and show them here.

    Images that cannot be used are named, counted and left out of every figure.
    """
    loaded = open_checkpoint(session, checkpoint)
    labelled = labelled_for(session, loaded, data)
    from engine.training.evaluate import Evaluation

    found = answer_items(session, [loaded], labelled.images)
    enough(found.kept, found.failed)
    evaluation = Evaluation.of(loaded.classes, labelled.images, found.kept, found.rows[0])
    value = {"checkpoint": loaded.source, **describe(evaluation, labelled, found.failed)}
    write(session, value, evaluation, Path(output_dir).expanduser(), f"{short(loaded)} on {labelled.shown}")
    session.emit(value, lambda value: text(value, evaluation))


def labelled_for(session: Session, loaded: Loaded, data: str | None) -> LabelledSet:
    """The labelled inputs of `--data`, whose labels are among the net's classes; others are noted and left out.

    Raises:
        UsageError: none, or the net does not answer with classes.
    """
    from engine.compare.images import known_to_both

    if loaded.medium.output != "probabilities":
        raise UsageError(f"{loaded.shown} answers with values, not classes", "compare slots with: ab", kind="task")
    settings = session.settings
    root = Path(data) if data else settings.ab.data or settings.data.root
    labelled = loaded.medium.labelled(settings, root, settings.ab.seed)
    try:
        labelled = known_to_both(labelled, loaded.classes, loaded.classes)
    except UsageError:
        theirs = ", ".join(sorted({image.label for image in labelled.images})[:6])
        raise UsageError(
            f"no image of {labelled.shown} has a label that {loaded.shown} knows",
            f"give class folders of its classes (labels there: {theirs}; known: {', '.join(loaded.classes[:6])})",
            kind="no_data",
        ) from None
    for note in labelled.notes:
        session.say(f"note: {note}")
    for label, count in labelled.excluded.items():
        session.say(f"note: {count} of '{label}', which {loaded.shown} does not know, are left out")
    return labelled


def enough(kept: list[int], failed: list[dict[str, str]]) -> None:
    """Raises Failed where not one input could be used."""
    if not kept:
        raise Failed(f"not one image could be used: {failed[0]['path']}: {failed[0]['reason']}", "check the data")


def describe(evaluation: Evaluation, labelled: LabelledSet, failed: list[dict[str, str]]) -> dict[str, Any]:
    """The figures of `analysis.json`."""
    from engine.training.evaluate import calibration, confusions, figures, report

    return {
        **figures(evaluation),
        "data": labelled.shown,
        "classes": evaluation.classes,
        "matrix": evaluation.matrix.tolist(),
        "report": report(evaluation),
        "confusions": confusions(evaluation),
        "calibration": calibration(evaluation),
        "failed": failed,
        "excluded": labelled.excluded,
    }


def write(session: Session, value: dict[str, Any], evaluation: Evaluation, folder: Path, title: str) -> None:
    """The two pictures and `analysis.json` into `folder`, and the workspace's copy for the console."""
    from engine.store.clock import timestamp
    from engine.store.files import write_json
    from engine.training.charts import draw_calibration, draw_confusion_matrix

    picture, reliability = folder.absolute() / "confusion_matrix.png", folder.absolute() / "calibration.png"
    low, high = value["ci95"]
    said = f"{value['n']} images, 95% interval {low:.1%} to {high:.1%}  ·  {title}"
    head = f"Accuracy {value['accuracy']:.2%}, macro-F1 {value['f1_macro']:.3f}"
    draw_confusion_matrix(picture, evaluation.matrix, evaluation.classes, head, _tail(said))
    draw_calibration(reliability, value["calibration"], "Calibration")
    value |= {"confusion_matrix": str(picture), "calibration_chart": str(reliability), "at": timestamp()}
    write_json(folder / "analysis.json", value)
    write_json(session.workspace.root / "analysis" / "latest.json", value)


def text(value: dict[str, Any], evaluation: Evaluation) -> str:
    """All for a terminal of 80 columns."""
    from engine.training.charts import matrix_text

    low, high = value["ci95"]
    shown = [
        (
            name,
            *("–" if row[key] is None else f"{row[key]:.2%}" for key in ("precision", "recall", "f1")),
            row["support"],
        )
        for name, row in value["report"].items()
    ]
    lines = [
        f"accuracy {value['accuracy']:.2%} ({low:.2%} to {high:.2%}), F1-macro {value['f1_macro']:.4f}, {value['n']} images",
        "",
        matrix_text(evaluation.matrix, evaluation.classes),
        "",
        table(shown, ("class", "precision", "recall", "F1", "images")),
    ]
    if value["confusions"]:
        lines += ["", "worst confusions:"]
        for pair in value["confusions"][:5]:
            surest = pair["images"][0]
            lines.append(f"  {pair['label']} taken for {pair['taken_for']}: {pair['count']} ({pair['share']:.0%});"
                         f" surest {surest['path']} ({surest['confidence']:.0%})")  # fmt: skip
    found = value["calibration"]
    lean = "surer than right" if found["overconfidence"] > 0 else "less sure than right"
    lines += ["", f"calibration: expected error {found['ece']:.4f}; {lean} by {abs(found['overconfidence']):.4f}"]
    lines += [*name_failed(value["failed"]), str(value["confusion_matrix"])]
    return "\n".join(lines)


def short(loaded: Loaded) -> str:
    """A net's name for a picture: a file's last two places."""
    return "/".join(Path(loaded.shown).parts[-2:])


def _tail(said: str, most: int = 110) -> str:
    return said if len(said) <= most else f"{said[: most // 2]}…{said[-most // 2 :]}"
