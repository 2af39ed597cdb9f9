"""The order of the lists that can be sorted."""

from __future__ import annotations

from console.panes import checkpoints, training
from console.view import Order, Ui

COLUMNS = {"checkpoints": tuple(checkpoints.SORTS), "training": tuple(training.SORTS)}


def order_of(ui: Ui) -> Order:
    """The order of the pane that has the focus; of the checkpoints where that pane has none."""
    return ui.orders.get(ui.focus) or ui.orders["checkpoints"]


def next_column(ui: Ui) -> str:
    """Sort by the next column, after the last by the first again; which one it is now."""
    order = order_of(ui)
    columns = COLUMNS["training" if ui.focus == "training" else "checkpoints"]
    order.column = columns[(columns.index(order.column) + 1) % len(columns)]
    return order.column
