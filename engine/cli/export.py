"""`export`: a checkpoint or release as files for other machines, each with its proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.cli.verb import Session, Verb, table
from engine.config.schema import Export as ExportSettings
from engine.errors import UnderstudyError, UsageError

FORMATS = ("all", "onnx", "pt2", "torchscript", "fp16", "int8")


@click.command(cls=Verb)
@click.option("--checkpoint", "--model-path", "checkpoint", metavar="C", required=True,
              help="A checkpoint file, a release file, or the first digits of a release.")  # fmt: skip
@click.option("--output-dir", metavar="DIR", default="exported_models", show_default=True, help="Where files go.")
@click.option("--format", "kinds", multiple=True, type=click.Choice(FORMATS),
              help="May be given several times (default: as [export] says).")  # fmt: skip
@click.option("--edge-config", metavar="FILE", help="The documents' edge_config.json, instead of [export].")
@click.option("--data", metavar="DIR", help="Labelled data that the files are judged on (default: ab.data).")
@click.option("--calibration", metavar="DIR", help="Data for INT8's ranges (default: a part of --data).")
@click.option("--images", metavar="N", type=click.IntRange(1), help="At most so many are judged.")
@click.option("--threads", metavar="N", type=click.IntRange(1), default=1, show_default=True, help="When timing.")
@click.option("--allow-worse", is_flag=True, help="Keep an INT8 file that is slower, or a point less accurate.")
def export(
    session: Session,
    checkpoint: str,
    output_dir: str,
    kinds: tuple[str, ...],
    edge_config: str | None,
    data: str | None,
    calibration: str | None,
    images: int | None,
    threads: int,
    allow_worse: bool,
) -> None:
    """Write a model as ONNX, INT8, torch.export or TorchScript; check, time and judge each file."""
    settings = session.settings
    if edge_config:
        from engine.export.edge_config import read_edge_config

        merged = settings.export.model_dump() | read_edge_config(Path(edge_config).expanduser())
        try:
            settings.export = ExportSettings.model_validate(merged)
        except ValueError as error:
            raise UsageError(f"{edge_config}: {' '.join(str(error).split())}", "see docs/edge.md") from None
    from engine.export.export import Export, Options
    from engine.export.labelled import labelled_data
    from engine.export.slim import Slimmer
    from engine.export.steps import Steps
    from engine.export.subject import open_subject
    from engine.tasks.medium import Limits

    subject = open_subject(session.workspace, settings, checkpoint)
    wanted = _wanted(kinds, settings.export)
    options = Options(
        wanted,
        threads=threads,
        max_loss=settings.export.max_loss,
        allow_worse=allow_worse,
        images=images or settings.export.images,
        calibration=settings.export.calibration,
        seed=settings.ab.seed,
    )
    found = labelled_data(subject, settings, options, data, calibration)
    if found.judged:
        session.say(
            f"judged on {len(found.judged)} of {found.shown}; calibrated on {len(found.calibration)} others"
        )
    else:
        session.say(f"accuracy is not judged: {found.missing}")
    limits = Limits(settings.servers.max_pixels)
    folder = Path(output_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {folder} ({error.strerror})", "choose another --output-dir") from None
    slimmer = Slimmer(session.workspace, settings, folder, Steps(folder), session.say)
    original, facts = subject, None
    if settings.export.pruning:
        subject, facts = slimmer.pruned(original)
    retrain = slimmer.aware if settings.export.recover == "qat" else None
    try:
        report = Export(subject, folder, found, options, limits, session.say,
                        original=original, made_smaller=facts, retrain=retrain).run()  # fmt: skip
    except UnderstudyError as error:
        if error.payload and not session.json:
            session.emit(error.payload, _text)
        raise
    session.emit(report, _text)


def _wanted(kinds: tuple[str, ...], settings: ExportSettings) -> list[str]:
    if "all" in kinds:
        return [kind for kind in FORMATS if kind != "all"]
    if kinds:
        return list(dict.fromkeys(kinds))
    return list(dict.fromkeys([*settings.formats, *([settings.dtype] if settings.quantization else [])]))


def _text(report: dict[str, Any]) -> str:
    host = report["host"]
    original = report["original"]
    right = f"{original['judged']['accuracy']:.2%}" if original["judged"] else "-"
    rows = [
        ("torch eager", "", "", "", *_times(original["torch"]), "", ""),
        ("fp32 ONNX Runtime", f"{original['bytes'] / 1e6:.2f} MB", "", "", *_times(original["onnx"]), right, ""),
    ]
    for row in report["artifacts"]:
        judged = row["judged"]
        right = f"{judged['accuracy']:.2%}" if judged else "-"
        rows.append(
            (
                Path(row["path"]).name,
                f"{row['bytes'] / 1e6:.2f} MB",
                f"{row['size_ratio']:.2f}x",
                f"{row['speedup']:.2f}x",
                *_times(row["latency"]),
                right,
                f"{row['max_abs_error']:.1e}",
            )
        )
    header = ("file", "size", "smaller", "faster", "batch 1 p10", "p50", "p99", "batch 8 p50", "accuracy", "error")
    lines = [table(rows, header)]
    lines.append(f"milliseconds on {host['threads']} thread{'s' if host['threads'] > 1 else ''} of {host['cpu']}"
                 f" ({', '.join(host['features']) or 'features unknown'})")  # fmt: skip
    for row in report["artifacts"]:
        judged = row["judged"] or {}
        if "difference" in judged:
            low, high = judged["difference_ci95"]
            lines.append(f"{row['format']}: {judged['difference'] * 100:+.2f} points against fp32 on {judged['n']:,}"
                         f" (95% interval {low * 100:+.2f} to {high * 100:+.2f})")  # fmt: skip
        if row.get("kept_fp32"):
            lines.append(f"{row['format']}: left in fp32: {', '.join(row['kept_fp32'])}")
        if row.get("note"):
            lines.append(f"{row['format']}: {row['note']}")
    lines += [f"{one['format']}: not written: {one['reason']}" for one in report["skipped"]]
    return "\n".join(lines)


def _times(latency: dict[str, Any]) -> tuple[str, str, str, str]:
    one, eight = latency["1"], latency["8"]
    return f"{one['p10']:.2f}", f"{one['p50']:.2f}", f"{one['p99']:.2f}", f"{eight['p50']:.2f}"
