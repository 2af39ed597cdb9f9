"""The INT8 build of a release as a release of its own, so that an A/B against fp32 decides about it."""

from __future__ import annotations

from collections.abc import Callable

from engine.config import Settings
from engine.errors import Failed
from engine.export.int8 import quantize
from engine.export.labelled import Data, labelled_data
from engine.export.options import TOO_MUCH, Options
from engine.export.session import open_session, run_batches
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
    """Quantise a release on labelled data and keep the result as a release, without weights for training.

    Args:
        data: labelled data to calibrate and judge on; None: what a comparison would take.

    Raises:
        UsageError: the data cannot be used.
        Failed: there is none, or the INT8 build loses more than a point or answers otherwise too often.
    """
    subject = Subject(release.manifest.checkpoint.name, release, settings.task)
    export = settings.export
    options = Options(["int8"], images=export.images, calibration=export.calibration, seed=settings.ab.seed)
    found = labelled_data(subject, settings, options, data)
    if not found.judged or not found.calibration:
        raise Failed(
            f"INT8 needs data of your own to calibrate on: {found.missing}",
            "name labelled data: --data DIR",
            kind="no_data",
        )
    limits = Limits(settings.servers.max_pixels)
    made = quantize(subject, lambda: found.batches(subject, limits), found.judged, limits, export.max_loss, say)
    if made.loss is None:
        raise Failed(f"nothing of {found.shown} can be read", "name other data: --data DIR", kind="no_data")
    if made.loss > TOO_MUCH:
        raise Failed(
            f"the INT8 build loses {made.loss * 100:.1f} points of accuracy on {len(found.judged)} of {found.shown}",
            "deploy the fp32 one, or train on with training.quantization_aware=true",
            kind="not_worth_having",
        )
    if subject.medium.output == "probabilities" and (why := _disagreement(subject, made.content, found, limits)):
        raise Failed(
            f"the INT8 build does not agree with fp32: {why}",
            "deploy the fp32 one, or name more data to calibrate on",
            kind="disagrees",
        )
    told = described(release.manifest.task, made.content, subject.medium)
    manifest = release.manifest.model_copy(update={"precision": "int8", "golden": told["golden"]})
    return write_release(workspace.releases, manifest, made.content, b"")


def _disagreement(subject: Subject, content: bytes, data: Data, limits: Limits) -> str | None:
    """How often the two name another class on the calibration inputs, where that is too often."""
    fp32, int8 = (
        run_batches(open_session(model), data.batches(subject, limits)) for model in (subject.onnx, content)
    )
    return disagreement(fp32, int8, "int8")
