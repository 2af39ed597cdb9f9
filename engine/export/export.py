"""Exporting a release: each format written, checked against the original, timed and judged, one after another.

`export.json` in the folder says what is there with its proof. It is rewritten after every step, and a step whose
file is still there as it was is not done again: an export that was killed goes on where it stood.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import Failed, UsageError
from engine.export import formats
from engine.export.host import cpu_features, cpu_name
from engine.export.proof import Answers, Judged, decoded, judge, largest_difference, latencies
from engine.export.session import Inputs
from engine.export.steps import Steps
from engine.export.subject import Subject
from engine.release.convert import CLOSENESS
from engine.store.clock import timestamp
from engine.store.files import atomic_write, sha256_file, write_json
from engine.tasks.labelled import Labelled
from engine.tasks.medium import Limits

REPORT = "export.json"
ORDER = ("onnx", "pt2", "torchscript", "fp16", "int8")
_EAGER, _FP32 = "torch eager", "fp32 ONNX Runtime"  # of the original: what every file is compared with
TOO_MUCH = 0.01  # an INT8 file that loses more of the accuracy is an error unless allowed


@dataclass(frozen=True)
class Options:
    """What the person asked for.

    Attributes:
        threads: of each measured model.
        budget_s: of measuring latencies.
        max_loss: INT8 may lose this much accuracy, a fraction, before layers are left in fp32.
        allow_worse: an INT8 file that is slower than fp32, or loses more than a point, is no error.
        images: at most so many labelled requests are judged.
        calibration: so many are measured for INT8's ranges.
    """

    formats: Sequence[str]
    threads: int = 1
    budget_s: float = 20.0
    max_loss: float = 0.005
    allow_worse: bool = False
    images: int = 1000
    calibration: int = 256
    seed: int = 0


@dataclass(frozen=True)
class Data:
    """Labelled requests: those that INT8 is calibrated on, and others that every file is judged on."""

    calibration: list[Labelled] = field(default_factory=list)
    judged: list[Labelled] = field(default_factory=list)
    shown: str = ""
    missing: str = "no labelled data was named"


def split(items: Sequence[Labelled], shown: str, options: Options, calibration: Sequence[Labelled] = ()) -> Data:
    """Calibration and judged requests, never the same; a set of its own for calibration leaves the whole other one."""
    order = random.Random(options.seed)
    drawn = order.sample(list(items), len(items))
    if calibration:
        own = order.sample(list(calibration), min(options.calibration, len(calibration)))
        return Data(own, drawn[: options.images], shown)
    count = min(options.calibration, len(drawn) // 4)
    return Data(drawn[:count], drawn[count : count + options.images], shown)


class Export:
    """One call of `export`.

    Args:
        subject: what is written.
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
        self._sample = self._golden[-1]
        self.contents: dict[str, bytes] = {}
        self.notes: dict[str, dict[str, Any]] = {}
        self.skipped: list[dict[str, str]] = []

    def run(self) -> dict[str, Any]:
        """Write every format, prove it, and return the report.

        Raises:
            UsageError: INT8 alone is asked for without data.
            Failed: nothing could be written, or INT8 is not worth having (and not allowed to be).
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.folder} ({error.strerror})", "choose another --output-dir"
            ) from None
        if list(self.options.formats) == ["int8"] and not self.data.calibration:
            raise UsageError(
                f"INT8 needs data of your own to calibrate on: {self.data.missing}",
                "name class folders: --data DIR",
            )
        for kind in [kind for kind in ORDER if kind in self.options.formats]:
            self._write(kind)
        if not self.contents:
            raise Failed("no format could be written", self.skipped[0]["reason"] if self.skipped else "")
        report = self._prove()
        write_json(self.folder / REPORT, report)
        self._worth_having(report)
        return report

    def _write(self, kind: str) -> None:
        path = self.folder / formats.FILES[kind]
        key = self._key(kind)
        if (note := self.steps.kept(kind, key, path)) is not None:
            self.contents[kind], self.notes[kind] = path.read_bytes(), note
            self.say(f"{kind}: {path.name} is there already")
            return
        try:
            content, note = self._made(kind)
            self._agrees(kind, content)
        except Failed as error:
            self._skip(kind, error.message)
            return
        except Exception as error:  # noqa: BLE001 - each exporter fails in its own way: the next format is tried
            self._skip(kind, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            return
        atomic_write(path, content)
        self.contents[kind], self.notes[kind] = content, note
        self.say(f"{kind}: {path.name}, {len(content) / 1e6:.1f} MB")
        self.steps.done(kind, key, path, note)

    def _made(self, kind: str) -> tuple[bytes, dict[str, Any]]:
        subject = self.subject
        if kind == "onnx":
            return formats.with_metadata(subject.onnx, subject.metadata()), {}
        if kind == "fp16":
            return formats.with_metadata(formats.half(subject.onnx), subject.metadata(precision="fp16")), {}
        if kind == "pt2":
            return formats.exported_program(subject), {}
        if kind == "torchscript":
            return formats.scripted(subject), {"note": "deprecated by torch: take pt2 where you can"}
        return self._int8()

    def _int8(self) -> tuple[bytes, dict[str, Any]]:
        from engine.export.int8 import quantize

        if not self.data.calibration:
            raise Failed(f"INT8 needs data to calibrate on: {self.data.missing}", "name class folders: --data DIR")
        content, note = quantize(
            self.subject,
            self._batches,
            self.data.judged,
            self.limits,
            self.options.max_loss,
            self.say,
            self.retrain,
        )
        return formats.with_metadata(content, self.subject.metadata(precision="int8", **note)), note

    def _batches(self) -> Iterator[Inputs]:
        medium, items = self.subject.medium, self.data.calibration
        for start in range(0, len(items), 8):
            _, inputs = decoded(medium, items[start : start + 8], self.limits)
            if len(inputs):
                yield {medium.input_name: inputs}

    def _agrees(self, kind: str, content: bytes) -> None:
        """Refuse an exact format whose answers are not the original's."""
        if kind in ("int8", "fp16"):
            return
        difference = self._difference(formats.runner(kind, content, self.subject.medium.input_name, 0))
        if not difference <= CLOSENESS * max(1.0, float(np.abs(self._wanted).max())):
            raise Failed(f"answers differ from torch's by {difference:.2g}, {CLOSENESS:g} is allowed")

    @property
    def _wanted(self) -> np.ndarray:
        return formats.TorchRunner(self.subject.module, 0)(self._golden)

    def _difference(self, answer: Answers) -> float:
        return largest_difference(answer, self._golden, self._wanted)

    def _skip(self, kind: str, reason: str) -> None:
        instead = formats.INSTEAD.get(kind)
        entry = {"path": formats.FILES[kind], "format": kind, "reason": reason}
        if instead and instead not in self.options.formats and instead not in self.contents:
            entry["instead"] = instead
        self.skipped.append(entry)
        self.say(f"{kind}: not written ({reason})")
        if "instead" in entry:
            self.say(f"{kind}: trying {instead} instead")
            self._write(entry["instead"])

    def _prove(self) -> dict[str, Any]:
        subject, name = self.subject, self.subject.medium.input_name
        self.say("timing and judging what was written")
        runners: dict[str, Answers] = {_EAGER: formats.TorchRunner(self.original.module, self.options.threads)}
        runners |= {
            kind: formats.runner(kind, content, name, self.options.threads)
            for kind, content in self.contents.items()
        }
        runners[_FP32] = formats.OnnxRunner(self.original.onnx, name, self.options.threads)
        times = latencies(runners, self._sample, self.options.budget_s)
        judged, unreadable = self._judged()
        reference = judged.get(_FP32)
        whole = len(self.original.onnx)
        artifacts = []
        for kind, content in self.contents.items():
            path = self.folder / formats.FILES[kind]
            p50 = times[kind]["1"]["p50"]
            found = judged[kind].row(reference) if kind in judged else None
            artifacts.append(
                {
                    "format": kind,
                    "path": str(path),
                    "bytes": len(content),
                    "sha256": sha256_file(path),
                    "size_ratio": round(whole / len(content), 3),
                    "latency_ms": p50,
                    "latency": times[kind],
                    "speedup": round(times[_EAGER]["1"]["p50"] / p50, 3),
                    "speedup_onnx": round(times[_FP32]["1"]["p50"] / p50, 3),
                    "accuracy": found["accuracy"] if found else None,
                    "judged": found,
                    "max_abs_error": self._difference(runners[kind]),
                    **self.notes[kind],
                }
            )
        return {
            "release": subject.release.id,
            "checkpoint": subject.card["checkpoint"],
            "at": timestamp(),
            "host": {"cpu": cpu_name(), "features": cpu_features(), "threads": self.options.threads},
            "data": {
                "shown": self.data.shown,
                "judged": len(self.data.judged) - unreadable,
                "calibrated_on": len(self.data.calibration),
                "unreadable": unreadable,
            },
            "original": {
                "release": self.original.release.id,
                "bytes": whole,
                "torch": times[_EAGER],
                "onnx": times[_FP32],
                "judged": reference.row(None) if reference else None,
            },
            "made_smaller": self.made_smaller,
            "artifacts": artifacts,
            "skipped": self.skipped,
        }

    def _judged(self) -> tuple[dict[str, Judged], int]:
        if not self.data.judged:
            return {}, 0
        name = self.subject.medium.input_name
        runners: dict[str, Answers] = {_FP32: formats.OnnxRunner(self.original.onnx, name, 0)}
        runners |= {kind: formats.runner(kind, content, name, 0) for kind, content in self.contents.items()}
        return judge(runners, self.subject.medium, self.data.judged, self.limits)

    def _worth_having(self, report: dict[str, Any]) -> None:
        """An INT8 file that is no better than what it was made from is taken away again, and said."""
        for row in report["artifacts"]:
            if row["format"] != "int8":
                continue
            reasons = []
            ratios = [report["original"]["onnx"][size]["p10"] / row["latency"][size]["p10"] for size in ("1", "8")]
            if max(ratios) < 1:
                shown = " and ".join(f"{ratio:.2f}x" for ratio in ratios)
                reasons.append(f"it is slower than fp32 ({shown} as fast at batch 1 and 8)")
            if row["judged"] and row["judged"].get("difference", 0) < -TOO_MUCH:
                reasons.append(f"it loses {-row['judged']['difference'] * 100:.1f} points of accuracy")
            if reasons and not self.options.allow_worse:
                Path(row["path"]).unlink(missing_ok=True)
                raise Failed(
                    f"the INT8 file is not worth having: {' and '.join(reasons)}",
                    "name more data to calibrate on, or take it all the same with --allow-worse",
                    kind="not_worth_having",
                    payload=report,
                )

    def _key(self, kind: str) -> dict[str, Any]:
        """What a written file depends on."""
        key: dict[str, Any] = {"release": self.subject.release.id}
        if kind == "int8":
            names = [item.name for item in self.data.calibration]
            key |= {"calibration": names, "max_loss": self.options.max_loss, "judged": len(self.data.judged)}
        return key
