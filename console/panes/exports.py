"""What became of a checkpoint as files for other machines: how small, how fast, and what it cost in accuracy."""

from __future__ import annotations

from pathlib import PurePath

from console import text
from console.view import View
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Checkpoint, Export, ExportedFile


def known(view: View, one: Checkpoint | None) -> list[Export]:
    """Newest first; those of the checkpoint `one` before the others."""
    found = view.store.checkpoints.exports if view.store.checkpoints else []
    return sorted(found, key=lambda export: not (one and made_from(export, one)))


def made_from(export: Export, one: Checkpoint) -> bool:
    """Whether an export is of this checkpoint."""
    return bool(one.sha256 and one.sha256 == export.sha256) or bool(one.release and one.release == export.original)


def brief(view: View, export: Export, width: int) -> Row:
    """One line for the checkpoints: the smallest file of an export with its proof."""
    row = Row(f"[{view.key('proof')}] ", "accent").put(_name(export))
    there = [one for one in export.files if one.present and one.size_ratio]
    if there:
        one = max(there, key=lambda file: file.size_ratio or 0.0)
        row.put(f" {view.glyphs.arrow} {one.format}  ").put(text.times(one.size_ratio, 1)).put(
            f" {_('smaller')}  ", "dim"
        )
        row.put(text.times(one.speedup, 1)).put(f" {_('faster')}", "dim")
        if one.difference is not None:
            row.put(f"  {text.points(one.difference)}", _role(one)).put(f" {_('points')}", "dim")
    else:
        row.put(f"  {export.problem or _('nothing was written')}", "danger")
    return row.cut(width)


def every(view: View, one: Checkpoint | None, width: int) -> list[Row]:
    """The tables of all exports that are known, in the order of `known`."""
    rows: list[Row] = []
    for export in known(view, one):
        rows += [*table(view, export, width), Row()]
    return rows[:-1]


def table(view: View, export: Export, width: int) -> list[Row]:
    """One export: each file beside fp32 ONNX Runtime, then what was not written and why."""
    rows = [Row(_name(export), "bold")]
    if made := export.original or export.release:
        rows[0].put(f"  {text.short(made)}", "dim")
    if export.sparsity:
        rows[0].put("  " + _("pruned") + f" {text.percent(export.sparsity, 0)}")
    rows[0].right(text.ago(view.now, export.at), width, "dim")
    if export.problem:
        return [
            row.cut(width) for row in (*rows, *(Row(line, "danger") for line in text.wrap(export.problem, width)))
        ]
    wide = width >= 88
    head = Row().cell(_("format"), 11, "dim").cell(_("size"), 9, "dim", right=True)
    head.cell(_("smaller"), 8, "dim", right=True).cell("ms", 8, "dim", right=True)
    head.cell(_("faster"), 8, "dim", right=True)
    if wide:
        head.cell(_("than ONNX"), 11, "dim", right=True)
    head.cell(_("accuracy"), 9, "dim", right=True).put("  ").put(_("points"), "dim")
    rows.append(head)
    fp32 = Row().cell("fp32 ONNX", 11, "dim").cell(text.size(export.bytes), 9, "dim", right=True)
    fp32.to(55 if wide else 44).cell(text.percent(export.accuracy), 9, "dim", right=True)
    rows += [fp32, *(_file(one, wide) for one in export.files)]
    rows += [Row(f"{one.format}: ", "dim").put(one.note or "", "dim") for one in export.files if one.note]
    for skipped in export.skipped:
        said = f"{skipped.format}: {_('not written')}: {skipped.reason}"
        rows += [Row(line, "warning") for line in text.wrap(said, width)]
    timed = f"{export.cpu or text.NONE}, {_('threads')} {export.threads or text.NONE}"
    rows.append(Row(f"{_('faster than torch eager, batch 1')}; {timed}", "dim"))
    count = next((one.n for one in export.files if one.n), None)
    if count and export.data:
        rows.append(
            Row(f"{_('judged on')} {text.number(count)} {_('images')} {_('of')} ", "dim").put(export.data, "dim")
        )
    return [row.cut(width) for row in (*rows, Row(export.path, "dim"))]


def _file(one: ExportedFile, wide: bool) -> Row:
    row = Row().cell(one.format, 11, "accent" if one.present else "dim")
    row.cell(text.size(one.bytes), 9, right=True).cell(text.times(one.size_ratio), 8, right=True)
    row.cell(text.number(one.latency_ms, 2), 8, right=True).cell(text.times(one.speedup), 8, right=True)
    if wide:
        row.cell(text.times(one.speedup_onnx), 11, right=True)
    row.cell(text.percent(one.accuracy), 9, right=True).put("  ")
    if not one.present:
        return row.put(_("taken away"), "danger")
    if one.difference is None:
        return row.put(text.NONE, "dim")
    row.put(text.points(one.difference, 2), _role(one))
    if one.difference_ci95:
        row.put(f" [{', '.join(text.points(value, 1) for value in one.difference_ci95)}]", "dim")
    return row


def _role(one: ExportedFile) -> str:
    """A loss is one where its whole interval lies below 0."""
    high = one.difference_ci95[-1] if one.difference_ci95 else one.difference
    return "warning" if high is not None and high < 0 else "good"


def _name(export: Export) -> str:
    return export.checkpoint or PurePath(export.path).name
