"""The actions that change something: each opens a sheet, and the sheet starts an engine command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath

from console import orders, text
from console.desk import Desk
from console.orders import Refused
from console.panes import checkpoints, training
from console.sheets.asking import Ask
from console.sheets.base import Field
from console.sheets.choosing import Choice, Choose
from console.sheets.label import Label
from console.sheets.slots import Promote, Rollback
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Checkpoint, Run


def promote(desk: Desk) -> None:
    desk.open_sheet(Promote(desk, orders.Promotion.of(desk.view())))


def rollback(desk: Desk) -> None:
    orders.live(desk.view())
    desk.open_sheet(Rollback(desk))


def undo(desk: Desk) -> None:
    desk.open_sheet(Rollback(desk, only=orders.undo(desk.view()).name))


def sync(desk: Desk) -> None:
    desk.run_engine("sync")


def ab(desk: Desk) -> None:
    slots = orders.comparable(desk.view())
    lines = [
        Row(_("Both slots answer the same labelled images; nothing is changed."), ""),
        Row("AS-IS ", "dim").put(text.short(slots.asis.release), "asis"),
        Row("TO-BE ", "dim").put(text.short(slots.tobe.release), "tobe"),
    ]
    fields = [Field("images", _("images (empty: as configured)"))]
    desk.open_sheet(
        Ask(desk, "A/B", lines, _("Compare"), lambda sheet: orders.compare(sheet.value("images")), fields)
    )


def train(desk: Desk) -> None:
    lines = [
        Row(_("Starts a training in the background; it goes on when the console is left.")),
        Row(_("Settings as for the engine, e.g. training.epochs=10 model=litecnn_pro"), "dim"),
    ]
    fields = [Field("settings", _("settings"))]
    desk.open_sheet(
        Ask(desk, _("Train"), lines, _("Start"), lambda sheet: orders.train(sheet.value("settings")), fields)
    )


def stop(desk: Desk) -> None:
    _of_runs(desk, orders.running_runs(desk.view()), _("Stop training"), _stop)


def _stop(desk: Desk, run: Run) -> None:
    lines = [
        Row(_("Stops run") + " ").put(run.run, "bold").put(f"  {run.model or ''}", "dim"),
        Row(_("It ends after the step it is in, keeps its state, and can be gone on with."), "dim"),
    ]
    desk.open_sheet(
        Ask(desk, _("Stop training"), lines, _("Stop"), lambda _sheet: orders.stop(run.run), grave=True)
    )


def resume(desk: Desk) -> None:
    _of_runs(desk, orders.stopped_runs(desk.view()), _("Resume training"), _resume)


def _resume(desk: Desk, run: Run) -> None:
    lines = [Row(_("Goes on with run") + " ").put(run.run, "bold").put(f" ({_(run.status)})", "warning")]
    desk.open_sheet(Ask(desk, _("Resume training"), lines, _("Resume"), lambda _sheet: orders.resume(run.run)))


def _of_runs(desk: Desk, runs: list[Run], heading: str, ask: Callable[[Desk, Run], None]) -> None:
    """The run that is selected, else the only one, else one that the person chooses."""
    one = training.selected(desk.view()) if desk.ui.focus == "training" else None
    chosen = [run for run in runs if one and run.run == one.name and one.host == desk.store.home] or runs
    if len(chosen) == 1:
        ask(desk, chosen[0])
        return
    desk.open_sheet(Choose(desk, heading, [_choice(desk, run, ask) for run in runs]))


def _choice(desk: Desk, run: Run, ask: Callable[[Desk, Run], None]) -> Choice:
    return Choice(run.run, f"{_(run.status)}  {run.model or ''}  {run.device or ''}", lambda: ask(desk, run))


def deploy(desk: Desk) -> None:
    orders.live(desk.view())
    one = checkpoints.selected(desk.view())
    if one is None:
        raise Refused(_("choose a checkpoint first"), "dim")
    lines = [
        Row(_("To TO-BE, through the same checks as sync:")),
        _named(one),
        Row(one.path, "dim"),
    ]
    desk.open_sheet(Ask(desk, _("Deploy"), lines, _("Deploy"), lambda _sheet: ("deploy", one.path)))


def export(desk: Desk) -> None:
    one = orders.whole(desk.view(), checkpoints.selected(desk.view()))
    lines = [
        Row(_("Files for other machines; each is checked, timed and judged against the original.")),
        _named(one),
        Row(f"{_('formats')}: {' '.join(orders.FORMATS)}", "dim"),
        Row(_("Data are class folders; without any, accuracy is not judged and INT8 is left out."), "dim"),
    ]
    fields = [
        Field("formats", _("formats (empty: as configured)")),
        Field("data", _("data (empty: as configured)")),
    ]

    def order(sheet: Ask) -> tuple[str, ...]:
        return orders.export(desk.view(), one, sheet.value("formats"), sheet.value("data"))

    desk.open_sheet(Ask(desk, _("Export"), lines, _("Export"), order, fields))


def analyze(desk: Desk) -> None:
    one = orders.whole(desk.view(), checkpoints.selected(desk.view()))
    lines = [
        Row(_("Confusion matrix, classes and calibration on labelled data; nothing is changed.")),
        _named(one),
    ]
    fields = [Field("data", _("data (empty: as configured)"))]
    desk.open_sheet(
        Ask(
            desk,
            _("Analyse"),
            lines,
            _("Analyse"),
            lambda sheet: orders.analyze(desk.view(), one, sheet.value("data")),
            fields,
        )
    )


def _named(one: Checkpoint) -> Row:
    row = Row(PurePath(one.path).name, "bold")
    return row.put(f"  {text.percent(one.accuracy)}  {text.size(one.bytes)}", "dim")


def label(desk: Desk) -> None:
    orders.rivals(desk.view())
    desk.open_sheet(Label(desk))


def serve(desk: Desk) -> None:
    down = orders.down_slots(desk.view())
    lines = [
        Row(_("Serves") + " ").put(" ".join("AS-IS" if name == "asis" else "TO-BE" for name in down), "bold"),
        Row(_("It goes on when the console is left; `service install` makes it start with the host."), "dim"),
    ]
    desk.open_sheet(Ask(desk, _("Serve"), lines, _("Serve"), lambda _sheet: orders.serve(down)))


def hold(desk: Desk) -> None:
    held = orders.held(desk.view())
    if held is not None:
        lines = [Row(_("TO-BE is kept as it is")).put(f" ({held.by or ''} {held.reason or ''})", "dim")]
        desk.open_sheet(Ask(desk, _("Let TO-BE change again"), lines, _("Unhold"), lambda _sheet: ("unhold",)))
        return
    lines = [Row(_("Keeps TO-BE as it is: sync goes on looking, but deploys nothing."))]
    fields = [Field("reason", _("reason (may be empty)"))]
    desk.open_sheet(
        Ask(desk, _("Hold TO-BE"), lines, _("Hold"), lambda sheet: orders.hold(sheet.value("reason")), fields)
    )


def reject(desk: Desk) -> None:
    release = orders.candidate(desk.view())
    lines = [Row(_("Never deploys this release again:") + " ").put(text.short(release), "bold tobe")]
    fields = [Field("reason", _("reason (may be empty)"))]
    desk.open_sheet(
        Ask(
            desk,
            _("Reject"),
            lines,
            _("Reject"),
            lambda sheet: orders.reject(desk.view(), release, sheet.value("reason")),
            fields,
            grave=True,
        )
    )
