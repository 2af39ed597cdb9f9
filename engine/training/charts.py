"""Pictures of an evaluation: the confusion matrix and the reliability diagram as PNG, the matrix as text.

Colours are shares of a row (of a class's images): right ones blue, mistakes orange on a square root's scale, so that
one mistake in a hundred can be seen. Matplotlib is loaded when a PNG is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len, set_cell_size

from engine.store.files import atomic_writer

_NUMBERS_TO = 40  # classes; with more, a number no longer fits its cell
_INK, _QUIET, _LINE = "#1b2733", "#65717d", "#dfe4e9"
_RIGHT = ("#f4f8fc", "#9cc4e6", "#3c83c0", "#0f4c81")
_WRONG = ("#ffffff", "#fbdcc2", "#f08c4a", "#b3400d")
# For class names that the default font cannot write; matplotlib falls back letter by letter.
_SCRIPTS = ("Noto Sans CJK KR", "Noto Sans KR", "Apple SD Gothic Neo", "NanumGothic", "Malgun Gothic",
            "Noto Sans CJK JP", "Hiragino Sans", "Microsoft YaHei", "WenQuanYi Zen Hei", "Noto Sans")  # fmt: skip


def draw_confusion_matrix(
    path: Path, matrix: np.ndarray, classes: Sequence[str], title: str, note: str = ""
) -> None:
    """Write a PNG that grows with the number of classes (2 to some hundred).

    Args:
        matrix: counts [truth, answer].
        title, note: above it, the note smaller.
    """
    from matplotlib.colors import LinearSegmentedColormap

    count = len(classes)
    names = [_short(name, 28) for name in classes]
    cell = 0.62 if count <= 12 else max(0.62 * 12 / count, 0.30 if count <= _NUMBERS_TO else 0.155)
    side = max(cell * count, 2.4)
    margin = 0.55 + 0.085 * max(map(cell_len, names))
    small = _clamp(cell * 19, 5.0, 10.0)
    figure = _figure(max(side + margin + 1.1, 6.6), side + margin + 1.0)
    wide, high = figure.get_size_inches()
    axes = figure.add_axes((margin / wide, margin / high, side / wide, side / high))
    support = matrix.sum(1, keepdims=True)
    shares = matrix / np.maximum(support, 1)
    diagonal = np.eye(count, dtype=bool)
    for colours, hidden, values in ((_RIGHT, ~diagonal, shares), (_WRONG, diagonal, np.sqrt(shares))):
        shown = np.ma.array(values, mask=hidden)
        axes.imshow(shown, LinearSegmentedColormap.from_list("", colours), vmin=0, vmax=1, aspect="equal")
    _grid(axes, count)
    axes.set_xticks(range(count), names, rotation=90 if count > 4 else 0, fontsize=small, color=_INK)
    axes.set_yticks(range(count), names, fontsize=small, color=_INK)
    axes.set_xlabel("taken for", color=_QUIET, fontsize=9)
    axes.set_ylabel("is", color=_QUIET, fontsize=9)
    if count <= _NUMBERS_TO:
        size = _clamp(cell * 17, 4.5, 10.0)
        for row, column in np.argwhere(matrix):
            dark = shares[row, column] > 0.55 if row == column else np.sqrt(shares[row, column]) > 0.75
            axes.text(column, row, f"{matrix[row, column]}", ha="center", va="center", fontsize=size,
                      color="white" if dark else _INK)  # fmt: skip
    for row in range(count):  # what is right of the row's images, beside it
        said = f"{shares[row, row]:.0%}" if support[row, 0] else "–"
        axes.text(count - 0.35, row, f"{said}  of {support[row, 0]}", va="center", fontsize=small, color=_QUIET)
    figure.text(0.25 / wide, 1 - 0.30 / high, title, fontsize=12.5, color=_INK, weight="bold", va="center")
    figure.text(0.25 / wide, 1 - 0.58 / high, note, fontsize=9, color=_QUIET, va="center")
    _save(figure, path)


def draw_calibration(path: Path, found: dict[str, Any], title: str) -> None:
    """The reliability diagram: accuracy over confidence in each bin, and how many answers each holds."""
    figure = _figure(4.6, 5.2)
    axes = figure.add_axes((0.13, 0.34, 0.83, 0.52))
    counts = figure.add_axes((0.13, 0.10, 0.83, 0.17), sharex=axes)
    full = [row for row in found["bins"] if row["n"]]
    width = found["bins"][0]["high"] * 0.92
    middles = [(row["low"] + row["high"]) / 2 for row in full]
    axes.plot((0, 1), (0, 1), color=_QUIET, linewidth=1, linestyle=(0, (4, 3)))
    axes.bar(middles, [row["accuracy"] for row in full], width, color=_RIGHT[2])
    axes.plot(
        [row["confidence"] for row in full], [row["accuracy"] for row in full], "o", color=_WRONG[3], markersize=4
    )
    counts.bar(middles, [row["n"] for row in full], width, color=_RIGHT[1])
    for one in (axes, counts):
        one.set_xlim(0, 1)
        one.tick_params(length=0, labelsize=8, colors=_QUIET)
        one.spines[:].set_visible(False)
        one.grid(axis="y", color=_LINE, linewidth=0.8)
        one.set_axisbelow(True)
    axes.set_ylim(0, 1)
    axes.set_ylabel("right", color=_QUIET, fontsize=9)
    counts.set_ylabel("answers", color=_QUIET, fontsize=9)
    counts.set_xlabel("confidence", color=_QUIET, fontsize=9)
    figure.text(0.05, 0.95, title, fontsize=11, color=_INK, weight="bold", va="center")
    lean = "surer than right" if found["overconfidence"] > 0 else "less sure than right"
    figure.text(0.05, 0.91, f"expected calibration error {found['ece']:.3f}, {lean} by {abs(found['overconfidence']):.3f}",
                fontsize=9, color=_QUIET, va="center")  # fmt: skip
    _save(figure, path)


def matrix_text(matrix: np.ndarray, classes: Sequence[str], width: int = 80) -> str:
    """The matrix for a terminal of `width` columns.

    Counts where they fit, else whole percents of the row, else a shade a cell (█ above 75%, ▓ 50, ▒ 25, ░ 5,
    · some). Where even that is too wide, the classes with most mistakes, and how many are not shown.
    """
    count = len(classes)
    digits = max(len(str(matrix.max())), len(str(count)), 2) + 1
    label = min(max(map(cell_len, classes)), 18)
    head = label + len(str(count)) + 3
    if head + digits * count <= width:
        cells = [[str(value) if value else "·" for value in row] for row in matrix]
        return _rows(cells, classes, label, digits)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    if head + 4 * count <= width:
        cells = [
            [f"{value:.0%}"[:-1] if value >= 0.005 else "·" if value else "" for value in row] for row in shares
        ]
        return _rows(cells, classes, label, 4) + "\n(percent of each row)"
    if head + count <= width:
        return _rows([[_shade(value) for value in row] for row in shares], classes, label, 1)
    wrong = matrix.sum(1) + matrix.sum(0) - 2 * matrix.diagonal()
    room = min((width - head) // 4, 16)
    chosen = np.sort(np.argsort(-wrong, kind="stable")[:room])
    part = matrix_text(matrix[np.ix_(chosen, chosen)], [classes[i] for i in chosen], width)
    return f"{part}\n(the {room} classes with most mistakes, of {count})"


def _rows(cells: list[list[str]], classes: Sequence[str], label: int, wide: int) -> str:
    numbered = len(str(len(classes)))
    indent = " " * (label + numbered + 3)
    if wide > 1:
        lines = [indent + "".join(str(number + 1).rjust(wide) for number in range(len(classes)))]
    else:  # numbers stand upright, every fifth
        marks = [str(n + 1) if n % 5 == 4 or not n else "" for n in range(len(classes))]
        lines = [
            indent + "".join(mark.rjust(numbered)[row] if mark else " " for mark in marks)
            for row in range(numbered)
        ]
    for number, row in enumerate(cells):
        name = _short(classes[number], label)
        name = " " * (label - cell_len(name)) + name
        lines.append(
            f"{name} {str(number + 1).rjust(numbered)}  " + "".join(cell.rjust(wide) for cell in row).rstrip()
        )
    return "\n".join(lines)


def _shade(share: float) -> str:
    steps = ((0.75, "█"), (0.5, "▓"), (0.25, "▒"), (0.05, "░"), (1e-12, "·"))
    return next((sign for least, sign in steps if share >= least), " ")


def _short(name: str, longest: int) -> str:
    """Cut to so many columns of a terminal, in which Hangul and its like take two."""
    return name if cell_len(name) <= longest else set_cell_size(name, longest - 1).rstrip() + "…"


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(high, value))


def _grid(axes: Any, count: int) -> None:
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=_LINE, linewidth=0.8 if count <= _NUMBERS_TO else 0.4)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _figure(wide: float, high: float) -> Any:
    import logging

    from matplotlib import font_manager, rcParams
    from matplotlib.figure import Figure

    logging.getLogger("matplotlib.font_manager").setLevel(
        logging.ERROR
    )  # a letter that no font has is drawn empty
    there = {font.name for font in font_manager.fontManager.ttflist}
    rcParams["font.family"] = ["DejaVu Sans", *(name for name in _SCRIPTS if name in there)]
    return Figure(figsize=(wide, high), facecolor="white")


def _save(figure: Any, path: Path) -> None:
    """Beside, then renamed. A `Figure` of one's own draws with Agg: no display is asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as stream:
        figure.savefig(stream, format="png", dpi=150)
