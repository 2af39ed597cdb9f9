"""Exporting a release: each format written, checked against the original, timed and judged, one after another.

`export.json` in the folder says what is there with its proof. A step whose file is still there as it was is not done
again: an export that was killed goes on where it stood.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import Failed, UnderstudyError, UsageError
from engine.export import formats, triton
from engine.export.host import cpu_features, cpu_name, has_vnni
from engine.export.int8 import quantize
from engine.export.labelled import Data
from engine.export.options import REPORT, TOO_MUCH, Options
from engine.export.proof import Answers, Judged, judge, largest_difference, latencies
from engine.export.steps import Steps
from engine.export.subject import Subject
from engine.release.convert import CLOSENESS, scale_of
from engine.store.clock import timestamp
from engine.store.files import atomic_write, sha256_file, write_json
from engine.tasks.medium import Limits

_EAGER, _FP32 = "torch eager", "fp32 ONNX Runtime"  # of the original: what every file is compared with


class Export:
    """One call of `export`.

    Args:
        subject: what is written.
        folder: where to; it must be there.
        original: what it is compared with in size, speed and accuracy, where the subject was made from it.
        made_smaller: what to say of how it was.
        retrain: quantisation-aware training of a subject, for where plain INT8 loses too much.
    """

    def __init__(
        self,
        subject: Subject,
        folder: Path,
        data: Data,
        options: Options,
        limits: Limits,
        say: Callable[[str], None] = lambda line: None,
        *,
        original: Subject | None = None,
        made_smaller: dict[str, Any] | None = None,
        retrain: Callable[[Subject], Subject] | None = None,
    ) -> None:
        self.subject, self.folder, self.data, self.options = subject, folder, data, options
        self.original, self.made_smaller, self.retrain = original or subject, made_smaller, retrain
        self.limits, self.say = limits, say
        self.steps = Steps(folder)
        self._golden = subject.medium.golden()
        self.contents: dict[str, bytes] = {}
        self.notes: dict[str, dict[str, Any]] = {}
        self._differences: dict[str, float] = {}
        self.skipped: list[dict[str, str]] = []

    def run(self) -> dict[str, Any]:
        """Write every format, prove it, and return the report.

        Raises:
            UsageError: INT8 alone is asked for without data.
            Failed: nothing could be written, or INT8 is not worth having (and not allowed to be).
            Interrupted: stopped in a training; called again it goes on.
        """
        if list(self.options.formats) == ["int8"] and not self.data.calibration:
            raise UsageError(
                f"INT8 needs data of your own to calibrate on: {self.data.missing}",
                "name class folders: --data DIR",
                kind="no_data",
            )
        for kind in self.options.formats:
            self._write(kind)
        if not self.contents:
            raise Failed("no format could be written", self.skipped[0]["reason"])
        report = self._prove()
        unwanted = None if self.options.allow_worse else self._unwanted(report)
        if unwanted:
            self._take_away(report, unwanted)
        write_json(self.folder / REPORT, report)
        if unwanted:
            raise Failed(
                f"the INT8 file is not worth having: {unwanted}",
                "name more data to calibrate on, set export.recover=qat, or take it as it is with --allow-worse",
                kind="not_worth_having",
                payload=report,
            )
        return report

    def _write(self, kind: str) -> None:
        path, key = self.folder / formats.FILES[kind], self._key(kind)
        if kind == "triton":
            self._write_beside()
        if (note := self.steps.kept(kind, key, path)) is not None:
            self.contents[kind], self.notes[kind] = path.read_bytes(), note
            self.say(f"{kind}: {path.name} is there already")
            return
        try:
            content, note = self._made(kind)
            self._check(kind, content)
        except Failed as error:
            self._skip(kind, error.message)
            return
        except UnderstudyError:  # a training that was stopped, or cannot be begun
            raise
        except Exception as error:  # noqa: BLE001 - each exporter fails in its own way: the next format is tried
            self._skip(kind, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            return
        atomic_write(path, content)
        self.contents[kind], self.notes[kind] = content, note
        self.say(f"{kind}: {path.name}, {len(content) / 1e6:.1f} MB")
        self.steps.done(kind, key, path, note)

    def _made(self, kind: str) -> tuple[bytes, dict[str, Any]]:
        subject = self.subject
        if kind == "pt2":
            return formats.exported_program(subject), {}
        if kind == "torchscript":
            return formats.scripted(subject), {"note": "deprecated by torch: take pt2 where you can"}
        if not subject.onnx:
            raise Failed(subject.inexpressible)
        if kind in ("onnx", "triton"):
            return formats.with_metadata(subject.onnx, subject.metadata()), {}
        if kind == "fp16":
            return formats.with_metadata(formats.half(subject.onnx), subject.metadata(precision="fp16")), {}
        return self._int8()

    def _int8(self) -> tuple[bytes, dict[str, Any]]:
        data, options = self.data, self.options
        if not data.calibration:
            raise Failed(f"INT8 needs data to calibrate on: {data.missing}")
        found = quantize(
            self.subject,
            lambda: data.batches(self.subject, self.limits),
            data.judged,
            self.limits,
            options.max_loss,
            self.say,
            self.retrain,
        )
        return formats.with_metadata(
            found.content, found.subject.metadata(precision="int8", **found.note)
        ), found.note

    def _write_beside(self) -> None:
        """Whatever a model repository has but the net; a net that cannot be written leaves them without harm."""
        for name, text in triton.beside(self.subject).items():
            atomic_write(self.folder / name, text)

    def _check(self, kind: str, content: bytes) -> None:
        """Refuse an exact format whose answers are not the original's, and any whose answers are no numbers."""
        difference = self._difference(kind, content)
        if not np.isfinite(difference):
            raise Failed("answers NaN or Inf")
        allowed = CLOSENESS * scale_of(self._wanted)
        if kind not in ("int8", "fp16") and difference > allowed:
            raise Failed(f"answers differ from torch's by {difference:.2g}, {allowed:.2g} is allowed")

    def _difference(self, kind: str, content: bytes) -> float:
        if kind not in self._differences:
            answer = formats.runner(kind, content, self.subject.medium.input_name, 0)
            self._differences[kind] = largest_difference(answer, self._golden, self._wanted)
        return self._differences[kind]

    @cached_property
    def _wanted(self) -> np.ndarray:
        return formats.TorchRunner(self.subject.module, 0)(self._golden)

    def _skip(self, kind: str, reason: str) -> None:
        instead = formats.INSTEAD.get(kind)
        entry = {"path": formats.FILES[kind], "format": kind, "reason": reason}
        self.skipped.append(entry)
        self.say(f"{kind}: not written ({reason})")
        if instead and instead not in self.options.formats and instead not in self.contents:
            entry["instead"] = instead
            self.say(f"{kind}: trying {instead} instead")
            self._write(instead)

    def _prove(self) -> dict[str, Any]:
        import torch

        self.say("timing and judging what was written")
        threads = torch.get_num_threads()
        try:
            times = self._timed()
        finally:
            torch.set_num_threads(threads)
        judged, unreadable = self._judged()
        original, options = self.original, self.options
        whole = len(original.onnx or original.release.weights())
        reference = judged.get(_FP32 if original.onnx else _EAGER)
        return {
            "release": self.subject.release.id,
            "checkpoint": self.subject.card["checkpoint"],
            "at": timestamp(),
            "host": {"cpu": cpu_name(), "features": cpu_features(), "threads": options.threads},
            "data": {
                "shown": self.data.shown,
                "judged": len(self.data.judged) - unreadable,
                "calibrated_on": len(self.data.calibration),
                "unreadable": unreadable,
            },
            "original": {
                "release": original.release.id,
                "bytes": whole,
                "torch": times[_EAGER],
                "onnx": times.get(_FP32),
                "judged": reference.row(None) if reference else None,
            },
            "made_smaller": self.made_smaller,
            "artifacts": [
                self._artifact(kind, times, whole, judged.get(kind), reference) for kind in self.contents
            ],
            "skipped": self.skipped,
        }

    def _artifact(
        self, kind: str, times: dict[str, Any], whole: int, judged: Judged | None, reference: Judged | None
    ) -> dict[str, Any]:
        path, content = self.folder / formats.FILES[kind], self.contents[kind]
        p50 = times[kind]["1"]["p50"]
        row = judged.row(reference) if judged else None
        return {
            "format": kind,
            "path": str(path),
            "bytes": len(content),
            "sha256": sha256_file(path),
            "size_ratio": round(whole / len(content), 3),
            "latency_ms": p50,
            "latency": times[kind],
            "speedup": round(times[_EAGER]["1"]["p50"] / p50, 3),
            "speedup_onnx": round(times[_FP32]["1"]["p50"] / p50, 3) if _FP32 in times else None,
            "accuracy": row["accuracy"] if row else None,
            "judged": row,
            "max_abs_error": self._difference(kind, content),
            "present": True,
            **self.notes[kind],
        }

    def _runners(self, threads: int, *, eager: bool) -> dict[str, Answers]:
        """Everything that is compared; an original's `onnx` and `triton` are the very graph that `_FP32` is: left out."""
        name, original = self.subject.medium.input_name, self.original
        found: dict[str, Answers] = {}
        if eager or not original.onnx:
            found[_EAGER] = formats.TorchRunner(original.module, threads)
        if original.onnx:
            found[_FP32] = formats.OnnxRunner(original.onnx, name, threads)
        for kind, content in self.contents.items():
            if not (kind in ("onnx", "triton") and original is self.subject):
                found[kind] = formats.runner(kind, content, name, threads)
        return found

    def _timed(self) -> dict[str, dict[str, Any]]:
        runners = self._runners(self.options.threads, eager=True)
        times = latencies(runners, self._golden[-1], self.options.budget_s)
        return {kind: times[_FP32] for kind in self.contents if kind not in times} | times

    def _judged(self) -> tuple[dict[str, Judged], int]:
        if not self.data.judged:
            return {}, 0
        judged, unreadable = judge(
            self._runners(0, eager=False), self.subject.medium, self.data.judged, self.limits
        )
        return {kind: judged[_FP32] for kind in self.contents if kind not in judged} | judged, unreadable

    def _unwanted(self, report: dict[str, Any]) -> str:
        """Why the INT8 file is no better than what it was made from; "" where it is, or there is none."""
        row = next((row for row in report["artifacts"] if row["format"] == "int8"), None)
        if row is None:
            return ""
        reasons = []
        ratios = [report["original"]["onnx"][size]["p10"] / row["latency"][size]["p10"] for size in ("1", "8")]
        if max(ratios) < 1:
            shown = " and ".join(f"{ratio:.2f}x" for ratio in ratios)
            reasons.append(f"it is slower than fp32 ({shown} as fast at batch 1 and 8)")
        if row["judged"] and row["judged"]["difference"] < -TOO_MUCH:
            reasons.append(f"it loses {-row['judged']['difference'] * 100:.1f} points of accuracy")
        return " and ".join(reasons)

    def _take_away(self, report: dict[str, Any], why: str) -> None:
        row = next(row for row in report["artifacts"] if row["format"] == "int8")
        Path(row["path"]).unlink(missing_ok=True)
        row |= {"present": False, "note": f"taken away: {why}"}
        report["skipped"].append({"path": formats.FILES["int8"], "format": "int8", "reason": why})

    def _key(self, kind: str) -> dict[str, Any]:
        """What a written file depends on."""
        key: dict[str, Any] = {"release": self.subject.release.id}
        key["versions"] = [version(name) for name in ("torch", "onnx", "onnxruntime")]
        if kind == "int8":
            key |= {**self.data.key(), "max_loss": self.options.max_loss, "retrained": self.retrain is not None}
            key |= {"vnni": has_vnni()}
        return key
