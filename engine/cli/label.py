"""`label`: live requests on which the two releases differ, to be labelled by a person."""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path
from typing import Any

import click

from engine.cli.verb import Session, Verb, table
from engine.compare.labels import Labels, label_lock
from engine.compare.shadow import Item, drop_old, image_path
from engine.errors import UsageError, nearest
from engine.release.bundle import read_release, release_path
from engine.release.slots import read_pointer
from engine.store.workspace import SLOTS

_LEAST_ID = 4
_COLUMNS = 48


@click.command(cls=Verb, words=("ID CLASS", 0, 2))
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=20, help="List at most this many (20).")
@click.option("--show", metavar="ID", help="Show one: its picture on a terminal, and where it lies.")
@click.option("--skip", metavar="ID", help="Pass one over that cannot be told; this is recorded and shown.")
@click.option("--neither", metavar="ID", help="Label one whose true class no release knows.")
@click.option(
    "--import", "table_file", metavar="CSV", help="Take labels from a CSV with the columns id and label."
)
@click.option("--width", metavar="W", type=click.IntRange(1, 1024), default=_COLUMNS, help="Columns of a picture.")
def label(
    session: Session,
    words: list[str],
    limit: int,
    show: str | None,
    skip: str | None,
    neither: str | None,
    table_file: str | None,
    width: int,
) -> None:
    """List live requests on which AS-IS and TO-BE differ, in the order to label them, or label one: ID CLASS."""
    asked = [bool(words), show is not None, skip is not None, neither is not None, table_file is not None]
    if sum(asked) > 1:
        raise UsageError(
            "one thing at a time: ID CLASS, --show, --skip, --neither or --import", "see: label --help"
        )
    if len(words) == 1:
        raise UsageError(f"a label for '{words[0]}' is missing", f"give it: label {words[0]} CLASS")
    asis, tobe = _pair(session)
    if show is not None:
        labels = Labels(session.workspace, asis, tobe)
        _emit_shown(session, labels, _item(labels, show), width)
        return
    with label_lock(session.workspace):
        drop_old(session.workspace, session.settings.shadow.retention_days)
        labels = Labels(session.workspace, asis, tobe)
        if not any(asked):
            labels.draw()
            _emit_list(session, labels, limit)
            return
        classes = _classes(session, labels)
        given: list[tuple[Item, str | None]] = []
        if table_file is not None:
            given += [(_item(labels, one), _class(name, classes)) for one, name in _rows(Path(table_file))]
        elif words:
            given.append((_item(labels, words[0]), _class(words[1], classes)))
        else:
            chosen = skip if skip is not None else neither
            assert chosen is not None
            given.append((_item(labels, chosen), None if skip is not None else ""))
        labels.draw()
        for item, name in given:
            labels.mark(item, name)
        _emit_marked(session, labels, [item for item, _ in given])


def _pair(session: Session) -> tuple[str, str]:
    pointers = [read_pointer(session.workspace, slot) for slot in SLOTS]
    asis, tobe = (pointer.release if pointer else None for pointer in pointers)
    if asis is None or tobe is None or asis == tobe:
        raise UsageError(
            "the slots do not hold two releases, so there is nothing to label", "run: sync, or deploy PATH", kind="empty"
        )  # fmt: skip
    return asis, tobe


def _classes(session: Session, labels: Labels) -> list[str]:
    """The classes that either release knows: another word is a slip of the pen."""
    workspace = session.workspace
    known: list[str] = []
    for release in (labels.asis, labels.tobe):
        known += read_release(release_path(workspace, release)).manifest.classes
    return list(dict.fromkeys(known))


def _class(name: str, classes: list[str]) -> str:
    if name not in classes:
        hint = f"{nearest(name, classes)}; --neither ID where no release knows the true class"
        raise UsageError(f"no release knows the class '{name}'", hint, kind="unknown_class")
    return name


def _item(labels: Labels, word: str) -> Item:
    if word in labels.items:
        return labels.items[word]
    close = [item for one, item in labels.items.items() if len(word) >= _LEAST_ID and one.startswith(word)]
    if len(close) != 1:
        why = f"{len(close)} requests begin with" if close else "no request that is kept has the id"
        raise UsageError(f"{why} '{word}'", "list them with: python -m engine label", kind="not_found")
    return close[0]


