"""Training: how far, how fast, how long still, the two curves that matter, and the runs before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from console import text
from console.panes import fit, sweeps
from console.store import Freshness
from console.view import View
from console.widgets.charts import bar, curve
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Best, Run, RunProgress

STATUS = {"running": "good", "completed": "good", "interrupted": "warning", "failed": "danger", "lost": "danger"}
LIST_FROM = 15  # rows of the pane from which on the runs are listed below the curves
CURVES_FROM = 7
FIT_IN = (range(4, CURVES_FROM), range(CURVES_FROM + 2, 10**6))  # rows in which forecast and memory have a line


@dataclass(frozen=True)
class Entry:
    """One run: what the list of its host says of it, and its curves where they were ever seen."""

    host: str
    name: str
    run: Run | None
    progress: RunProgress | None

    @property
    def status(self) -> str:
        """The list's word, which is the later one; `running` without a list."""
        return self.run.status if self.run else self.progress.status if self.progress else ""

    @property
    def best(self) -> Best | None:
        return (self.progress.best if self.progress else None) or (self.run.best if self.run else None)

    @property
    def device(self) -> str | None:
        return (self.progress.device if self.progress else None) or (self.run.device if self.run else None)


SORTS: dict[str, Callable[[Entry], Any]] = {
    "when": lambda one: 0,
    "run": lambda one: one.name,
    "state": lambda one: one.status,
    "best": lambda one: (one.best.accuracy if one.best else None) or -1.0,
}


def items(view: View) -> list[Entry]:
    """Every run that is known, filtered and sorted; by "when": those under way first, then the newest first."""
    store = view.store
    listed = store.runs.runs if store.runs else []
    home = store.home or ""
    names = {(home, run.run) for run in listed}
    rows = [Entry(host, one.run, None, one) for host, one in store.progress() if (host, one.run) not in names]
    rows += [Entry(home, run.run, run, store.curves.get((home, run.run))) for run in listed]
    order = view.ui.orders["training"]
    if order.column != "when":
        rows.sort(key=SORTS[order.column], reverse=order.descending)
    elif order.descending:
        rows.sort(key=lambda one: one.status != "running")
    else:
        rows.reverse()
    wanted = view.ui.filters.get("training", "").lower()
    return [one for one in rows if wanted in _searched(one)] if wanted else rows


def selected(view: View) -> Entry | None:
    """The run that the cursor chose, else the first."""
    rows = items(view)
    if not rows:
        return None
    place = view.ui.place("training")
    place.cursor = max(0, min(place.cursor, len(rows) - 1))
    return rows[place.cursor]


def shown(view: View) -> tuple[str, Run | RunProgress] | None:
    """(host, what is known best) of the selected run."""
    one = selected(view)
    known = (one.progress or one.run) if one else None
    return (one.host, known) if one and known else None


def title(view: View) -> Row:
    row = Row(_("Training"), "title")
    fresh = _fresh(view)
    one = selected(view)
    if one:
        row.put(f" {one.name} ", "dim").put(*_state(view, one))
        if one.host != view.store.home:
            row.put(f" {_('on')} {one.host}", "dim")
        total = view.store.runs.total if view.store.runs else 0
        if max(total, len(items(view))) > 1:
            row.put(f"  {view.ui.place('training').cursor + 1}/{text.number(max(total, len(items(view))))}", "dim")
    if wanted := view.ui.filters.get("training"):
        row.put(f" /{wanted}", "accent")
    if fresh.state != "live":
        row.put(" ").put(*view.state(fresh))
    return row


def _fresh(view: View) -> Freshness:
    """Of the curves, else of the list of runs: on a host that never trained there are no curves to grow old."""
    return view.fresh("progress" if view.store.progress() else "runs")


def _searched(one: Entry) -> str:
    model = (one.run.model if one.run else None) or ""
    return f"{one.name} {one.status} {one.host} {one.device or ''} {model}".lower()


def _state(view: View, one: Entry) -> tuple[str, str]:
    """`◐ running`: a sign and a word, with their role."""
    glyphs = view.glyphs
    signs = {"running": glyphs.doing, "completed": glyphs.done, "interrupted": glyphs.todo}
    return f"{signs.get(one.status, glyphs.bad)} {_(one.status)}", STATUS.get(one.status, "warning")


