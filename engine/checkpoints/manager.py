"""Intermediate checkpoints of a training: saved whole, pruned, verified, mirrored to a second folder.

`checkpoint_epoch10_step5000.pt` holds weights, optimiser and position; `checkpoint_epoch10_step5000.json` beside
it says the same without the tensors, with the SHA-256 that the file must have. Torch is imported when needed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import numbers
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.checkpoints.mirror import DRIVE, Mirror
from engine.errors import Failed, UsageError
from engine.store.clock import parse, timestamp
from engine.store.files import sha256_file, write_json

if TYPE_CHECKING:
    import torch

NAME = re.compile(r"checkpoint_epoch(\d+)_step(\d+)\.pt")
DRIVE_FOLDER = "MDM_Checkpoints"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """One checkpoint on disk; `facts` is its JSON, {} where that is missing or damaged."""

    path: Path
    epoch: int
    step: int
    facts: dict[str, Any]

    @property
    def order(self) -> tuple[float, int, int]:
        """Oldest first: by when it was saved, then by its position."""
        try:
            saved = parse(self.facts["saved_at"]).timestamp()
        except (KeyError, TypeError, ValueError):
            saved = self.path.stat().st_mtime
        return saved, self.epoch, self.step

    @property
    def loss(self) -> float | None:
        return self.facts.get("loss")


class CheckpointManager:
    """Saves, lists, loads and prunes the checkpoints of one folder.

    Args:
        checkpoint_dir: made if it is not there.
        max_checkpoints: the newest so many are kept, here and in the mirror.
        mirror: a second folder. It may vanish and come back, and then gets what it missed; while it is away
            saving goes on without it. One that was seen before is never made anew: it may be a mount.
        google_drive_sync: mirror to the Drive folder `MDM_Checkpoints` too, where Drive is mounted.
        save_every_steps: how often `save_if_due` saves; 0: never.
    """

    def __init__(
        self,
        checkpoint_dir: str | Path,
        max_checkpoints: int = 5,
        mirror: str | Path | None = None,
        google_drive_sync: bool = False,
        save_every_steps: int = 0,
    ) -> None:
        if max_checkpoints < 1:
            raise UsageError(f"max_checkpoints is {max_checkpoints}", "give at least 1")
        if save_every_steps < 0:
            raise UsageError(f"save_every_steps is {save_every_steps}", "give 1000, or 0 for never")
        self.save_every_steps = save_every_steps
        self.folder = Path(checkpoint_dir).expanduser()
        self.max_checkpoints = max_checkpoints
        self.folder.mkdir(parents=True, exist_ok=True)
        self.mirrors: list[Mirror] = []
        if mirror is not None:
            self.mirrors.append(Mirror(Path(mirror).expanduser(), self.folder))
        if google_drive_sync:
            self.mirrors.append(Mirror(DRIVE / DRIVE_FOLDER, self.folder, needs=DRIVE))
        self._fill_mirrors()

    def save_checkpoint(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None,
        epoch: int,
        step: int,
        loss: float,
        metrics: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Path:
        """Save `checkpoint_epoch<epoch>_step<step>.pt` and its `.json`, prune, and bring the mirror up to date.

        Args:
            metrics, metadata: plain values (numbers, text, lists, dicts); scalars of numpy or torch become numbers.

        Returns:
            The checkpoint's path.

        Raises:
            Failed: it could not be written; what was there before still is.
            UsageError: a value that is not plain.
        """
        from engine.checkpoints.files import save_checkpoint_file

        facts: dict[str, Any] = {
            "epoch": int(epoch),
            "step": int(step),
            "loss": _plain(loss, "loss"),
            "metrics": _plain(metrics or {}, "metrics"),
            "metadata": _plain(metadata or {}, "metadata"),
        }
        state = {"model_state_dict": model.state_dict(), **facts}
        if optimizer is not None:
            state["optimizer_state_dict"] = optimizer.state_dict()
        path = self.folder / f"checkpoint_epoch{int(epoch)}_step{int(step)}.pt"
        # The JSON of a checkpoint of this name must not outlive it: its hash would call the new file damaged.
        path.with_suffix(".json").unlink(missing_ok=True)
        digest = save_checkpoint_file(path, state)
        facts |= {"saved_at": timestamp(), "sha256": digest.sha256, "bytes": digest.bytes, "file": path.name}
        try:
            write_json(path.with_suffix(".json"), _finite(facts))
        except OSError as error:
            raise Failed(
                f"cannot write {path.with_suffix('.json')} ({error.strerror})", "free some space"
            ) from None
        if sha256_file(path) != digest.sha256:
            raise Failed(f"{path} does not read back as it was written", "check the disk", kind="damaged")
        self._prune(path)
        self._fill_mirrors()
        return path

    def save_if_due(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None,
        epoch: int,
        step: int,
        loss: float,
        metrics: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Path | None:
        """`save_checkpoint` at every `save_every_steps`th step; None at the others. Call it after each step."""
        if not self.save_every_steps or step % self.save_every_steps:
            return None
        return self.save_checkpoint(model, optimizer, epoch, step, loss, metrics, metadata)

    def load_checkpoint(
        self,
        checkpoint_path: str | Path,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        device: str = "cpu",
    ) -> dict[str, Any]:
        """Load a checkpoint, verified and with `weights_only=True`, into the model and the optimiser.

        Returns:
            `path`, `epoch`, `step`, `loss`, `metrics`, `metadata`; training goes on at `epoch + 1`.

        Raises:
            UsageError: there is no such file.
            Failed: it is damaged, holds anything but plain tensors and values, or does not fit the model.
        """
        path = Path(checkpoint_path).expanduser()
        state = _read(path, device)
        try:
            model.load_state_dict(state["model_state_dict"])
            if optimizer is not None and "optimizer_state_dict" in state:
                optimizer.load_state_dict(state["optimizer_state_dict"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise Failed(f"{path.name} does not fit this model ({reason})", "build the model it was saved from",
                         kind="mismatch") from None  # fmt: skip
        found = {name: state.get(name) for name in ("epoch", "step", "loss")}
        return {
            "path": str(path),
            **found,
            "metrics": state.get("metrics") or {},
            "metadata": state.get("metadata") or {},
        }

    def load_latest_checkpoint(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        device: str = "cpu",
        from_drive: bool = False,
        from_mirror: bool = False,
    ) -> dict[str, Any] | None:
        """Load the newest checkpoint that is whole; damaged ones are passed over and named in the log.

        Args:
            from_drive, from_mirror: look in the Drive folder (else the mirror) first, and in the own folder only
                when that is away or holds none.

        Returns:
            As `load_checkpoint`, with `skipped` (list of `{path, reason}`); None when there is no checkpoint.

        Raises:
            Failed: there are checkpoints, and every one is damaged; or the newest whole one does not fit.
        """
        skipped: list[dict[str, str]] = []
        for saved in reversed(self._candidates(from_drive or from_mirror)):
            try:
                return self.load_checkpoint(saved.path, model, optimizer, device) | {"skipped": skipped}
            except Failed as error:
                if error.kind != "damaged":
                    raise
                _log.warning("passed over a damaged checkpoint: %s", error.message)
                skipped.append({"path": str(saved.path), "reason": error.message})
        if skipped:
            raise Failed(
                f"none of the {len(skipped)} checkpoints in {self.folder} is whole",
                f"the newest: {skipped[0]['reason']}",
                kind="damaged",
            )
        return None

    load_latest = load_latest_checkpoint

    def list_checkpoints(self) -> list[dict[str, Any]]:
        """`path`, `epoch`, `step`, `loss` and more of each checkpoint, oldest first; nothing is opened."""
        return [_entry(saved) for saved in scan(self.folder)]

    def _candidates(self, mirrored: bool) -> list[Saved]:
        if mirrored:
            if not self.mirrors:
                _log.warning("no Drive and no mirror is set: looking in %s", self.folder)
            for mirror in reversed(self.mirrors):
                nothing: list[Saved] = []
                if found := mirror.attempt(scan, nothing):
                    return found
        return scan(self.folder)

    def _prune(self, just_saved: Path) -> None:
        for saved in scan(self.folder)[: -self.max_checkpoints]:
            if saved.path != just_saved:
                remove(saved.path)

    def _fill_mirrors(self) -> None:
        for mirror in self.mirrors:
            mirror.fill([(saved.path, saved.facts.get("sha256")) for saved in scan(self.folder)])
            mirror.attempt(self._prune_mirror, None)

    def _prune_mirror(self, folder: Path) -> None:
        for saved in scan(folder)[: -self.max_checkpoints]:
            remove(saved.path)


def scan(folder: Path) -> list[Saved]:
    """The checkpoints of a folder, oldest first."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if (match := NAME.fullmatch(path.name)) and path.is_file():
            found.append(Saved(path, int(match[1]), int(match[2]), _facts(path)))
    return sorted(found, key=lambda saved: saved.order)


