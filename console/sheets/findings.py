"""What was found out, as sheets to read: the confusion matrix, the proof of exports, sweeps, rented machines."""

from __future__ import annotations

from console import text
from console.desk import Desk
from console.orders import Refused
from console.panes import checkpoints, cloud, confusion, exports, sweeps
from console.sheets.asking import Read
from console.view import View
from console.widgets.rows import Row
from console.words import _


class Findings(Read):
    """Lines that follow the stream while they are read, with room for a table."""

    wide = 132

    def body(self, view: View, width: int) -> list[Row]:
        try:
            return super().body(view, width)
        except Refused as refused:  # a replay that went back: it is no longer there
            return [Row(str(refused), refused.role)]


def confusion_sheet(desk: Desk) -> Read:
    """Raises Refused before the first analysis."""
    confusion_rows(desk.view(), desk.size.width)
    return Findings(desk, _("Confusion matrix"), confusion_rows)


def proof_sheet(desk: Desk) -> Read:
    """Raises Refused before the first export."""
    proof_rows(desk.view(), desk.size.width)
    return Findings(desk, _("Proof of exports"), proof_rows)


def sweeps_sheet(desk: Desk) -> Read:
    """Raises Refused before the first sweep."""
    sweep_rows(desk.view(), desk.size.width)
    return Findings(desk, _("Sweeps"), sweep_rows)


def cloud_sheet(desk: Desk) -> Read:
    """Raises Refused where nothing was ever rented."""
    cloud_rows(desk.view(), desk.size.width)
    return Findings(desk, _("Rented machines"), cloud_rows)


def confusion_rows(view: View, width: int) -> list[Row]:
    """The last analysis.

    Raises:
        Refused: there is none.
    """
    found = view.store.checkpoints.analysis if view.store.checkpoints else None
    if found is None:
        raise Refused(
            _("nothing was analysed yet: {key} on a checkpoint does it").format(key=view.key("analyze")), "dim"
        )
    return confusion.rows(view, found, width)


def proof_rows(view: View, width: int) -> list[Row]:
    """Every export, those of the selected checkpoint first.

    Raises:
        Refused: there is none.
    """
    rows = exports.every(view, checkpoints.selected(view), width)
    if not rows:
        raise Refused(
            _("nothing was exported yet: {key} on a checkpoint does it").format(key=view.key("export")), "dim"
        )
    return rows


def sweep_rows(view: View, width: int) -> list[Row]:
    """Every sweep that is known.

    Raises:
        Refused: there is none.
    """
    rows = sweeps.every(view, width)
    if not rows:
        raise Refused(_("no sweep yet: `train --multirun` makes one"), "dim")
    total = view.store.runs.sweeps_total if view.store.runs else 0
    older = total - len(sweeps.known(view))
    if older > 0:
        rows += [Row(), Row(_("{n} older ones").format(n=text.number(older)), "dim")]
    return rows


def cloud_rows(view: View, width: int) -> list[Row]:
    """Every machine of the ledger, at this second.

    Raises:
        Refused: there is none.
    """
    rows = cloud.every(view, width)
    if not rows:
        raise Refused(_("nothing is rented: `cloud plan` says what it would cost, `cloud launch` does it"), "dim")
    return rows
