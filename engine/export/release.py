"""The INT8 build of a release as a release of its own, so that an A/B against fp32 decides about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from engine.config import Settings
from engine.errors import Failed
from engine.export.export import TOO_MUCH, Options
from engine.export.formats import OnnxRunner
from engine.export.int8 import quantize
from engine.export.labelled import labelled_data
from engine.export.proof import decoded, judge
from engine.export.session import Inputs
from engine.export.subject import Subject
from engine.release.admission_child import described
from engine.release.bundle import Release, write_release
from engine.release.convert import disagreement
from engine.store.workspace import Workspace
from engine.tasks.medium import Limits


def int8_release(
    workspace: Workspace,
    settings: Settings,
    release: Release,
    data: str | None,
    say: Callable[[str], None] = lambda line: None,
) -> Release:
    """Quantise a release on labelled data and keep the result as a release.

    Args:
        data: class folders to calibrate and judge on; None: what a comparison would take.

    Raises:
        UsageError: the data cannot be used.
        Failed: there is none, or the INT8 build disagrees with fp32 too often or loses more than a point.
    """
    subject = Subject(release.manifest.checkpoint.name, release, settings.task)
    medium, limits = subject.medium, Limits(settings.servers.max_pixels)
    export = settings.export
    options = Options(
        ["int8"],
        max_loss=export.max_loss,
        images=export.images,
        calibration=export.calibration,
        seed=settings.ab.seed,
    )
    found = labelled_data(subject, settings, options, data, None)
    if not found.calibration:
        raise Failed(
            f"INT8 needs data of your own to calibrate on: {found.missing}",
            "name class folders: --data DIR",
            kind="no_data",
        )

    def batches() -> Iterator[Inputs]:
        for start in range(0, len(found.calibration), 8):
            _, inputs = decoded(medium, found.calibration[start : start + 8], limits)
            if len(inputs):
                yield {medium.input_name: inputs}

    content, note = quantize(subject, batches, found.judged, limits, export.max_loss, say)
    name = medium.input_name
    fp32, int8 = OnnxRunner(subject.onnx, name, 0), OnnxRunner(content, name, 0)
    asked = next(batches())[name]
    if medium.output == "probabilities" and (why := disagreement(fp32(asked), int8(asked), "int8")):
        raise Failed(
            f"the INT8 build does not agree with fp32: {why}", "take the fp32 one: leave out --format int8"
        )
    judged, _ = judge({"fp32": fp32, "int8": int8}, medium, found.judged, limits)
    loss = judged["fp32"].accuracy - judged["int8"].accuracy
    if loss > TOO_MUCH:
        raise Failed(
            f"the INT8 build loses {loss * 100:.1f} points of accuracy on {len(found.judged)} of {found.shown}",
            "take the fp32 one, or train with export.recover=qat",
            kind="not_worth_having",
        )
    kept = len(note["kept_fp32"])
    say(
        f"int8: loses {loss * 100:.2f} points on {len(found.judged)}"
        + (f"; {kept} layers in fp32" if kept else "")
    )
    told = described(release.manifest.task, content, medium)
    manifest = release.manifest.model_copy(update={"precision": "int8", "golden": told["golden"]})
    return write_release(workspace.releases, manifest, content, b"")