def fraction(run: RunProgress) -> float | None:
    """How much of the run is done, from 0 to 1."""
    if not run.epochs or run.epoch is None:
        return None
    if run.status == "completed":
        return 1.0
    done = float(run.epoch)
    if run.step is not None and run.steps:
        done = max(0.0, run.epoch - 1) + min(1.0, run.step / run.steps)
    return min(1.0, done / run.epochs)


def draw(view: View, width: int, height: int) -> list[Row]:
    below = sweeps.below(view, width, height) if items(view) else []
    room = height - len(below) - bool(below)
    rows = [row.cut(width) for row in _rows(view, width, room)[:room]]
    return [*rows, *(Row() for _line in range(height - len(below) - len(rows))), *below] if below else rows


def _rows(view: View, width: int, height: int) -> list[Row]:
    rows = items(view)
    one = selected(view)
    view.ui.place("training").first = None
    if one is None:
        if view.ui.filters.get("training"):
            return [Row(_("nothing matches the filter"), "dim")]
        if swept := sweeps.newest(view, width, height):
            return swept
        waiting = view.store.runs is None
        said = _("no training yet: {key} starts one").format(key=view.key("train"))
        return [Row(_("no figures yet") if waiting else said, "dim")]
    if one.progress is None:
        found = _facts_of_run(view, one, width)[:height]
        listed = min(len(rows) + 1, height - len(found) - 1) if len(rows) > 1 else 0
        return [*found, Row(), *_list(view, rows, width, listed, len(found) + 1)] if listed >= 3 else found
    listed = min(len(rows) + 1, max(4, height - 18)) if height >= LIST_FROM and len(rows) > 1 else 0
    found = _progress(view, one, one.progress, width, min(height - listed, 18) if listed else height)
    if _fresh(view).state == "offline":
        found = [row.fade() for row in found]
    return [*found, *_list(view, rows, width, listed, len(found))] if listed else found


def _progress(view: View, one: Entry, run: RunProgress, width: int, height: int) -> list[Row]:
    rows = [_head(view, run, width)]
    below = [_facts(run, width)]
    measured = (one.run.peak_memory_bytes if one.run else None) or run.memory_bytes
    if any(height in rooms for rooms in FIT_IN) and (fitting := fit.line(view, run, measured, width)):
        below = [_facts(replace(run, memory_bytes=None), width), fitting]
    if height >= CURVES_FROM:
        rows += _charts(view, run, width, height - 1 - len(below))
    elif height > 2:
        rows.append(_figures(run, width))
    return [*rows, *below][:height]


def _facts_of_run(view: View, one: Entry, width: int) -> list[Row]:
    """A run whose curves never came: what the list of runs says of it."""
    run = one.run
    if run is None:
        return [Row(_("no figures yet"), "dim")]
    rows = [Row(line, "danger") for line in text.wrap(run.problem or "", width)]
    if fitting := fit.line(view, run, run.peak_memory_bytes, width):
        rows.append(fitting)
    best = text.percent(run.best.accuracy) if run.best and run.best.accuracy is not None else ""
    facts = (
        (_("best"), best + (f" @ {run.best.epoch}" if best and run.best and run.best.epoch is not None else "")),
        (_("model"), " ".join(word for word in (run.model, run.precision) if word)),
        (_("device"), run.device or ""),
        (_("epochs"), text.number(run.epochs) if run.epochs else ""),
        (_("took"), text.duration(run.seconds_s) if run.seconds_s else ""),
        (_("rate"), f"{text.rate(run.samples_per_s)} {_unit(run)}" if run.samples_per_s else ""),
        (_("memory"), text.size(run.peak_memory_bytes) if run.peak_memory_bytes and not run.fit_verdict else ""),
        (_("ended"), text.ago(view.now, run.finished_at) if run.finished_at else ""),
        (_("saved"), run.checkpoint or ""),
    )
    half = (width - 3) // 2 if width >= 70 else width
    cells = [
        Row().cell(label, 9, "dim").put(" ").put(text.clip_left(value, half - 10))
        for label, value in facts
        if value
    ]
    if half == width:
        return [*rows, *cells]
    lines = (len(cells) + 1) // 2
    for index in range(lines):
        row = Row().add(cells[index]).to(half + 3)
        rows.append(row.add(cells[lines + index]) if lines + index < len(cells) else row)
    return rows