def _rows(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not {"id", "label"} <= set(reader.fieldnames or ()):
                raise UsageError(f"{path} lacks the columns id and label", "its first line must name them")
            return [(row["id"].strip(), row["label"].strip()) for row in reader if row["id"] and row["label"]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"cannot read {path} ({error})", "give a UTF-8 CSV with the columns id and label"
        ) from None


def _shown(item: Item) -> dict[str, Any]:
    """A request without saying which release gave which answer: their order is the id's, as good as a coin."""
    answers = [vars(item.asis), vars(item.tobe)]
    if hashlib.sha256(item.id.encode()).digest()[0] & 1:
        answers.reverse()
    return {"id": item.id, "at": item.at, "sha256": item.sha256, "bytes": item.bytes, "answers": answers}


def _emit_list(session: Session, labels: Labels, limit: int) -> None:
    live = labels.live()
    items = [_shown(item) for item in labels.waiting[:limit]]
    session.emit({"asis": labels.asis, "tobe": labels.tobe, "live": live.as_json(), "items": items}, _list_text)


def _list_text(result: dict[str, Any]) -> str:
    live = result["live"]
    rows = []
    for item in result["items"]:
        said = [f"{answer['label']} {answer['confidence']:.0%}" for answer in item["answers"]]
        rows.append((item["id"], item["at"][:16].replace("T", " "), *said))
    lines = [_standing(live)]
    if rows:
        lines += ["", table(rows, ("id", "received", "one says", "the other")), ""]
        lines += ["look: label --show ID    label: label ID CLASS    cannot tell: label --skip ID"]
        if (left := live["waiting"] - len(rows)) > 0:
            lines.append(f"and {left:,} more: --limit {live['waiting']}")
    elif not live["mirrored"]:
        lines.append(
            "nothing was mirrored for these two releases: set shadow.share and shadow.keep, restart AS-IS"
        )
    return "\n".join(lines)


def _standing(live: dict[str, Any]) -> str:
    share = f" ({live['differed'] / live['mirrored']:.2%})" if live["mirrored"] else ""
    skipped = f", {live['skipped']:,} passed over" if live["skipped"] else ""
    return (
        f"of {live['mirrored']:,} mirrored requests the two differ on {live['differed']:,}{share}; "
        f"{live['labelled']:,} labelled{skipped}, {live['waiting']:,} wait"
    )


def _emit_shown(session: Session, labels: Labels, item: Item, width: int) -> None:
    from engine.compare.thumbnails import thumbnail_of

    path = image_path(labels.workspace, labels.asis, labels.tobe, item.id)
    mark = labels.marks.get(item.id)
    result = {
        **_shown(item),
        "path": str(path),
        "label": mark.label if mark else None,
        **thumbnail_of(path, item.sha256, width),
    }
    session.emit(result, _picture)


def _picture(result: dict[str, Any]) -> str:
    from engine.compare.thumbnails import half_blocks

    said = " or ".join(f"{answer['label']} {answer['confidence']:.0%}" for answer in result["answers"])
    lines = [f"{result['id']}  {result['at'][:19].replace('T', ' ')}  {said}?", f"file: {result['path']}"]
    if problem := result.get("problem"):
        return "\n".join([*lines, problem])
    if sys.stdout.isatty():
        lines += half_blocks(result)
    return "\n".join(lines)


def _emit_marked(session: Session, labels: Labels, items: list[Item]) -> None:
    live = labels.live()
    marked = [{"id": item.id, "label": labels.marks[item.id].label} for item in items]
    following = next((item.id for item in labels.waiting), None)
    result = {"labelled": marked, "next": following, "live": live.as_json()}
    session.emit(result, lambda value: _marked_text(value, live.out_of_turn))


def _marked_text(result: dict[str, Any], out_of_turn: int) -> str:
    lines = []
    for one in result["labelled"]:
        name = {None: "passed over", "": "neither"}.get(one["label"], one["label"])
        lines.append(f"{one['id']}: {name}")
    lines.append(_standing(result["live"]))
    if out_of_turn:
        lines.append(f"{out_of_turn:,} labels wait for their turn: those drawn before them are not labelled yet")
    if result["next"]:
        lines.append(f"next: label {result['next']} CLASS")
    return "\n".join(lines)
