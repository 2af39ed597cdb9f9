"""The stream's words for what was found out about a checkpoint: where it is wrong, and what its exports are worth.

The rules of the format stand in `engine.protocol.messages`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ANALYSED = 20  # classes of a confusion matrix, and pairs that are confused
EXPORTS = 20
EXPORT_FORMATS = ("onnx", "pt2", "torchscript", "fp16", "int8", "triton")


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """`count` of the class `label` were taken for another one; `share` of all of that class."""

    label: str
    taken_for: str
    count: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The last `analyze`. `matrix[i][j]`: how many of `classes[i]` were taken for `classes[j]`.

    Of more than `ANALYSED` classes it holds those that are confused most, in the net's order; `classes_total` counts
    all, and `support[i]` all of class i, also those taken for a class that is not shown. `checkpoint` is a file's
    path or a release; `ece` the expected calibration error.
    """

    checkpoint: str
    n: int
    accuracy: float
    f1_macro: float | None = None
    ci95: list[float] | None = None
    ece: float | None = None
    data: str | None = None
    at: str | None = None
    classes: list[str] = field(default_factory=list)
    classes_total: int = 0
    matrix: list[list[int]] = field(default_factory=list)
    support: list[int] = field(default_factory=list)
    confusions: list[Confusion] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFile:
    """One file of an export with its proof.

    `size_ratio` says how often it goes into the fp32 ONNX file, `speedup` and `speedup_onnx` how much quicker it is
    than torch eager and than fp32 ONNX Runtime (median, batch 1); `difference` is of its accuracy from fp32's, over
    `n` labelled requests. `present` is false where it was taken away again: it was not worth having.
    """

    format: str
    path: str
    bytes: int | None = None
    size_ratio: float | None = None
    latency_ms: float | None = None
    speedup: float | None = None
    speedup_onnx: float | None = None
    n: int | None = None
    accuracy: float | None = None
    difference: float | None = None
    difference_ci95: list[float] | None = None
    max_abs_error: float | None = None
    note: str | None = None
    present: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NotExported:
    format: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One folder of exports. `release` is what was written, `original` what it is compared with.

    `sparsity` says how much was pruned before; `problem` why its report cannot be read.
    """

    path: str
    at: str | None = None
    release: str | None = None
    original: str | None = None
    checkpoint: str | None = None
    sha256: str | None = None
    cpu: str | None = None
    threads: int | None = None
    data: str | None = None
    bytes: int | None = None
    accuracy: float | None = None
    sparsity: float | None = None
    files: list[ExportedFile] = field(default_factory=list)
    skipped: list[NotExported] = field(default_factory=list)
    problem: str | None = None
