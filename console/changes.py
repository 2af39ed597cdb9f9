"""The actions that change something: each opens a sheet, and the sheet starts an engine command."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING

from console import text
from console.panes import checkpoints
from console.sheets.asking import Ask
from console.sheets.base import Field
from console.sheets.slots import Promote, Rollback
from console.widgets.rows import Row
from console.words import _

if TYPE_CHECKING:
    from console.app import ConsoleApp


def _live(app: ConsoleApp, kind: str = "slots") -> bool:
    """Nothing is changed by figures that may be old."""
    fresh = app.view().fresh(kind)
    if fresh.state == "live":
        return True
    app.say(_("refused: the figures are not live") + (f" ({fresh.why})" if fresh.why else ""), "danger")
    return False


def _run(app: ConsoleApp, verb: str, *words: str) -> None:
    if verb in app.commands.running:
        app.say(f"{verb} {_('is still running')}", "warning")
        return
    app.run_engine(verb, *words)


def promote(app: ConsoleApp) -> None:
    if not _live(app):
        return
    slots = app.store.slots
    if slots is None or slots.tobe.release is None:
        app.say(_("nothing to promote: TO-BE is empty"), "warning")
    elif slots.tobe.release == slots.asis.release:
        app.say(_("nothing to promote: both slots hold the same release"), "warning")
    else:
        app.open_sheet(Promote(app))


def rollback(app: ConsoleApp) -> None:
    if _live(app):
        app.open_sheet(Rollback(app))


def undo(app: ConsoleApp) -> None:
    if _live(app):
        app.open_sheet(Rollback(app, undo=True))


def sync(app: ConsoleApp) -> None:
    _run(app, "sync")


def ab(app: ConsoleApp) -> None:
    if not _live(app):
        return
    slots = app.store.slots
    if slots is None or slots.asis.release is None or slots.tobe.release is None:
        app.say(_("a comparison needs a release in both slots"), "warning")
        return
    lines = [
        Row(_("Both slots answer the same labelled images; nothing is changed."), ""),
        Row("AS-IS ", "dim").put(text.short(slots.asis.release), "asis"),
        Row("TO-BE ", "dim").put(text.short(slots.tobe.release), "tobe"),
    ]
    fields = [Field("images", _("images (empty: as configured)"))]

    def act(sheet: Ask) -> str | None:
        images = sheet.value("images")
        if images and not (images.isdigit() and int(images) > 0):
            return _("the number of images is a whole number above 0")
        _run(app, "ab", *(("--images", images) if images else ()))
        return None

    app.open_sheet(Ask(app, "A/B", lines, _("Compare"), act, fields))


def train(app: ConsoleApp) -> None:
    lines = [
        Row(_("Starts a training in the background; it goes on when the console is left.")),
        Row(_("Settings as for the engine, e.g. training.epochs=10 model=litecnn_pro"), "dim"),
    ]

    def act(sheet: Ask) -> str | None:
        try:
            words = shlex.split(sheet.value("settings"))
        except ValueError as error:
            return str(error)
        wrong = next((word for word in words if "=" not in word), None)
        if wrong:
            return f"'{wrong}' {_('is not section.key=value')}"
        _run(app, "train", "--detach", *words)
        return None

    app.open_sheet(Ask(app, _("Train"), lines, _("Start"), act, [Field("settings", _("settings"))]))


def resume(app: ConsoleApp) -> None:
    runs = app.store.runs
    stopped = [run for run in runs.runs if run.status in ("interrupted", "lost")] if runs else []
    if not stopped:
        app.say(_("no training that was interrupted"), "dim")
        return
    run = stopped[0]
    lines = [Row(_("Goes on with run") + " ").put(run.run, "bold").put(f" ({_(run.status)})", "warning")]
    app.open_sheet(
        Ask(
            app,
            _("Resume"),
            lines,
            _("Resume"),
            lambda _sheet: _run(app, "train", "--detach", "--resume", run.run),
        )
    )


def deploy(app: ConsoleApp) -> None:
    one = checkpoints.selected(app.view())
    if one is None or not _live(app):
        return
    lines = [
        Row(_("To TO-BE, through the same checks as sync:")),
        Row(PurePath(one.path).name, "bold").put(f"  {text.percent(one.accuracy)}  {text.size(one.bytes)}", "dim"),
        Row(one.path, "dim"),
    ]
    app.open_sheet(Ask(app, _("Deploy"), lines, _("Deploy"), lambda _sheet: _run(app, "deploy", one.path)))


def serve(app: ConsoleApp) -> None:
    slots = app.store.slots
    down = [name for name in ("asis", "tobe") if slots is None or getattr(slots, name).state == "down"]
    if not down:
        app.say(_("both slots are served"), "dim")
        return
    which = "all" if len(down) == 2 else down[0]
    lines = [
        Row(_("Serves") + " ").put(" ".join("AS-IS" if name == "asis" else "TO-BE" for name in down), "bold"),
        Row(_("It goes on when the console is left; `service install` makes it start with the host."), "dim"),
    ]
    app.open_sheet(Ask(app, _("Serve"), lines, _("Serve"), lambda _sheet: _run(app, "serve", which)))


def hold(app: ConsoleApp) -> None:
    held = app.store.health.held if app.store.health else None
    if held is not None:
        lines = [Row(_("TO-BE is kept as it is")).put(f" ({held.by or ''} {held.reason or ''})", "dim")]
        app.open_sheet(
            Ask(app, _("Let TO-BE change again"), lines, _("Unhold"), lambda _sheet: _run(app, "unhold"))
        )
        return
    lines = [Row(_("Keeps TO-BE as it is: sync goes on looking, but deploys nothing."))]
    app.open_sheet(Ask(app, _("Hold TO-BE"), lines, _("Hold"), lambda _sheet: _run(app, "hold")))


def reject(app: ConsoleApp) -> None:
    slots = app.store.slots
    release = slots.tobe.release if slots else None
    if release is None or not _live(app):
        app.say(_("TO-BE is empty"), "warning") if release is None else None
        return
    lines = [Row(_("Never deploys this release again:") + " ").put(text.short(release), "bold tobe")]
    app.open_sheet(Ask(app, _("Reject"), lines, _("Reject"), lambda _sheet: _run(app, "reject", release)))
