"""INT8 that keeps the accuracy: plain first, then with the layers that suffer most left in fp32."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.export.formats import OnnxRunner
from engine.export.proof import judge
from engine.export.quantize import calibrate, sensitivity
from engine.export.session import Inputs, open_session, run_batches
from engine.export.subject import Subject
from engine.tasks.labelled import Labelled
from engine.tasks.medium import Limits

_TRIED_ON = 4  # batches of the calibration that tell the layers apart


def quantize(
    subject: Subject,
    batches: Callable[[], Iterator[Inputs]],
    judged: Sequence[Labelled],
    limits: Limits,
    max_loss: float,
    say: Callable[[str], None],
    retrain: Callable[[Subject], Subject] | None = None,
) -> tuple[bytes, dict[str, Any]]:
    """The INT8 file, and what to say of it: `calibrated_on`, `kept_fp32` (names of layers), `trained_by` (a run).

    Args:
        batches: calibration inputs, begun anew at each call.
        judged: labelled requests that say how much accuracy is lost; without any, plain INT8 is taken.
        max_loss: how much may be lost, a fraction, before layers go back to fp32: a group, two, four, and so on.
        retrain: where given, quantisation-aware training comes before layers go back.

    Raises:
        Failed: it cannot be quantised.
    """
    with tempfile.TemporaryDirectory() as folder:
        calibration = calibrate(subject.onnx, batches(), Path(folder))
        content, keep = calibration.quantized(), []
        note: dict[str, Any] = {}
        reference = subject
        loss = _loss(reference, content, judged, limits)
        if loss is not None and loss > max_loss and retrain:
            say(f"int8: loses {loss * 100:.2f} points; training on with rounded weights")
            subject = retrain(subject)
            note["trained_by"] = subject.card["checkpoint"]["run"]
            calibration = calibrate(subject.onnx, batches(), Path(folder))
            content = calibration.quantized()
            loss = _loss(reference, content, judged, limits)
        if loss is not None and loss > max_loss:
            say(f"int8: loses {loss * 100:.2f} points; looking for the layers that cause it")
            few = list(itertools.islice(batches(), _TRIED_ON))
            wanted = run_batches(open_session(subject.onnx), few)
            worst = sensitivity(calibration, few, wanted)
            count = 1
            while loss > max_loss and count <= len(worst):
                keep = [layer for layers, _ in worst[:count] for layer in layers]
                content = calibration.quantized(keep=keep)
                loss = _loss(reference, content, judged, limits) or 0.0
                say(
                    f"int8: {len(keep)} of {len(calibration.layers)} layers in fp32: loses {loss * 100:.2f} points"
                )
                count *= 2
        return content, {"calibrated_on": calibration.inputs, "kept_fp32": keep, **note}


def _loss(subject: Subject, content: bytes, judged: Sequence[Labelled], limits: Limits) -> float | None:
    if not judged:
        return None
    name = subject.medium.input_name
    runners = {"fp32": OnnxRunner(subject.onnx, name, 0), "int8": OnnxRunner(content, name, 0)}
    found, _ = judge(runners, subject.medium, judged, limits)
    return found["fp32"].accuracy - found["int8"].accuracy
