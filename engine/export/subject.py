"""What is exported: a release, whose every byte was checked when it was admitted.

A checkpoint is admitted first, as it would be on its way to TO-BE: nothing here ever opens a pickle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import Settings
from engine.errors import UsageError
from engine.release.admit import admit
from engine.release.bundle import SUFFIX, Release, read_release, release_path, resolve_release
from engine.store.workspace import Workspace
from engine.tasks.medium import Medium
from engine.tasks.task import load_kind

if TYPE_CHECKING:
    from torch import nn

METADATA = "understudy"


@dataclass(frozen=True)
class Subject:
    """A release with what its kind of work says about it. `name`: what the person called it."""

    name: str
    release: Release
    trusted: str

    @cached_property
    def card(self) -> dict[str, Any]:
        return self.release.manifest.model_dump(mode="json")

    @cached_property
    def medium(self) -> Medium:
        return load_kind(self.card["task"], self.trusted).medium(self.card)

    @cached_property
    def onnx(self) -> bytes:
        """The release's own fp32 file: `medium.input_name` → `medium.output`."""
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
        if path.suffix == SUFFIX:
            release = read_release(path, expect=path.name.removesuffix(SUFFIX))
        else:
            release = admit(workspace, settings, path, name=path.name, cycle=None, expect_classes=None)
    elif path.exists() or len(path.parts) > 1:
        raise UsageError(f"no checkpoint file {given}", "name a file or a release", kind="not_found")
    else:
        identity = resolve_release(workspace, given)
        release = read_release(release_path(workspace, identity), expect=identity)
    if release.manifest.precision != "fp32":
        raise UsageError(
            f"release {release.id[:8]} is an {release.manifest.precision} build and has no weights to export",
            f"name its checkpoint, {release.manifest.checkpoint.name}, or the fp32 release of it",
        )
    return Subject(given, release, settings.task)
