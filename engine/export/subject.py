"""What is exported: a release, whose every byte was checked when it was admitted.

A checkpoint is admitted first, as it would be on its way to TO-BE: nothing here ever opens a pickle. One that ONNX
cannot express passes every other check, and torch's own formats are made from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import Settings
from engine.errors import UsageError
from engine.release.admit import Rejected, admit, admit_unconverted
from engine.release.bundle import SUFFIX, Release, read_release, release_path, resolve_release
from engine.store.files import sha256_file
from engine.store.workspace import Workspace
from engine.tasks.medium import Medium
from engine.tasks.task import load_kind

if TYPE_CHECKING:
    from torch import nn

METADATA = "understudy"


@dataclass(frozen=True)
class Subject:
    """A release with what its kind of work says about it.

    Attributes:
        name: what the person called it.
        trusted: the one task of one's own whose code may be imported.
        inexpressible: why there is no ONNX file of it; "" where there is one.
    """

    name: str
    release: Release
    trusted: str
    inexpressible: str = ""

    @cached_property
    def card(self) -> dict[str, Any]:
        return self.release.manifest.model_dump(mode="json")

    @cached_property
    def medium(self) -> Medium:
        return load_kind(self.card["task"], self.trusted).medium(self.card)

    @cached_property
    def onnx(self) -> bytes:
        """The release's own fp32 file, `medium.input_name` → `medium.output`; empty where ONNX cannot express it."""
        return self.release.onnx()

    @cached_property
    def module(self) -> nn.Module:
        """The torch net on the CPU that answers as the ONNX file does (softmax and all), ready for inference."""
        from safetensors.torch import load

        from engine.release.convert import Probabilities

        net = load_kind(self.card["task"], self.trusted).net(self.card)
        net.load_state_dict(load(self.release.weights()), strict=False)
        net.float().eval().requires_grad_(False)
        return Probabilities(net).eval() if self.medium.output == "probabilities" else net

    def metadata(self, **more: Any) -> dict[str, str]:
        """What each exported file says of itself, as the formats' text fields want it."""
        card = self.card
        return {
            METADATA: json.dumps(
                {
                    "task": card["task"],
                    "architecture": card["architecture"],
                    "release": self.release.id,
                    "checkpoint": card["checkpoint"],
                    "input": card["input"],
                    "output": self.medium.output,
                    **more,
                },
                ensure_ascii=False,
            ),
            "classes": json.dumps(card["classes"], ensure_ascii=False),
            "preprocess": json.dumps(card["preprocess"], ensure_ascii=False),
        }


def open_subject(workspace: Workspace, settings: Settings, given: str) -> Subject:
    """The release that `given` names: its file, the first digits of its id, or the checkpoint it is made from.

    Raises:
        UsageError: no such file or release.
        Failed: a damaged release, or a checkpoint that is not admitted.
    """
    path = Path(given).expanduser()
    if path.is_file():
        subject = _of_file(workspace, settings, path)
    elif path.exists() or len(path.parts) > 1 or path.suffix:
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"{given} {what}", "name a checkpoint file or a release", kind="not_found")
    else:
        identity = resolve_release(workspace, given)
        release = read_release(release_path(workspace, identity), expect=identity)
        subject = Subject(given, release, settings.task)
    manifest = subject.release.manifest
    if manifest.precision != "fp32":
        raise UsageError(
            f"release {subject.release.id[:8]} is an {manifest.precision} build and has no weights to export",
            f"name its checkpoint, {manifest.checkpoint.name}, or the fp32 release of it",
        )
    return subject


def _of_file(workspace: Workspace, settings: Settings, path: Path) -> Subject:
    if path.suffix == SUFFIX:
        stem = path.name.removesuffix(SUFFIX)
        named = len(stem) == 64 and set(stem) <= set("0123456789abcdef")
        release = read_release(path, expect=stem if named else sha256_file(path))
        return Subject(path.name, release, settings.task)
    try:
        release = admit(
            workspace, settings, path, name=path.name, cycle=None, expect_classes=None, for_slots=False
        )
    except Rejected as error:
        if error.check not in ("convert", "agreement"):
            raise
        release = admit_unconverted(workspace, settings, path, name=path.name)
        return Subject(path.name, release, settings.task, error.message.removeprefix(f"{path.name} "))
    return Subject(path.name, release, settings.task)
