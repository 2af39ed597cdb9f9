"""A checkpoint file on its way in, before a byte of it is opened: where it lies, how large it is, its hashes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from engine.config import Settings
from engine.errors import Failed, UsageError
from engine.release.refusal import Refusal
from engine.store.files import Digest, digest_file


@dataclass(frozen=True)
class Candidate:
    """`expect_classes` is None where any classes will do.

    `read` is False for what is refused before a byte of it is read: `digest` then stands for its path.
    `for_slots` is False for what no slot will get: AS-IS may do another kind of work.
    """

    path: Path
    digest: Digest
    name: str
    cycle: int | None
    expect_classes: list[str] | None
    new_classes_reason: str | None
    notes: list[str]
    read: bool = True
    for_slots: bool = True


def require_there(checkpoint: Path) -> int:
    """The bytes of what the path names.

    Raises:
        UsageError: nothing is there, a folder is, or it may not be looked at.
    """
    try:
        facts = checkpoint.stat()
    except FileNotFoundError:
        what = "is a link to nothing" if checkpoint.is_symlink() else "does not exist"
        raise UsageError(f"{checkpoint} {what}", "check the path", kind="not_found") from None
    except OSError as error:
        raise UsageError(f"{checkpoint} cannot be read ({error.strerror})", "check its rights") from None
    if checkpoint.is_dir():
        raise UsageError(f"{checkpoint} is a folder", "give the checkpoint file itself", kind="not_a_file")
    return facts.st_size


def examine(checkpoint: Path, settings: Settings) -> Digest:
    """Hash a checkpoint after making sure that it is a file of a sane size that may be read.

    Raises:
        UsageError: not there, a folder, or not readable.
        Refusal: a link that leads away, a device or pipe, empty, or far too large.
    """
    size = require_there(checkpoint)
    if checkpoint.is_symlink() and not _stays(checkpoint, settings):
        hint = f"deploy the file itself: {checkpoint.resolve()}"
        raise Refusal("file", "is a link that leads out of its folder", hint)
    if not checkpoint.is_file():
        raise Refusal("file", "is not a regular file", "give the file that torch.save wrote")
    if size == 0:
        raise Refusal("file", "is empty (0 bytes)", "copy it again from where it was made")
    if size > (limit := settings.source.max_bytes):
        raise Refusal(
            "file",
            f"has {size / 1e9:.1f} GB, more than {limit / 1e9:.1f} GB",
            "save the weights alone, without the optimiser, or raise source.max_bytes",
        )
    try:
        return digest_file(checkpoint)
    except PermissionError:
        raise UsageError(f"{checkpoint} may not be read", f"chmod 644 {checkpoint}", kind="unreadable") from None
    except OSError as error:
        raise Failed(f"{checkpoint} cannot be read ({error.strerror})", "check the disk it lies on") from None


def unread(checkpoint: Path, refusal: Refusal) -> Digest:
    """What stands for the content of a file that is not read: its place and what is wrong with it."""
    size = checkpoint.stat().st_size if checkpoint.is_file() else 0
    words = f"{checkpoint.absolute()}\0{refusal.message}\0{size}"
    return Digest(hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest(), "", size)


def _stays(link: Path, settings: Settings) -> bool:
    """Whether a link leads to a file below the source's root, or below its own folder."""
    roots = [link.absolute().parent, settings.checkpoints_root]
    if settings.source.kind == "local" and settings.source.root:
        roots.append(Path(settings.source.root))
    return any(link.resolve().is_relative_to(root.resolve()) for root in roots)
