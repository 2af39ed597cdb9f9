"""`predict`: what a checkpoint or a release says to files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli.verb import Session, Verb, table
from engine.errors import Failed, UsageError

if TYPE_CHECKING:
    from engine.tasks.labelled import Labelled
    from engine.training.inference import Answers, Loaded

CHECKPOINT = click.option(
    "--checkpoint", metavar="C", required=True, help="A checkpoint's or release's file, or a release's id."
)


@click.command(cls=Verb, words=("PATHS", 1, None))
@CHECKPOINT
@click.option(
    "--top-k", type=click.IntRange(1, 1000), default=1, show_default=True, help="So many classes a file."
)
def predict(session: Session, words: list[str], checkpoint: str, top_k: int) -> None:
    """Say what the files of PATHS (folders with everything below them) are, as a slot would answer.

    A file that cannot be used is named at the end, the others are answered, and the exit code is 1.
    """
    items = files_of(words)
    loaded = open_checkpoint(session, checkpoint)
    from engine.tasks.medium import whole
    from engine.training.inference import answers

    tell = progress(session, "answered")
    predictions: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for number, answer in answers([loaded], items, limits(session)):
        if isinstance(answer, str):
            failed.append({"path": items[number].name, "reason": answer})
        else:
            fields = whole(loaded.medium.answer(*answer[0], top_k))
            if top_k == 1:
                fields.pop("top_k", None)
            predictions.append({"path": items[number].name, **fields})
        tell(number + 1, len(items))
    value = {
        "predictions": predictions,
        "failed": failed,
        "checkpoint": loaded.source,
        "device": loaded.device,
    }
    finish(session, value, _text, failed)


def files_of(paths: Sequence[str]) -> list[Labelled]:
    """The files that `paths` name, in their order; a folder stands for the images below it, by name.

    Raises:
        UsageError: a path is not there, or a folder has no image in it.
    """
    from engine.tasks.images.listing import EXTENSIONS
    from engine.tasks.labelled import Labelled

    found: list[Labelled] = []
    for word in paths:
        path = Path(word).expanduser()
        if path.is_dir():
            below = sorted(
                one
                for one in path.rglob("*")
                if one.suffix.lower() in EXTENSIONS
                and not any(p.startswith(".") for p in one.relative_to(path).parts)
            )
            if not below:
                raise UsageError(f"no images in {path}", "give image files, or a folder with some", kind="no_data")
            found += [Labelled(one, str(one), "") for one in below]
        elif path.exists():
            found.append(Labelled(path, word, ""))
        else:
            raise UsageError(f"no file at {path}", "check the path", kind="not_found")
    return found


def open_checkpoint(session: Session, name: str) -> Loaded:
    """`load_for_inference`, with its notes said."""
    from engine.training.inference import load_for_inference

    loaded = load_for_inference(session.workspace, session.settings, name)
    for note in loaded.notes:
        session.say(f"note: {loaded.shown}: {note}")
    return loaded


def answer_items(session: Session, members: Sequence[Loaded], items: Sequence[Labelled]) -> Answers:
    """What the nets say to every input: here, or by the nodes of `cluster.address`."""
    from engine.training.inference import answer_all, file_of

    tell = progress(session, "answered")
    if not session.settings.cluster.address:
        return answer_all(members, items, limits(session), tell)
    from engine.cluster.answering import answer_on
    from engine.cluster.joining import join

    files = [file_of(session.workspace, member) for member in members]
    with join(session.settings.cluster.address, session.say) as cluster:
        return answer_on(cluster, session.settings, members, files, items, limits(session), tell)


def limits(session: Session) -> Any:
    from engine.tasks.medium import Limits

    return Limits(session.settings.servers.max_pixels)


def progress(session: Session, done_word: str) -> Callable[[int, int], None]:
    """A line for people now and then, for what takes long."""
    told = 0

    def tell(done: int, count: int) -> None:
        nonlocal told
        if count >= 2000 and done - told >= max(1000, count // 20):
            told = done
            session.say(f"  {done_word} {done:,} of {count:,}")

    return tell


def finish(
    session: Session, value: dict[str, Any], text: Callable[[dict[str, Any]], str], failed: list[dict[str, str]]
) -> None:
    """Emit the verb's object; where some files failed, all the same, and end with exit 1.

    Raises:
        Failed: naming the first of them.
    """
    if not failed:
        session.emit(value, text)
        return
    if not session.json:
        session.emit(value, text)
    first, more = failed[0], f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    raise Failed(
        f"{first['path']}: {first['reason']}{more}; the other files were answered",
        "mend or remove what is named",
        kind="bad_input",
        payload={**value, "error": {"kind": "bad_input", "message": f"{len(failed)} files could not be used"}},
    )


def name_failed(failed: list[dict[str, str]], most: int = 20) -> list[str]:
    """Lines for people."""
    lines = [f"not used: {one['path']}: {one['reason']}" for one in failed[:most]]
    return lines + ([f"          and {len(failed) - most} more"] if len(failed) > most else [])


def _text(value: dict[str, Any]) -> str:
    rows = []
    for one in value["predictions"]:
        best = one.get("top_k") or [one]
        said = ", ".join(f"{entry['label']} {entry['confidence']:.2%}" for entry in best)
        rows.append((one["path"], said))
    lines = [table(rows)] if rows else []
    return "\n".join(lines + name_failed(value["failed"]))
