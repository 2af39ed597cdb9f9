"""`documents`: draws a synthetic set of document photographs to try a recipe on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.cli.verb import Session, Verb


@click.command(cls=Verb, words=("FOLDER", 1, 1))
@click.option("--classes", type=int, default=17, show_default=True, help="Kinds of documents, 2 to 17.")
@click.option("--per-class", type=int, default=100, show_default=True, help="Photographs of each to train on.")
@click.option("--val-per-class", type=int, default=40, show_default=True, help="And to validate with.")
@click.option("--seed", type=int, default=0, show_default=True)
def documents(
    session: Session, words: list[str], classes: int, per_class: int, val_per_class: int, seed: int
) -> None:
    """Draw a synthetic document set into FOLDER: train/ and val/ of class folders.

    Layouts and fonts of val/ are not in train/. The set says what a recipe can learn, and nothing of real documents.
    """
    from engine.tasks.images.documents import write_documents

    folder = Path(words[0]).expanduser()

    def told(done: int, count: int) -> None:
        if done % 200 == 0 or done == count:
            session.say(f"  drew {done:,} of {count:,}")

    result = write_documents(
        folder,
        classes=classes,
        per_class=per_class,
        val_per_class=val_per_class,
        seed=seed,
        on_progress=told,
    )
    session.emit({"folder": str(folder), **result}, _text)


def _text(result: dict[str, Any]) -> str:
    fonts = result["fonts"]
    return (
        f"{result['train']:,} train and {result['val']:,} validation photographs of {len(result['classes'])} kinds in"
        f" {result['folder']} (synthetic)\nfonts: trained on {', '.join(fonts['train'])}; validated on"
        f" {', '.join(fonts['val'])}\ntrain on it: python -m engine train data=transformer_384"
        f" data.root={result['folder']}"
    )
