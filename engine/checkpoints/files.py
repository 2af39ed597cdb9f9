"""Writing and reading checkpoint files: whole or not there, and never an unsafe pickle.

A checkpoint is `torch.save` of a dict with the documents' names (`model_state_dict`, `epoch`,
`accuracy` as a fraction, `loss`) and, under `CARD`, what a release needs to know.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

from engine.errors import Failed
from engine.store.files import Digest, atomic_writer

CARD = "understudy"


class _Hashing:
    """A binary stream that hashes what passes; torch's zip writer only ever appends."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.sha256, self.md5, self.bytes = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0

    def write(self, block: Any) -> int:
        view = memoryview(block)
        self._stream.write(view)
        self.sha256.update(view)
        self.md5.update(view)
        self.bytes += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        self._stream.flush()


def save_checkpoint_file(path: Path, state: dict[str, Any]) -> Digest:
    """Write `state` to `path`: beside, fsynced, renamed. Returns the file's hashes and size.

    Raises:
        Failed: it cannot be written (disk full, rights); what was at `path` before is still there.
    """
    import torch

    try:
        with atomic_writer(path) as stream:
            hashing = _Hashing(stream)
            torch.save(state, hashing)
    except (OSError, RuntimeError) as error:
        # torch reports a failed write as a RuntimeError of its zip writer
        raise Failed(
            f"cannot save {path} ({' '.join(str(error).split())[:160]})",
            "free some space or mend the folder's rights, then: python -m engine train --resume latest",
            kind="cannot_save",
        ) from error
    return Digest(hashing.sha256.hexdigest(), hashing.md5.hexdigest(), hashing.bytes)


def load_checkpoint_file(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU with `weights_only=True`; for files of our own making.

    Raises:
        FileNotFoundError: there is none.
        Failed: damaged (its zip's CRCs are checked: torch itself accepts a flipped byte), or not a dict.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():
                raise Failed(f"{path} is damaged at {broken}", "restore it, or train again", kind="damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except (OSError, zipfile.BadZipFile, RuntimeError, pickle.UnpicklingError, EOFError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise Failed(f"{path} cannot be read ({reason})", "restore it, or train again", kind="damaged") from None
    if not isinstance(state, dict):
        raise Failed(f"{path} holds no checkpoint", "restore it, or train again", kind="damaged")
    return state