def remove(path: Path) -> None:
    """Remove a checkpoint and its JSON; the JSON last, so that a crash leaves no checkpoint without one."""
    for part in (path, path.with_suffix(".json")):
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _entry(saved: Saved) -> dict[str, Any]:
    return {
        "path": str(saved.path),
        "epoch": saved.epoch,
        "step": saved.step,
        "loss": saved.loss,
        "metrics": saved.facts.get("metrics") or {},
        "metadata": saved.facts.get("metadata") or {},
        "bytes": saved.path.stat().st_size,
        "sha256": saved.facts.get("sha256"),
        "saved_at": saved.facts.get("saved_at") or timestamp(saved.path.stat().st_mtime),
    }


def _read(path: Path, device: str) -> dict[str, Any]:
    import pickle

    import torch

    if not path.is_file():
        raise UsageError(f"no checkpoint at {path}", "see list_checkpoints()", kind="not_found")
    expected = _facts(path).get("sha256")
    try:
        if expected is not None and sha256_file(path) != expected:
            raise Failed(
                f"{path.name} is damaged: its content is not what was saved", "take another", kind="damaged"
            )
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():
                raise Failed(f"{path.name} is damaged at {broken}", "take another", kind="damaged")
        state = torch.load(os.fspath(path), map_location=device, weights_only=True)
    except (OSError, zipfile.BadZipFile, RuntimeError, pickle.UnpicklingError, EOFError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise Failed(f"{path.name} cannot be read ({reason})", "take another", kind="damaged") from None
    if not isinstance(state, dict) or "model_state_dict" not in state:
        raise Failed(f"{path.name} holds no checkpoint", "take another", kind="damaged")
    return state


def _plain(value: Any, name: str) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, dict):
        return {str(key): _plain(entry, f"{name}.{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, name) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "size", None) is not None:
        with contextlib.suppress(ValueError, RuntimeError):
            return _plain(value.item(), name)
    raise UsageError(f"'{name}' is a {type(value).__name__}", "give numbers, text, lists or dicts of them")


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: null stands for them there (the checkpoint keeps them)."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
