"""`export`: a checkpoint or release as files for other machines, each with its proof."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from engine.cli.verb import Session, Verb, table
from engine.errors import UnderstudyError
from engine.protocol import EXPORT_FORMATS

FORMATS = ("all", *EXPORT_FORMATS)


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
    """Write a model as ONNX, INT8, torch.export, TorchScript or for Triton; check, time and judge each file."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch takes turns with ONNX Runtime
    settings = session.settings
    if edge_config:
        from engine.export.edge_config import with_edge_config

        settings = with_edge_config(settings, Path(edge_config).expanduser())
    from engine.export.pipeline import export_checkpoint

    try:
        report = export_checkpoint(
            session.workspace,
            settings,
            checkpoint,
            Path(output_dir).expanduser(),
            formats=kinds,
            data=data,
            calibration=calibration,
            images=images,
            threads=threads,
            allow_worse=allow_worse,
            say=session.say,
        )
    except UnderstudyError as error:
        if error.payload.get("artifacts") and not session.json:
            session.emit(error.payload, _text)
        raise
    session.emit(report, _text)


def _text(report: dict[str, Any]) -> str:
    host = report["host"]
    original = report["original"]
    right = f"{original['judged']['accuracy']:.2%}" if original["judged"] else "-"
    rows = [("torch eager", "", "", "", *_times(original["torch"]), "" if original["onnx"] else right, "")]
    if original["onnx"]:
        size = f"{original['bytes'] / 1e6:.2f} MB"
        rows.append(("fp32 ONNX Runtime", size, "", "", *_times(original["onnx"]), right, ""))
    for row in report["artifacts"]:
        judged = row["judged"]
        right = f"{judged['accuracy']:.2%}" if judged else "-"
        rows.append(
            (
                Path(row["path"]).name if row["format"] != "triton" else "triton/",
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
        if row.get("trained_by"):
            lines.append(f"{row['format']}: trained on with rounded weights in run {row['trained_by']}")
        if row.get("kept_fp32"):
            lines.append(f"{row['format']}: left in fp32: {', '.join(row['kept_fp32'])}")
        if row.get("note"):
            lines.append(f"{row['format']}: {row['note']}")
    lines += [f"{one['format']}: not written: {one['reason']}" for one in report["skipped"]]
    return "\n".join(lines)


def _times(latency: dict[str, Any]) -> tuple[str, str, str, str]:
    one, eight = latency["1"], latency["8"]
    return f"{one['p10']:.2f}", f"{one['p50']:.2f}", f"{one['p99']:.2f}", f"{eight['p50']:.2f}"
