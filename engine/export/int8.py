"""INT8 that keeps the accuracy: plain first, and only where that loses too much by dearer ways."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.export.formats import OnnxRunner
from engine.export.proof import judge
from engine.export.quantize import Calibration, Method, calibrate, sensitivity
from engine.export.session import Inputs, open_session, run_batches
from engine.export.subject import Subject
from engine.tasks.labelled import Labelled
from engine.tasks.medium import Limits

_TRIED_ON = 4  # batches of the calibration that tell the layers apart
_CUT_ON = 8  # batches whose histograms are taken: each holds every activation

Batches = Callable[[], Iterator[Inputs]]


@dataclass(frozen=True)
class Quantized:
    """An INT8 file.

    Attributes:
        subject: whose weights it holds: what was given, or what training made of it.
        loss: accuracy lost against fp32, a fraction; None where nothing judges it.
        note: `calibrated_on` (inputs), `ranges` (method), `kept_fp32` (layers), `trained_by` (a run).
    """

    content: bytes
    subject: Subject
    loss: float | None
    note: dict[str, Any] = field(default_factory=dict)


def quantize(
    subject: Subject,
    batches: Batches,
    judged: Sequence[Labelled],
    limits: Limits,
    max_loss: float,
    say: Callable[[str], None],
    retrain: Callable[[Subject], Subject] | None = None,
) -> Quantized:
    """The first INT8 file that loses no more than `max_loss`, else the one that loses least.

    Tried in turn: averaged ranges; ranges without the outermost activations; training with rounded weights, where
    `retrain` is given; a group of the most sensitive layers in fp32, then two, four, and so on. Which way is taken is
    decided on the judged requests, so where a later one was needed the loss is told a little too favourably.

    Args:
        batches: calibration inputs, begun anew at each call.
        judged: labelled requests that say how much accuracy is lost; without any, the first way is taken.
        max_loss: how much may be lost, a fraction.

    Raises:
        Failed: it cannot be quantised.
        UsageError, Interrupted: as `retrain`.
    """
    name = subject.medium.input_name

    def loss_of(content: bytes) -> float | None:
        if not judged:
            return None
        runners = {"fp32": OnnxRunner(subject.onnx, name, 0), "int8": OnnxRunner(content, name, 0)}
        found, _ = judge(runners, subject.medium, judged, limits)
        return found["fp32"].accuracy - found["int8"].accuracy if len(found["fp32"].right) else None

    with tempfile.TemporaryDirectory() as folder:
        found: list[tuple[Quantized, Calibration]] = []

        def enough(of: Subject, calibration: Calibration, keep: Sequence[str] = ()) -> bool:
            content = calibration.quantized(keep=keep)
            note: dict[str, Any] = {"calibrated_on": calibration.inputs, "ranges": calibration.method}
            note["kept_fp32"] = list(keep)
            if of is not subject:
                note["trained_by"] = of.card["checkpoint"]["run"]
            made = Quantized(content, of, loss_of(content), note)
            found.append((made, calibration))
            if made.loss is not None:
                layers = f", {len(keep)} of {len(calibration.layers)} layers in fp32" if keep else ""
                say(f"int8: {calibration.method} ranges{layers}: loses {made.loss * 100:.2f} points")
            return made.loss is None or made.loss <= max_loss

        def ranges(of: Subject, method: Method, count: int | None = None) -> Calibration:
            place = Path(folder) / f"{len(found)}"
            place.mkdir(exist_ok=True)
            return calibrate(of.onnx, itertools.islice(batches(), count), place, method)

        if enough(subject, ranges(subject, "averaged")) or enough(subject, ranges(subject, "percentile", _CUT_ON)):
            return found[-1][0]
        if retrain:
            say("int8: training on with rounded weights")
            trained = retrain(subject)
            if enough(trained, ranges(trained, "averaged")):
                return found[-1][0]
        best, calibration = min(found, key=_lost)
        few = list(itertools.islice(batches(), _TRIED_ON))
        worst = sensitivity(calibration, few, run_batches(open_session(best.subject.onnx), few))
        count = 1
        while count < len(worst):
            if enough(best.subject, calibration, [layer for layers, _ in worst[:count] for layer in layers]):
                return found[-1][0]
            count *= 2
        return min(found, key=_lost)[0]


def _lost(entry: tuple[Quantized, Calibration]) -> float:
    loss = entry[0].loss
    return 0.0 if loss is None else loss
