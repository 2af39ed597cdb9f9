"""Training: how far, how fast, how long still, and the two curves that matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from console import text
from console.view import View
from console.widgets.charts import bar, curve
from console.widgets.rows import Row
from console.words import _
from engine.protocol import RunProgress

STATUS = {"running": "good", "completed": "good", "interrupted": "warning", "failed": "danger", "lost": "danger"}


def shown(view: View) -> tuple[str, RunProgress] | None:
    """The run the pane shows: the one the cursor chose, else the first that is under way."""
    rows = view.store.progress()
    if not rows:
        return None
    place = view.ui.place("training")
    place.cursor = max(0, min(place.cursor, len(rows) - 1))
    return rows[place.cursor]


def title(view: View) -> Row:
    row = Row(_("Training"), "title")
    fresh = view.fresh("progress")
    found = shown(view)
    if found:
        host, run = found
        row.put(f" {run.run}", "dim").put(f" {view.glyphs.dot} ", "rule")
        row.put(_(run.status), STATUS.get(run.status, "warning"))
        if host != view.store.home:
            row.put(f" {_('on')} {host}", "dim")
        more = len(view.store.progress())
        if more > 1:
            row.put(f"  {view.ui.place('training').cursor + 1}/{more}", "dim")
    if fresh.state != "live":
        row.put(" ").put(*view.state(fresh))
    return row


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
    found = shown(view)
    if found is None:
        return _without_progress(view, width)
    _host, run = found
    rows = [_head(view, run, width)]
    if height >= 7:
        rows += _charts(view, run, width, height - 2)
    elif height > 2:
        rows.append(_figures(run, width))
    return [*rows, _facts(run, width)][:height]


def _without_progress(view: View, width: int) -> list[Row]:
    runs = view.store.runs
    last = runs.runs[0] if runs and runs.runs else None
    if last is None:
        waiting = runs is None
        return [Row(_("no figures yet") if waiting else _("no training yet: `t` starts one"), "dim")]
    head = Row(_("run") + " ", "dim").put(last.run).put(f" {_(last.status)}", STATUS.get(last.status, ""))
    return [head, *(Row(line, "danger") for line in text.wrap(last.problem or "", width))]


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


def _facts(run: RunProgress, width: int) -> Row:
    row = Row(text.rate(run.samples_per_s)).put(" img/s", "dim")
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
