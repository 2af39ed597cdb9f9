"""`ab`: the same labelled images to both slots."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from engine.cli.verb import Session, Verb, table
from engine.errors import Interrupted, UsageError
from engine.store.workspace import SLOTS, TITLES

_STEPS = 10
_CLASSES = 8


@click.command(cls=Verb)
@click.option(
    "--images", metavar="N", type=click.IntRange(min=1), help="At most this many images (default: ab.images)."
)
@click.option("--data", metavar="DIR", help="Class folders, or a CSV of image and label (default: ab.data).")
@click.option(
    "--seed", metavar="N", type=int, help="Seed of the order (default: ab.seed, images not compared yet first)."
)
@click.option("--stratified", is_flag=True, help="Draw each label in proportion to its share of the set.")
@click.option(
    "--until-decided", is_flag=True, help="Ask images not compared yet until the evidence decides, at any image."
)
@click.option(
    "--max-images",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --until-decided: stop here (the whole set).",
)
@click.option("--notify", "send", is_flag=True, help="Post the result to the configured channels.")
@click.option("--wait", is_flag=True, help="Wait while another comparison or a promotion runs.")
def ab(
    session: Session,
    images: int | None,
    data: str | None,
    seed: int | None,
    stratified: bool,
    until_decided: bool,
    max_images: int | None,
    send: bool,
    wait: bool,
) -> None:
    """Compare AS-IS and TO-BE on the same labelled images."""
    from engine.compare.ab import run_ab

    if max_images is not None and not until_decided:
        raise UsageError("'--max-images' bounds '--until-decided'", "add --until-decided, or give --images N")
    try:
        result = run_ab(
            session.workspace,
            session.settings,
            images=max_images or images,
            data=Path(data) if data is not None else None,
            seed=seed,
            stratified=stratified,
            until_decided=until_decided,
            wait=wait,
            on_progress=_progress(session),
        )
    except Interrupted as stop:
        if stop.payload and not session.json:
            session.say(text(stop.payload))
        raise
    if send:
        result["notified"] = _post(session, result)
    session.emit(result, text)


def text(result: dict[str, Any]) -> str:
    """The result in the documents' form, with the honest verdict under it."""
    lines = [_slot_line(result, slot) for slot in SLOTS]
    winner = TITLES.get(result["verdict"], "undecided")
    lines += [f"winner: {winner}", f"  {result['reason']}"]
    if result["n"]:
        low, high = result["difference_ci95"]
        lines += [
            f"  difference {_points(result['difference'])} points, 95% interval {_points(low)} to {_points(high)}; "
            + _figures(result),
            f"  both right {result['both_right']:,}, only AS-IS {result['asis_only']:,}, "
            f"only TO-BE {result['tobe_only']:,}, both wrong {result['both_wrong']:,}",
            f"  {_needed(result)}",
            f"  comparison {result['id']}: {result['n']:,} of {result['available']:,} images of {result['data']}, "
            f"seed {result['seed']}, {_used(result['uses'])}; {result['fresh']:,} not compared before",
        ]
        lines += [f"  {line}" for line in (_latencies(result), *_classes(result))]
    lines += [f"  {note}" for note in _notes(result)]
    state = "open" if result["gate"]["open"] else "closed"
    lines.append(f"gate: {state}: {result['gate']['reason']}")
    return "\n".join(lines)


def _slot_line(result: dict[str, Any], slot: str) -> str:
    side = result[slot]
    name = f"{TITLES[slot]} ({side['port']})"
    if not result["n"]:
        return f"{name}: release {side['release'][:8]}"
    return f"{name}: accuracy {side['accuracy'] * 100:.2f}% ({side['correct']}/{result['n']})"


def _figures(result: dict[str, Any]) -> str:
    """The figures that may be read here: a p-value says nothing at a moment that the counts have chosen."""
    if result["until_decided"] or result["status"] != "completed":
        return f"e-value {result['e_value']:.3g} of these images alone"
    return f"p {result['p_value']:.3g} (mid-p), exact {result['exact_p']:.3g}"


def _points(fraction: float) -> str:
    return f"{fraction * 100:+.2f}"


def _needed(result: dict[str, Any]) -> str:
    if result["images_needed"] is None:
        return "no gap was seen, so no number of images can be named"
    if result["verdict"] != "undecided":  # the number is for planning; beside a winner it reads as a doubt
        return f"planning: about {result['images_needed']:,} images show a gap of this size 4 times in 5"
    more = f", {result['images_missing']:,} more" if result["images_missing"] else ""
    return f"about {result['images_needed']:,} images needed to show a gap of this size{more}"


def _used(uses: int) -> str:
    return "never used before" if not uses else f"used {uses} time{'s' if uses > 1 else ''} before"


def _latencies(result: dict[str, Any]) -> str:
    def one(slot: str) -> str:
        side = result[slot]
        errors = f", {side['errors']:,} errors" if side["errors"] else ""
        return f"{TITLES[slot]} p50 {_ms(side['p50_ms'])}, p99 {_ms(side['p99_ms'])}{errors}"

    return "; ".join(map(one, SLOTS))


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def _classes(result: dict[str, Any]) -> list[str]:
    """The classes in which the two differ most, for people; `per_class` in the JSON has all of them."""
    gaps = [row for row in result["per_class"] if row["asis_correct"] != row["tobe_correct"]]
    shown = sorted(gaps, key=lambda row: (-abs(row["tobe_correct"] - row["asis_correct"]), row["label"]))[
        :_CLASSES
    ]
    if not shown:
        return []
    rows = [
        (row["label"], row["n"], row["asis_correct"], row["tobe_correct"], f"{row['tobe_correct'] - row['asis_correct']:+}")
        for row in shown
    ]  # fmt: skip
    more = len(gaps) - len(shown)
    lines = table(rows, ("class", "images", "AS-IS right", "TO-BE right", "gap")).splitlines()
    return [*lines, *([f"and {more} more classes with a gap"] if more else [])]


def _notes(result: dict[str, Any]) -> list[str]:
    notes = list(result["notes"])
    if excluded := result["excluded"]:
        shown = ", ".join(list(excluded)[:5]) + (" ..." if len(excluded) > 5 else "")
        notes.append(f"left out, with labels that not both releases know: {sum(excluded.values()):,} ({shown})")
    if unusable := result["unusable"]:
        notes.append(f"left out, refused by both slots: {len(unusable):,} ({unusable[0]['path']} ...)")
    for slot in SLOTS:
        notes += [f"{TITLES[slot]}: {count} x {why}" for why, count in result["error_reasons"][slot].items()][:3]
    return notes


def _progress(session: Session) -> Callable[[int, int], None]:
    shown = 0

    def show(done: int, total: int) -> None:
        nonlocal shown
        if not session.json and not sys.stdout.isatty():
            return  # a script that reads the documents' lines gets these alone
        if done * _STEPS // total > shown:
            shown = done * _STEPS // total
            session.say(f"{done:,} of {total:,} images")

    return show


def _post(session: Session, result: dict[str, Any]) -> dict[str, Any]:
    from engine.notify import notify
    from engine.notify.messages import compared_message

    return notify(session.workspace, session.settings, "compared", compared_message(result))
