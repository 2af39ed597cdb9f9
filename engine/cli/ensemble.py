"""`ensemble`: several checkpoints that vote, beside what each of them says alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli import analyze as one
from engine.cli.predict import answer_items, open_checkpoint
from engine.cli.verb import Session, Verb, table
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.training.evaluate import Evaluation


@click.command(cls=Verb, words=("[C ...]", 0, None))
@click.option(
    "--checkpoints", multiple=True, metavar="A B C", help="Files or releases; more may follow the first."
)
@one.DATA
@click.option("--method", type=click.Choice(["soft_voting"]), default="soft_voting", show_default=True)
@click.option(
    "--weights", default="equal", show_default=True, metavar="W", help="equal, validation, or 0.5,0.3,0.2."
)
@one.OUTPUT
def ensemble(
    session: Session,
    words: list[str],
    checkpoints: tuple[str, ...],
    data: str | None,
    method: str,
    weights: str,
    output_dir: str,
) -> None:
    """Average the probabilities of checkpoints of the same classes, and show what that gains.

    `validation` weighs each by the validation accuracy that it carries, not by the data that is voted on.
    """
    names = [*checkpoints, *words]
    if len(names) < 2:
        raise UsageError("an ensemble needs two checkpoints at least", "--checkpoints A B C")
    from engine.training.ensemble import common_classes, soft_vote, vote_weights
    from engine.training.evaluate import Evaluation, figures

    members = [open_checkpoint(session, name) for name in names]
    classes, places = common_classes(members)
    shares = vote_weights(weights, members)
    labelled = one.labelled_for(session, members[0], data)
    found = answer_items(session, members, labelled.images)
    one.enough(found.kept, found.failed)
    rows = [mine[:, place] for mine, place in zip(found.rows, places, strict=True)]
    alone = [figures(Evaluation.of(classes, labelled.images, found.kept, mine)) for mine in rows]
    together = Evaluation.of(classes, labelled.images, found.kept, soft_vote(rows, shares))
    value = {
        "checkpoints": [member.source for member in members],
        "method": method,
        "weights": shares,
        "members": [
            {"checkpoint": member.source, "weight": share, **its}
            for member, share, its in zip(members, shares, alone, strict=True)
        ],
        "checkpoint": None,
        **one.describe(together, labelled, found.failed),
    }
    one.write(session, value, together, Path(output_dir).expanduser(), f"{len(members)} nets on {labelled.shown}")
    session.emit(value, lambda value: _text(value, together, [member.shown for member in members]))


def _text(value: dict[str, Any], together: Evaluation, names: list[str]) -> str:
    rows = [
        (_short(name), f"{its['weight']:.3f}", f"{its['accuracy']:.2%}", f"{its['f1_macro']:.4f}")
        for name, its in zip(names, value["members"], strict=True)
    ]
    rows.append(("all, by soft voting", "1.000", f"{value['accuracy']:.2%}", f"{value['f1_macro']:.4f}"))
    return table(rows, ("", "weight", "accuracy", "F1-macro")) + "\n\n" + one.text(value, together)


def _short(name: str, most: int = 44) -> str:
    return name if len(name) <= most else "…" + name[-most + 1 :]