def _list(view: View, rows: list[Entry], width: int, height: int, above: int) -> list[Row]:
    place = view.ui.place("training")
    place.fit(len(rows), height - 1)
    place.first = above + 1
    wide = width >= 64
    model = width - 66 if width >= 76 else 0
    order = view.ui.orders["training"]
    sign = view.glyphs.down if order.descending else view.glyphs.up

    def title(row: Row, column: str, cells: int, *, right: bool = False) -> Row:
        chosen = column == order.column
        return row.cell(_(column) + (sign if chosen else ""), cells, "accent" if chosen else "dim", right=right)

    head = title(title(Row("  "), "run", 8), "state", 14)
    if wide:
        head.cell(_("device"), 7, "dim").cell(_("model"), model, "dim")
    title(head.cell(_("epochs"), 8, "dim", right=True), "best", 9, right=True)
    if wide:
        head.cell("@", 5, "dim", right=True)
    lines = [title(head, "when", 13, right=True).cut(width)]
    focused = view.ui.focus == "training"
    for index in range(place.top, min(len(rows), place.top + height - 1)):
        one = rows[index]
        cursor = index == place.cursor
        row = Row(ground="selection" if cursor and focused else "background")
        row.put((view.glyphs.cursor if cursor else " ") + " ", "accent").cell(_short(one.name), 7).put(" ")
        row.cell(_state(view, one)[0], 13, _state(view, one)[1]).put(" ")
        if wide:
            name = (one.run.model if one.run else None) or text.NONE
            row.cell(one.device or text.NONE, 7, "dim").cell(name, max(0, model - 1), "dim")
            row.put(" " if model else "")
        epoch = f"{one.progress.epoch}/" if one.progress and one.progress.epoch is not None else ""
        epochs = (one.progress.epochs if one.progress else None) or (one.run.epochs if one.run else None)
        row.cell(f"{epoch}{text.number(epochs)}", 8, right=True)
        row.cell(text.percent(one.best.accuracy if one.best else None), 9, right=True)
        if wide:
            row.cell(text.number(one.best.epoch if one.best else None), 5, "dim", right=True)
        lines.append(row.cell(_when(view, one), 13, "dim", right=True).cut(width))
    return lines


def _short(name: str) -> str:
    """A sweep's run, `2026-11-21/16-30-00/3`, as `16-30/3`."""
    return f"{name[11:16]}/{name.rpartition('/')[2]}" if "/" in name else name


def _when(view: View, one: Entry) -> str:
    if one.status == "running" and one.progress and one.progress.eta_s is not None:
        return f"{text.duration(one.progress.eta_s)} {_('left')}"
    then = (one.run.finished_at or one.run.started_at) if one.run else None
    return text.ago(view.now, then or (one.progress.updated_at if one.progress else None))


def _head(view: View, run: RunProgress, width: int) -> Row:
    done = fraction(run)
    row = Row(_("epoch") + " ", "dim").put(f"{text.number(run.epoch)}/{text.number(run.epochs)}")
    if run.step is not None and run.steps and run.status == "running":
        row.put("  " + _("step") + " ", "dim").put(f"{text.number(run.step)}/{text.number(run.steps)}")
    if run.status == "running" and run.eta_s is not None:
        tail = f"{text.percent(done, 0).rjust(4)}  {text.duration(run.eta_s)} " + _("left")
    else:
        tail = text.percent(done, 0).rjust(4)
    room = width - row.at - len(tail) - 5
    if room >= 8:
        filled, track = bar(done, room, view.glyphs)
        row.put("  ").put(filled, "accuracy").put(track, "rule").put("  ")
    return row.right(tail, width)


