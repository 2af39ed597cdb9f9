"""A release: one immutable file, named by the SHA-256 of its content.

The file is an uncompressed zip with `release.json` (the manifest), `model.onnx` (what is served) and
`weights.safetensors` (for engines that want plain tensors). Timestamps inside are fixed, so equal
content gives equal bytes and so an equal id. Torch-free.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from engine.errors import Failed, UsageError
from engine.store.files import atomic_writer, fsync_folder, sha256_file
from engine.store.workspace import Workspace

SUFFIX = ".release"
_MANIFEST, _ONNX, _WEIGHTS = "release.json", "model.onnx", "weights.safetensors"
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Origin(BaseModel):
    """The checkpoint that a release was made from; `accuracy` and `f1_macro` are fractions."""

    model_config = ConfigDict(extra="forbid")

    name: str
    sha256: str
    md5: str
    bytes: int
    cycle: int | None = None
    epoch: int | None = None
    accuracy: float | None = None
    f1_macro: float | None = None
    loss: float | None = None
    run: str | None = None


class Manifest(BaseModel):
    """What a release says of itself."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    task: str = "images"
    precision: Literal["fp32", "int8", "fp16"] = "fp32"
    architecture: dict[str, Any]  # {"name": str, "settings": dict}
    classes: list[str]
    input: dict[str, Any]  # {"name": "image", "dtype": "FP32", "shape": [-1, C, H, W]}
    output: dict[str, Any] | None = None  # likewise; None: `probabilities`, one a class
    preprocess: dict[str, Any]  # what the task's medium is made from; images: Preprocess.to_dict()
    parameters: int
    checkpoint: Origin
    new_classes_reason: str | None = None
    golden: list[dict[int, float]] | None = None  # `engine.release.golden`: its right answers; None: an older one
    probes: list[str] | None = (
        None  # the bodies that these answer, base64; None: the pictures that all image nets get
    )

    def outputs(self) -> dict[str, Any]:
        """The net's output, its shape without the batch as `[-1, ...]`."""
        return self.output or {"name": "probabilities", "dtype": "FP32", "shape": [-1, len(self.classes)]}


@dataclass(frozen=True)
class Release:
    """A release file whose name was checked against its content when it was opened with `verify`."""

    id: str
    path: Path
    manifest: Manifest

    def onnx(self) -> bytes:
        return self._member(_ONNX)

    def weights(self) -> bytes:
        """The safetensors file's bytes; load with `safetensors.torch.load`."""
        return self._member(_WEIGHTS)

    def _member(self, name: str) -> bytes:
        with zipfile.ZipFile(self.path) as bundle:
            return bundle.read(name)


def write_release(folder: Path, manifest: Manifest, onnx: bytes, weights: bytes) -> Release:
    """Write a release under its content's hash and return it; equal content gives the same file again."""
    scratch = folder / f".making-{os.getpid()}.part"
    try:
        with atomic_writer(scratch) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as bundle:
            fields = manifest.model_dump(mode="json", exclude=_left_out(manifest))
            text = json.dumps(fields, sort_keys=True, indent=1).encode()
            for name, content in ((_MANIFEST, text), (_ONNX, onnx), (_WEIGHTS, weights)):
                bundle.writestr(zipfile.ZipInfo(name, _EPOCH), content)
        identity = sha256_file(scratch)
        path = folder / f"{identity}{SUFFIX}"
        scratch.replace(path)
        fsync_folder(folder)
    finally:
        scratch.unlink(missing_ok=True)
    return Release(identity, path, manifest)


def _left_out(manifest: Manifest) -> set[str]:
    """Fields that came later and say nothing here: a release of images keeps its id."""
    return {name for name in ("output", "probes") if getattr(manifest, name) is None}


def read_release(path: Path, *, expect: str | None = None) -> Release:
    """Open a release file.

    Args:
        expect: the id that the content must have; checked by reading the whole file. None skips the
            check, for showing a manifest only: never serve or promote what was not checked.

    Raises:
        Failed: missing, not a release, or not the expected content.
    """
    try:
        if expect is not None:
            with path.open("rb") as stream:
                actual = hashlib.file_digest(stream, "sha256").hexdigest()
            if actual != expect:
                raise Failed(
                    f"{path.name} is damaged: its content is {actual[:8]}, not {expect[:8]}",
                    "restore it from a backup",
                    kind="damaged",
                )
        with zipfile.ZipFile(path) as bundle:
            manifest = Manifest.model_validate_json(bundle.read(_MANIFEST))
    except FileNotFoundError:
        raise Failed(f"release file {path.name} is missing", "restore it from a backup", kind="missing") from None
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise Failed(
            f"{path.name} is not a release ({error})", "restore it from a backup", kind="damaged"
        ) from None
    return Release(expect or path.name.removesuffix(SUFFIX), path, manifest)


def release_path(workspace: Workspace, identity: str) -> Path:
    return workspace.releases / f"{identity}{SUFFIX}"


def resolve_release(workspace: Workspace, prefix: str, known: Iterable[str] = ()) -> str:
    """The full id of the one release that starts with `prefix` (at least 4 hex digits).

    Args:
        known: ids of releases whose files may be gone.

    Raises:
        UsageError: none, or more than one.
    """
    stored = [path.name.removesuffix(SUFFIX) for path in sorted(workspace.releases.glob(f"*{SUFFIX}"))]
    names = list(dict.fromkeys([*known, *(name for name in stored if name[0] != ".")]))
    found = [name for name in names if len(prefix) >= 4 and name.startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    what = "more than one release starts" if found else "no release starts"
    shown = ", ".join(name[:8] for name in names[-8:])
    raise UsageError(f"{what} with '{prefix}'", f"known: {shown or 'none'}", kind="unknown_release")
