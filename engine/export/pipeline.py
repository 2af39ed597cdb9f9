"""A checkpoint to a folder of exported files: admitted, made smaller where that is asked for, written and proved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.config import Settings
from engine.errors import UsageError
from engine.export.export import Export
from engine.export.labelled import Data, labelled_data
from engine.export.options import Options, wanted_formats
from engine.export.slim import Slimmer
from engine.export.steps import Steps
from engine.export.subject import open_subject
from engine.store.events import append_event
from engine.store.files import atomic_write
from engine.store.locks import hold
from engine.store.workspace import Workspace
from engine.tasks.medium import Limits


def export_checkpoint(
    workspace: Workspace,
    settings: Settings,
    checkpoint: str,
    folder: Path,
    *,
    formats: Sequence[str] = (),
    data: str | None = None,
    calibration: str | None = None,
    images: int | None = None,
    threads: int = 1,
    allow_worse: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write `checkpoint` into `folder` as `settings.export` says, and return the report with its proof.

    Args:
        checkpoint: a file, or the first digits of a release.
        formats: instead of those of the settings.
        data: labelled data that judges each file; None: what a comparison would take.
        calibration: data for INT8's ranges; None: a part of `data`.
        images: at most so many are judged, instead of `export.images`.

    Raises:
        UsageError: no such checkpoint, folder, format or data.
        Busy: another export writes to that folder.
        Rejected, Failed: the checkpoint is not admitted, nothing could be written, or INT8 is not worth having
            (its `payload` is the report).
        Interrupted: stopped in a training; called again it goes on.
    """
    export = settings.export
    options = Options(
        wanted_formats(formats, export),
        threads=threads,
        max_loss=export.max_loss,
        allow_worse=allow_worse,
        images=images or export.images,
        calibration=export.calibration,
        seed=settings.ab.seed,
    )
    _writable(folder)
    with hold(folder / ".export.lock", f"export to {folder}"):
        original = subject = open_subject(workspace, settings, checkpoint)
        found = labelled_data(subject, settings, options, data, calibration)
        _tell(found, say)
        slimmer = Slimmer(workspace, settings, folder, Steps(folder), say)
        facts = None
        if export.pruning:
            subject, facts = slimmer.pruned(original)
        report = Export(
            subject,
            folder,
            found,
            options,
            Limits(settings.servers.max_pixels),
            say,
            original=original,
            made_smaller=facts,
            retrain=slimmer.aware if export.recover == "qat" else None,
        ).run()
        detail = {
            "folder": str(folder.absolute()),
            "checkpoint": report["checkpoint"]["name"],
            "sha256": report["checkpoint"]["sha256"],
            "files": {
                Path(row["path"]).relative_to(folder).as_posix(): row["sha256"] for row in report["artifacts"]
            },
            "skipped": [row["format"] for row in report["skipped"]],
        }
        append_event(workspace, "exported", subject.release.id, detail)
    return report


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        atomic_write(probe, b"")
        probe.unlink()
    except OSError as error:
        raise UsageError(f"cannot write to {folder} ({error.strerror})", "choose another --output-dir") from None


def _tell(found: Data, say: Callable[[str], None]) -> None:
    if found.judged:
        say(f"judged on {len(found.judged)} of {found.shown}; calibrated on {len(found.calibration)} others")
    else:
        say(f"accuracy is not judged: {found.missing}")