def _charts(view: View, run: RunProgress, width: int, height: int) -> list[Row]:
    """Loss and accuracy side by side: a line of figures, the curve with its scale, the epochs below."""
    half = (width - 3) // 2
    losses = [point.loss if point.loss is not None else point.train_loss for point in run.points]
    accuracies = [point.accuracy for point in run.points]
    last = next((value for value in reversed(losses) if value is not None), None)
    left = Row(_("loss") + " ", "dim").put(text.number(last, 3), "bold loss")
    train = run.points[-1].train_loss if run.points else run.loss
    if train is not None and half >= 26:
        left.put("  " + _("train") + " ", "dim").put(text.number(train, 3))
    right = Row(_("accuracy") + " ", "dim").put(text.percent(run.accuracy), "bold accuracy")
    if run.best and run.best.accuracy is not None:
        best = text.percent(run.best.accuracy)
        right.put("  " + _("best") + " ", "dim").put(best)
        right.put(f" @ {run.best.epoch}", "dim") if run.best.epoch is not None and half >= 30 else None
    rows = [Row().add(left).to(half + 3).add(right)]
    span = _span(run)
    lines = height - 2
    first = _chart(view, losses, half, lines, "loss", span, lambda value: f"{value:.2f}")
    second = _chart(view, accuracies, half, lines, "accuracy", span, lambda value: f"{value * 100:.0f}%")
    rows += [Row().add(one).to(half + 3).add(two) for one, two in zip(first, second, strict=True)]
    if run.points:
        start, end = run.points[0].epoch, run.points[0].epoch + (span or len(run.points)) - 1
        axis = Row()
        for offset in (0, half + 3):
            axis.to(offset).put(" " * 6).put(str(start), "dim")
            axis.right(f"{_('epoch')} {end}", offset + half, "dim")
        rows.append(axis)
    return rows


def _span(run: RunProgress) -> int | None:
    if run.status != "running" or not run.epochs or not run.points:
        return None
    return max(len(run.points), run.epochs - run.points[0].epoch + 1)


def _chart(
    view: View,
    values: Sequence[float | None],
    width: int,
    height: int,
    role: str,
    span: int | None,
    scale: Callable[[float], str],
) -> list[Row]:
    known = [value for value in values if value is not None]
    if not known:
        return [Row(_("no epoch yet"), "dim"), *(Row() for _line in range(height - 1))]
    low, high = min(known), max(known)
    rows = []
    for index, line in enumerate(curve(values, width - 6, height, view.glyphs, span=span)):
        label = scale(high) if index == 0 else scale(low) if index == height - 1 and high > low else ""
        rows.append(Row().put(label.rjust(5) + " ", "dim").put(line, role))
    return rows


def _figures(run: RunProgress, width: int) -> Row:
    row = Row(_("loss") + " ", "dim").put(text.number(run.loss, 3), "loss")
    row.put("   " + _("accuracy") + " ", "dim").put(text.percent(run.accuracy), "accuracy")
    if run.best:
        row.put("   " + _("best") + " ", "dim").put(text.percent(run.best.accuracy))
    return row.cut(width)


def _unit(run: Run | RunProgress) -> str:
    """What the run goes through in a second."""
    return {None: "img/s", "images": "img/s", "go": "pos/s"}.get(run.task, "samples/s")


def _facts(run: RunProgress, width: int) -> Row:
    row = Row(text.rate(run.samples_per_s)).put(f" {_unit(run)}", "dim")
    for word in (run.device, run.precision):
        if word:
            row.put("  ").put(word)
    if run.batch_size:
        row.put("  " + _("batch") + " ", "dim").put(str(run.batch_size))
        if run.micro_batch and run.micro_batch != run.batch_size:
            row.put(f" ({run.batch_size // run.micro_batch}×{run.micro_batch})", "dim")
    if run.memory_bytes is not None:
        row.put("  " + _("memory") + " ", "dim").put(text.share(run.memory_bytes, run.available_bytes))
        if run.predicted_bytes:
            forecast = text.share(run.predicted_bytes, run.available_bytes).partition("/")[0]
            row.put(f" ({_('forecast')} {forecast})", "dim")
    return row.cut(width)
